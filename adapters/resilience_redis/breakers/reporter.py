"""The talk of one event loop with the server about all its circuits: one script call carries what there is to say.

    reporter = Reporter(fleet, link)
    reporter.report(circuit, delay=0.02)            # soon, with others
    admission = await reporter.probe(circuit)       # at once

Changes are heard from a channel. Every few seconds, after each connection and when the lease of a probe should have
ended, it asks for what it may have missed; every answer to anything also brings that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from resilience import clock
from resilience.errors import StoreUnavailableError
from resilience.machines.breaker_records import Admission, BreakerState, Rejection
from resilience.machines.rate_limiter.rule import text
from resilience_redis.breakers.circuit_wire import MICROSECONDS, parse_view
from resilience_redis.breakers.circuits import owner_of
from resilience_redis.breakers.outbox import Outbox, Request, fail
from resilience_redis.connection.replies import error_of
from resilience_redis.scripts import script_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resilience.machines.shared_circuit import SharedCircuit
    from resilience_redis.breakers.fleet import Fleet
    from resilience_redis.link import Link

logger: logging.Logger = logging.getLogger("resilience.redis")

POLL = 3.0
"""Seconds between two questions for what may have been missed, give or take a fifth."""

AWAY_POLL = 0.5
"""The same while the store is away."""

LARGEST = 100
"""Circuits that one script call may be about."""


class Reporter:
    """Tells, asks and listens."""

    def __init__(self, fleet: Fleet, link: Link) -> None:
        self._fleet = fleet
        self._link = link
        self._script = script_of("_prelude", "breaker")
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(fleet)
        self._polled: asyncio.Future[None] | None = None
        self._departure: asyncio.TimerHandle | None = None
        self._ended = False
        self._wake = asyncio.Event()
        self._stops = [link.subscribe(fleet.channel, self._heard), link.on_change(self._changed)]
        link.start(self._watch())

    # What others want.

    def report(self, circuit: SharedCircuit, delay: float) -> None:
        """Have a circuit asked for its report, in `delay` seconds at the latest."""
        self._outbox.report(circuit)
        self._depart_within(delay)

    def hurry(self) -> None:
        """Send what there is at the end of this turn of the loop."""
        self._depart_within(0.0)

    def insist(self, circuit: SharedCircuit, request: str, until: float) -> None:
        """Say something, until it was heard or that time has come."""
        self._outbox.insist(circuit, request, until)
        self.hurry()

    async def views(self) -> None:
        """Read what the fleet has decided. Raises StoreUnavailableError, or what only its author can mend."""
        if self._polled is None:
            self._polled = self._loop.create_future()
            self.hurry()
        await asyncio.shield(self._polled)

    async def probe(self, circuit: SharedCircuit) -> Admission | Rejection:
        """Ask for leave to make a probe. Raises like `views`."""
        asked_at, name = clock.now(), secrets.token_hex(8)

        def give_back() -> None:
            self.insist(circuit, f"r {name}", asked_at + circuit.rule.probe_lease)

        future = self._outbox.ask(circuit, f"a {name}", give_back)
        self.hurry()
        try:
            answer = await future
        except asyncio.CancelledError:
            if not future.cancelled() and future.exception() is None and future.result().startswith("probe"):
                give_back()
            raise
        return self._understood(circuit, answer, asked_at, name)

    def _understood(self, circuit: SharedCircuit, answer: str, asked_at: float, name: str) -> Admission | Rejection:
        kind, _, value = answer.partition(" ")
        now = clock.now()
        if kind == "probe":
            return circuit.granted(asked_at, name)
        if kind == "wait":
            return circuit.refused(now, float(value) / MICROSECONDS)
        if kind == "isolated":
            return Rejection(BreakerState.ISOLATED, None)
        owner_of(circuit).tell(circuit, circuit.closed(now, self._fleet.version))
        return circuit.admit(now)

    def farewell(self) -> None:
        """Hand over what there is to say, so that it is sent before the connection is closed."""
        self._depart()

    # Sending.

    def _depart_within(self, delay: float) -> None:
        due = self._loop.time() + delay
        if self._departure is not None:
            if self._departure.when() <= due:
                return
            self._departure.cancel()
        if not self._ended:
            self._departure = self._loop.call_at(due, self._depart)

    def _depart(self) -> None:
        """Send all that there is, in as few calls as possible. Whatever becomes of a call, those who wait are told."""
        if self._departure is not None:
            self._departure.cancel()
            self._departure = None
        polled, self._polled = self._polled, None
        parts = list(_parts(self._outbox.take(clock.now())))
        if polled is not None and not parts:
            parts.append({})
        for part in parts:
            waiting = [request for requests in part.values() for request in requests]
            reply = self._link.post(self._script, *self._message(part))
            reply.add_done_callback(partial(self._arrived, waiting, polled))
            polled = None

    def _arrived(self, waiting: list[Request], polled: asyncio.Future[None] | None, reply: asyncio.Future[Any]) -> None:
        """Pass on the answers of one script call, or why there are none."""
        error = error_of(reply)
        if error is None:
            try:
                self._read(reply.result(), waiting)
            except Exception as caught:
                error = caught
        if error is None:
            if polled is not None and not polled.done():
                polled.set_result(None)
            return
        if isinstance(error, StoreUnavailableError):
            self._fleet.went_away(error)
        else:  # what only its author can mend: the next call asks and is told
            logger.warning("circuits cannot be shared: %s", error)
            self._fleet.disconnect()
        for request in waiting:
            request.failed(error)
        if polled is not None:
            fail(polled, error)

    def _message(self, part: dict[SharedCircuit, list[Request]]) -> tuple[list[str], list[str]]:
        """The keys and arguments of a script call."""
        fleet = self._fleet
        said = ["", fleet.process, fleet.channel, text(fleet.version), text(random.random())]
        for circuit, requests in part.items():
            owner = owner_of(circuit)
            said += [owner.identity(circuit), owner.line, str(len(requests)), *(each.text for each in requests)]
        return [*fleet.keys, *map(fleet.key_of, part)], said

    def _read(self, reply: Any, requests: list[Request]) -> None:
        """Take over what is new, then answer those who asked."""
        server_now, version, *rest = map(_text, reply)
        for line in rest[len(requests) :]:
            self._learn(float(server_now), line)
        self._fleet.version = max(self._fleet.version, float(version))
        back = self._fleet.away
        self._fleet.answered()
        for request, answer in zip(requests, rest, strict=False):
            request.answered(answer)
        if back:
            self.hurry()  # what was not told meanwhile

    def _learn(self, server_now: float, line: str) -> None:
        """Take over one view; only differences of the server's times mean anything here."""
        identity, view = parse_view(line)
        now = clock.now()
        self._fleet.learn(identity, now, replace(view, until=now + (view.until - server_now) / MICROSECONDS))

    # Listening.

    def wake_at(self, when: float) -> None:
        """Look whether a lease has ended a little after that time, not all processes at once."""
        self._loop.call_later(max(0.0, when - clock.now()) + 0.05 * random.random(), self._wake_if_due)

    def _wake_if_due(self) -> None:
        if self._overdue():
            self._wake.set()

    def _overdue(self) -> list[SharedCircuit]:
        now = clock.now()
        return [circuit for circuit in self._fleet.half_open if circuit.lease_ends <= now]

    def _heard(self, message: str | None) -> None:
        if message is None:
            self._wake.set()
        else:
            server_now, _, line = message.partition(" ")
            self._learn(float(server_now), line)

    def _changed(self, available: bool) -> None:
        if available:
            self._wake.set()

    async def _watch(self) -> None:
        try:
            while True:
                await self._look()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pause()):
                        await self._wake.wait()
                self._wake.clear()
        finally:
            self._end()

    async def _look(self) -> None:
        self._fleet.glance()
        for circuit in self._overdue():
            self._outbox.look(circuit)
        with contextlib.suppress(Exception):  # whoever needs it asks, and is told
            await self.views()

    def _pause(self) -> float:
        return (AWAY_POLL if self._fleet.away else POLL) * (0.8 + 0.4 * random.random())

    def _end(self) -> None:
        self._ended = True
        for stop in self._stops:
            stop()
        if self._departure is not None:
            self._departure.cancel()
        closed = StoreUnavailableError("the store was closed")
        self._outbox.forget(closed)
        if self._polled is not None:
            fail(self._polled, closed)
        self._fleet.leave(self)


def _parts(by_circuit: dict[SharedCircuit, list[Request]]) -> Iterator[dict[SharedCircuit, list[Request]]]:
    circuits = list(by_circuit)
    for start in range(0, len(circuits), LARGEST):
        yield {circuit: by_circuit[circuit] for circuit in circuits[start : start + LARGEST]}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value, "utf-8")
