"""Requests of one turn of the event loop travel together.

    lane = Lane(client, timeout=0.05, connect_timeout=1.0)
    reply = await lane.ask((script, keys, arguments))

Whoever asks waits at most `timeout` seconds. The command itself is never cancelled with its caller: that would
drop the connection and leave open whether it was carried out. It ends by itself or is given up later, and a
reply that nobody waits for any more is handed to `unwanted`, which can undo it.

One lane serves one event loop. A few batches may be under way at once; what comes while all of them are
waits in line, so a server that hangs holds a few connections, not one per call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    SlotNotCoveredError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from resilience.errors import StoreUnavailableError
from resilience_redis.scripts import Script, run, run_all

Call: TypeAlias = tuple[Script, Sequence[str], Sequence[str]]
"""A script, its keys and its arguments."""

WIDTH = 8
"""Batches of one loop that may be under way at once."""

_OUTAGES = (
    RedisConnectionError,
    RedisTimeoutError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    SlotNotCoveredError,
    TryAgainError,
    OSError,  # also the built-in TimeoutError
)
_CONFIGURATION = (AuthenticationError, AuthorizationError)  # although redis-py derives them from ConnectionError
_OUTAGE_REPLIES = ("BUSY ", "MISCONF ", "NOREPLICAS ")


@dataclass(slots=True, eq=False)
class Request:
    """A call, who waits for it, and what to do with a reply that nobody waits for."""

    call: Call
    future: asyncio.Future[Any]
    unwanted: Callable[[Any], None] | None

    def settle(self, reply: Any) -> bool:
        """Hand over the reply (or the error); return False if it comes too late."""
        if self.future.done():
            return False
        if isinstance(reply, Exception):
            self.future.set_exception(as_outage(reply))
        else:
            self.future.set_result(reply)
        return True

    def undo(self, reply: Any) -> None:
        """Take back what came too late."""
        if self.unwanted and not isinstance(reply, Exception):
            self.unwanted(reply)

    def expire(self, message: str) -> None:
        """Let go whoever still waits."""
        if not self.future.done():
            self.future.set_exception(StoreUnavailableError(message))


class Lane:
    """The way of one event loop to one client."""

    def __init__(self, client: Any, timeout: float, connect_timeout: float) -> None:
        self.client = client
        self._timeout = timeout
        # Connecting may take longer than anybody waits for it: it goes on behind their backs.
        self._give_up = timeout + connect_timeout
        self._loop = asyncio.get_running_loop()
        self._arriving: list[Request] = []
        self._waiting: list[Request] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def ask(self, call: Call, unwanted: Callable[[Any], None] | None = None) -> Any:
        """Return the reply. Raises StoreUnavailableError after `timeout` seconds or when Redis is away.

        Errors that waiting cannot cure (authentication, permission, wrong type) are raised as they are.
        """
        future = self.send(call, unwanted)
        try:
            return await future
        except asyncio.CancelledError:
            # Cancelled after the reply was set and before we woke up: it is ours to undo.
            if unwanted and not future.cancelled() and future.exception() is None:
                unwanted(future.result())
            raise

    def send(self, call: Call, unwanted: Callable[[Any], None] | None = None) -> asyncio.Future[Any]:
        """Send with all others of this turn of the loop; the future has the reply."""
        request = Request(call, self._loop.create_future(), unwanted)
        if not self._arriving:
            self._loop.call_soon(self._end_turn)
        self._arriving.append(request)
        return request.future

    def send_and_forget(self, call: Call) -> None:
        """Send a call whose fate nobody waits for."""
        self.send(call).add_done_callback(_retrieve)

    async def drain(self) -> None:
        """Wait until everything that was sent has ended."""
        while self._arriving or self._sending:
            await asyncio.sleep(0)
            if self._sending:
                await asyncio.wait(self._sending)

    def _end_turn(self) -> None:
        turn, self._arriving = self._arriving, []
        self._loop.call_later(self._timeout, self._expire, turn)
        self._waiting += turn
        self._pump()

    def _pump(self) -> None:
        # A later change may merge calls on the same key here, into one call that carries them all.
        if self._waiting and len(self._sending) < WIDTH:
            batch = [request for request in self._waiting if not request.future.done()]
            self._waiting = []
            if batch:
                task = self._loop.create_task(self._send(batch))
                self._sending.add(task)
                task.add_done_callback(self._sent)

    async def _send(self, batch: list[Request]) -> None:
        replies: Sequence[Any]
        try:
            async with asyncio.timeout(self._give_up):
                if len(batch) == 1:
                    replies = [await run(self.client, *batch[0].call)]
                else:
                    replies = await run_all(self.client, [request.call for request in batch])
        except Exception as error:
            replies = [error] * len(batch)
        answered = list(zip(batch, replies, strict=True))
        late = [(request, reply) for request, reply in answered if not request.settle(reply)]
        for request, reply in reversed(late):  # the last booking first: only the newest can be undone
            request.undo(reply)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self._pump()

    def _expire(self, turn: list[Request]) -> None:
        message = f"Redis did not answer within {self._timeout:g} seconds"
        for request in turn:
            request.expire(message)


def as_outage(error: Exception) -> Exception:
    """Return StoreUnavailableError for what time may cure, any other error as it is."""
    away = isinstance(error, _OUTAGES) and not isinstance(error, _CONFIGURATION)
    if not away and isinstance(error, ResponseError):
        away = str(error).startswith(_OUTAGE_REPLIES)
    if not away:
        return error
    what = str(error) if isinstance(error, RedisError) else type(error).__name__
    outage = StoreUnavailableError(f"Redis is not available: {what}")
    outage.__cause__ = error
    return outage


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
