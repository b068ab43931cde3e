"""The way of one event loop to one server: requests of one turn of the loop travel together.

    lane = Lane(client, timeout=0.04, connect_timeout=1.0)
    answer = await lane.book(target, costs, max_wait=2.0)

Whoever asks waits at most `timeout` seconds, and not at all while the server is known to be away. A command is not
cancelled with its caller: that would drop the connection and leave open whether it was carried out. What it booked
for a caller who no longer waits is given back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from redis.exceptions import ReadOnlyError

from resilience.errors import StoreUnavailableError
from resilience_redis.connection.batch import Errand, Grant, Group
from resilience_redis.connection.guard import Guard, Stop
from resilience_redis.connection.replies import complain
from resilience_redis.connection.target import Answer, Target
from resilience_redis.connection.traffic import Traffic
from resilience_redis.connection.wire import Wire
from resilience_redis.scripts import Script

T = TypeVar("T")

_PROBE = "return redis.call('SET', KEYS[1], '', 'PX', 1000)"
"""A server that answers but cannot write is of no use."""


class Lane:
    """What is asked of a server, and whether it answers."""

    def __init__(self, client: Any, timeout: float, connect_timeout: float) -> None:
        self.wire: Wire = Wire(client)
        self.guard: Guard = Guard(self._probe, self.wire.abandon)
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._loop = asyncio.get_running_loop()
        self._traffic = Traffic(self.wire, self.guard, timeout, connect_timeout, self._give_back)
        self._arriving: list[Group | Errand] = []
        self._last: Group | None = None  # that equal acquires of this turn may join
        self._owed: list[Grant] = []  # to be given back when the server is there again
        self.guard.on_change(self._changed)

    @property
    def available(self) -> bool:
        """Whether the server answered last time."""
        return self.guard.available

    @property
    def outages(self) -> int:
        """How often the server went away."""
        return self.guard.outages

    @property
    def away_for(self) -> float:
        """Seconds without the server, all outages together."""
        return self.guard.away_for

    def on_change(self, listener: Callable[[bool], None]) -> Stop:
        """Call `listener` with the new value whenever `available` changes."""
        return self.guard.on_change(listener)

    def book(self, target: Target, costs: tuple[str, ...], max_wait: float) -> asyncio.Future[Answer]:
        """Acquire with all others of this turn of the loop; the future has the answer, for `target.read`.

        Its error is StoreUnavailableError after `timeout` seconds or when Redis is away; what waiting cannot cure
        (authentication, permission, wrong type) is passed on as it is.
        """
        future: asyncio.Future[Answer] = self._loop.create_future()
        last = self._last
        if last is not None and last.arguments is costs and last.target is target and last.max_wait == max_wait:
            last.futures.append(future)
        elif self.guard.available:
            group = Group(target, "acquire", costs, max_wait, [future])
            self._arrive(group)
            self._last = group
        else:
            self._refuse(future)
        return future

    def unbook(self, target: Target, costs: tuple[str, ...], booked: asyncio.Future[Answer]) -> None:
        """Give back what was booked for a caller who was cancelled after the answer and before it woke up."""
        if not booked.cancelled() and booked.exception() is None:
            self._give_back([Grant(target, costs, target.read(booked.result()))])

    def send(self, target: Target, operation: str, arguments: tuple[str, ...]) -> asyncio.Future[Any]:
        """Send any other operation; the future has the bare reply, or an error as for `book`."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self.guard.available:
            self._arrive(Group(target, operation, arguments, 0.0, [future]))
            self._last = None
        else:
            self._refuse(future)
        return future

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str]) -> asyncio.Future[Any]:
        """Run any script with the other requests of this turn; the future has the reply, or an error as for `book`.

        It is carried out even if the future is cancelled meanwhile.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self.guard.available:
            self._arrive(Errand((script, keys, arguments), future))
            self._last = None
        else:
            self._refuse(future)
        return future

    async def drain(self) -> None:
        """Wait until everything that was sent has ended, and keep no connection."""
        await self._traffic.drain()
        if self._owed:  # an answer that came late means that the server is coming back
            back = asyncio.Event()
            stop = self.guard.on_change(lambda _: back.set())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._connect_timeout):
                    await back.wait()
            stop()
            await self._traffic.drain()

    async def aclose(self) -> None:
        """Wait for what is under way, and look for a server that is away no more."""
        await self.drain()
        await self.guard.aclose()

    def _arrive(self, group: Group | Errand) -> None:
        if not self._arriving:
            self._traffic.expect()
            self._loop.call_soon(self._end_turn)  # in the loop's next turn: after all that is ready in this one
        self._arriving.append(group)

    def _end_turn(self) -> None:
        groups, self._arriving, self._last = self._arriving, [], None
        self._traffic.add(groups)

    def _refuse(self, future: asyncio.Future[Any]) -> None:
        # In the loop's next turn: who asks again and again must not keep everybody else from running.
        self._loop.call_soon(_fail, future, self.guard.refusal())

    def _give_back(self, late: list[Grant]) -> None:
        """Undo bookings that nobody waits for, given in the order in which they were made."""
        for grant in reversed(late):  # only the newest of a key can be undone
            booking = grant.booking
            if not booking.decision.allowed:
                continue
            if self.guard.available:
                marks = grant.target.marks(booking.stamp)
                self.send(grant.target, "refund", grant.costs + marks).add_done_callback(complain)
            else:
                self._owed.append(grant)

    def _changed(self, available: bool) -> None:
        if available:
            owed, self._owed = self._owed, []
            self._give_back(owed[::-1])
        else:
            self._traffic.stop()

    async def _probe(self) -> None:
        """Return if the server does its work. Connecting has a budget of its own."""
        try:
            for budget in (self._connect_timeout, self._timeout):
                async with asyncio.timeout(budget):
                    await self.wire.client.execute_command(*self._question())
        except (ReadOnlyError, TimeoutError):
            await self.wire.forget()  # the name of the server may lead to another one by now
            raise

    def _question(self) -> tuple[str | int, ...]:
        return "EVAL", _PROBE, 1, f"{self._traffic.suspect or 'resilience'}:probe"  # in the slot that failed


def _fail(future: asyncio.Future[Any], error: StoreUnavailableError) -> None:
    if not future.done():
        future.set_exception(error)
