"""Requests of one turn of the event loop travel together.

    lane = Lane(client, timeout=0.05, connect_timeout=1.0)
    answer = await lane.book(target, costs, max_wait=2.0)

Whoever asks waits at most `timeout` seconds. The command itself is never cancelled with its caller: that would
drop the connection and leave open whether it was carried out. It ends by itself or is given up later, and what
it booked for a caller who no longer waits is given back.

One lane serves one event loop. A few round trips may be under way at once; what comes while all of them are
waits in line, so a server that hangs holds a few connections, not one per call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from itertools import chain
from typing import Any

from resilience.errors import StoreUnavailableError
from resilience_redis.batch import Batch, Errand, Grant, Group, Single, load
from resilience_redis.scripts import Script, run_all
from resilience_redis.target import Target
from resilience_redis.wire import Wire

WIDTH = 8
"""Round trips of one loop that may be under way at once."""


class _Turn:
    """What was asked in one turn of the loop, and until when the callers wait for it."""

    __slots__ = ("groups", "until")

    def __init__(self, groups: list[Group | Errand], until: float) -> None:
        self.groups = groups
        self.until = until

    def expire(self, message: str) -> None:
        for group in self.groups:
            group.fail(StoreUnavailableError(message))


class _Trip:
    """What is under way, and when it is given up even if nobody waits for it."""

    __slots__ = ("give_up", "turns")

    def __init__(self, give_up: float) -> None:
        self.give_up = give_up
        self.turns: list[_Turn] = []


class Lane:
    """The way of one event loop to one client."""

    def __init__(self, client: Any, timeout: float, connect_timeout: float) -> None:
        self.wire = Wire(client)
        self._timeout = timeout
        # Connecting may take longer than anybody waits for it: it goes on behind their backs.
        self._give_up = timeout + connect_timeout
        self._loop = asyncio.get_running_loop()
        self._arriving: list[Group | Errand] = []
        self._last: Group | None = None  # that equal acquires of this turn may join
        self._waiting: list[_Turn] = []
        self._sending: dict[asyncio.Task[None], _Trip] = {}
        self._timer: asyncio.TimerHandle | None = None

    def book(self, target: Target, costs: tuple[str, ...], max_wait: float) -> asyncio.Future[str]:
        """Acquire with all others of this turn of the loop; the future has the answer, `target` can read it.

        Its error is StoreUnavailableError after `timeout` seconds or when Redis is away; what waiting cannot cure
        (authentication, permission, wrong type) is passed on as it is.
        """
        future: asyncio.Future[str] = self._loop.create_future()
        last = self._last
        if last is not None and last.arguments is costs and last.target is target and last.max_wait == max_wait:
            last.futures.append(future)
        else:
            group = Group(target, "acquire", costs, max_wait, [future])
            self._arrive(group)
            self._last = group
        return future

    def unbook(self, target: Target, costs: tuple[str, ...], booked: asyncio.Future[str]) -> None:
        """Give back what was booked for a caller who was cancelled after the answer and before it woke up."""
        if not booked.cancelled() and booked.exception() is None:
            self._refund(Grant(target, costs, booked.result()))

    def send(self, target: Target, operation: str, arguments: tuple[str, ...]) -> asyncio.Future[Any]:
        """Send any other operation; the future has the bare reply, or an error as for `book`."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._arrive(Group(target, operation, arguments, 0.0, [future]))
        self._last = None
        return future

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str]) -> asyncio.Future[Any]:
        """Run any script with the other requests of this turn; the future has the reply, or an error as for `book`.

        It is carried out even if the future is cancelled meanwhile.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self._arrive(Errand((script, keys, arguments), future))
        return future

    async def drain(self) -> None:
        """Wait until everything that was sent has ended, and keep no connection."""
        while self._arriving or self._sending:
            await asyncio.sleep(0)
            if self._sending:
                await asyncio.wait(self._sending)
        await self.wire.rest()

    def _arrive(self, group: Group | Errand) -> None:
        if not self._arriving:
            self._begin_turn()
        self._arriving.append(group)

    def _begin_turn(self) -> None:
        # Both run in the loop's next turn: after all that is ready in this one.
        if len(self._sending) < WIDTH:
            self._start()
        else:
            self._loop.call_soon(self._pump)

    def _end_turn(self) -> None:
        if self._arriving:
            turn = _Turn(self._arriving, self._loop.time() + self._timeout)
            self._arriving, self._last = [], None
            self._waiting.append(turn)
            if self._timer is None:
                self._timer = self._loop.call_at(turn.until, self._look_at_the_clock)

    def _pump(self, ended: asyncio.Task[None] | None = None) -> None:
        if ended is not None:
            del self._sending[ended]
        else:
            self._end_turn()
        if self._waiting and len(self._sending) < WIDTH:
            self._start()

    def _start(self) -> None:
        trip = _Trip(self._loop.time() + self._give_up)
        self._track(trip, self._deliver(trip))

    def _track(self, trip: _Trip, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._sending[task] = trip
        task.add_done_callback(self._pump)

    async def _deliver(self, trip: _Trip) -> None:
        """Send what is waiting, again and again until nothing is."""
        self._end_turn()
        while self._waiting:
            trip.turns, self._waiting = self._waiting, []
            trip.give_up = self._loop.time() + self._give_up
            if cargo := load(chain.from_iterable(turn.groups for turn in trip.turns)):
                await self._send(cargo)

    async def _send(self, cargo: list[Batch | Single | Errand]) -> None:
        try:
            replies = await run_all(self.wire.exchange, [each.call() for each in cargo])
        except Exception as error:
            replies = [error] * len(cargo)
        late: list[Grant] = []
        for each, reply in zip(cargo, replies, strict=True):
            late += each.settle(reply)
        for grant in reversed(late):  # the last booking first: only the newest can be undone
            self._refund(grant)

    def _refund(self, grant: Grant) -> None:
        booking = grant.target.booking(grant.answer)
        if booking.decision.allowed:
            marks = grant.target.marks(booking.stamp)
            self.send(grant.target, "refund", grant.costs + marks).add_done_callback(_retrieve)

    def _look_at_the_clock(self) -> None:
        """Let callers go whose time is over, and give up on what takes too long even for connecting."""
        now = self._loop.time()
        message = f"Redis did not answer within {self._timeout:g} seconds"
        due: list[float] = []
        for turn in [*self._waiting, *(turn for trip in self._sending.values() for turn in trip.turns)]:
            if turn.until <= now:
                turn.expire(message)
            else:
                due.append(turn.until)
        self._waiting = [turn for turn in self._waiting if turn.until > now]
        for task, trip in self._sending.items():
            if trip.give_up <= now:
                task.cancel()
            else:
                due.append(trip.give_up)
        self._timer = self._loop.call_at(min(due), self._look_at_the_clock) if due else None
        if self.wire.tire():
            self._track(_Trip(now + self._give_up), self.wire.rest())


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
