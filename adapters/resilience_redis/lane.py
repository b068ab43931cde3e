"""Requests of one turn of the event loop travel together.

    lane = Lane(client, timeout=0.05, connect_timeout=1.0)
    booking = await lane.ask(target, "acquire", costs, max_wait=2.0)

Whoever asks waits at most `timeout` seconds. The command itself is never cancelled with its caller: that would
drop the connection and leave open whether it was carried out. It ends by itself or is given up later, and what
it booked for a caller who no longer waits is given back.

One lane serves one event loop. A few round trips may be under way at once; what comes while all of them are
waits in line, so a server that hangs holds a few connections, not one per call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from resilience.errors import StoreUnavailableError
from resilience.limiter_state import Booking
from resilience_redis.batch import Batch, Grant, Request, Single, Target, fail, load
from resilience_redis.scripts import run, run_all

WIDTH = 8
"""Round trips of one loop that may be under way at once."""


class _Turn:
    """What was asked in one turn of the loop, and until when the callers wait for it."""

    __slots__ = ("requests", "until")

    def __init__(self, requests: list[Request], until: float) -> None:
        self.requests = requests
        self.until = until

    def expire(self, message: str) -> None:
        for request in self.requests:
            fail(request, StoreUnavailableError(message))


class Lane:
    """The way of one event loop to one client."""

    def __init__(self, client: Any, timeout: float, connect_timeout: float) -> None:
        self.client = client
        self._timeout = timeout
        # Connecting may take longer than anybody waits for it: it goes on behind their backs.
        self._connect_timeout = connect_timeout
        self._loop = asyncio.get_running_loop()
        self._arriving: list[Request] = []
        self._waiting: list[_Turn] = []
        self._sending: dict[asyncio.Task[None], tuple[float, list[_Turn]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def ask(self, target: Target, operation: str, arguments: tuple[str, ...], max_wait: float = 0.0) -> Any:
        """Return the booking of an acquire, the bare reply of any other operation.

        Raises StoreUnavailableError after `timeout` seconds or when Redis is away. Errors that waiting cannot cure
        (authentication, permission, wrong type) are raised as they are.
        """
        future = self.send(target, operation, arguments, max_wait)
        try:
            return await future
        except asyncio.CancelledError:
            # Cancelled after the reply was set and before we woke up: it is ours to undo.
            if operation == "acquire" and not future.cancelled() and future.exception() is None:
                self._undo(target, arguments, future.result())
            raise

    def send(
        self, target: Target, operation: str, arguments: tuple[str, ...], max_wait: float = 0.0
    ) -> asyncio.Future[Any]:
        """Send with all others of this turn of the loop; the future has the answer."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if not self._arriving:
            self._loop.call_soon(self._end_turn)
        self._arriving.append((future, target, operation, arguments, max_wait))
        return future

    async def drain(self) -> None:
        """Wait until everything that was sent has ended."""
        while self._arriving or self._sending:
            await asyncio.sleep(0)
            if self._sending:
                await asyncio.wait(self._sending)

    def _end_turn(self) -> None:
        requests, self._arriving = self._arriving, []
        turn = _Turn(requests, self._loop.time() + self._timeout)
        self._waiting.append(turn)
        if self._timer is None:
            self._timer = self._loop.call_at(turn.until, self._look_at_the_clock)
        self._pump()

    def _pump(self) -> None:
        if self._waiting and len(self._sending) < WIDTH:
            turns, self._waiting = self._waiting, []
            cargo = load(request for turn in turns for request in turn.requests)
            if cargo:
                task = self._loop.create_task(self._send(cargo))
                self._sending[task] = self._loop.time() + self._timeout + self._connect_timeout, turns
                task.add_done_callback(self._sent)

    async def _send(self, cargo: list[Batch | Single]) -> None:
        replies: Sequence[Any]
        try:
            if len(cargo) == 1:
                replies = [await run(self.client, cargo[0].call())]
            else:
                replies = await run_all(self.client, [each.call() for each in cargo])
        except Exception as error:
            replies = [error] * len(cargo)
        late: list[Grant] = []
        for each, reply in zip(cargo, replies, strict=True):
            late += each.settle(reply)
        for request, booking in reversed(late):  # the last booking first: only the newest can be undone
            self._undo(request[1], request[3], booking)

    def _sent(self, task: asyncio.Task[None]) -> None:
        del self._sending[task]
        self._pump()

    def _undo(self, target: Target, costs: tuple[str, ...], booking: Booking) -> None:
        if booking.decision.allowed:
            marks = cast("tuple[str, ...]", booking.stamp)
            self.send(target, "refund", costs + marks).add_done_callback(_retrieve)

    def _look_at_the_clock(self) -> None:
        """Let callers go whose time is over, and give up on what takes too long even for connecting."""
        now = self._loop.time()
        due: list[float] = []
        message = f"Redis did not answer within {self._timeout:g} seconds"
        for turn in self._waiting + [turn for _, turns in self._sending.values() for turn in turns]:
            if turn.until <= now:
                turn.expire(message)
            else:
                due.append(turn.until)
        self._waiting = [turn for turn in self._waiting if turn.until > now]
        for task, (give_up, _) in self._sending.items():
            if give_up <= now:
                task.cancel()
            else:
                due.append(give_up)
        self._timer = self._loop.call_at(min(due), self._look_at_the_clock) if due else None


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
