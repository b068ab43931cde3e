"""StreamTimeout: how long a reader waits for the first byte, and for each that follows.

    ResilientTransport(chat, stream_timeout=StreamTimeout(first=10, item=5))

For server-sent events and other long answers, where one deadline for all of it is either too short or no use.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from resilience._validate import positive
from resilience.errors import TimedOutError
from resilience.events import CallTimedOut
from resilience.policy import Policy
from resilience.running._deadlines import arm

from .closing import undisturbed
from .host import Host

T = TypeVar("T")


@dataclass(frozen=True)
class StreamTimeout:
    """Limits on the parts of a response, in seconds; None (default) for no limit.

    `first` is from sending a request to the first byte of the body of its response. It belongs to the attempt: a
    response without a byte by then is given up and the request sent again, if a Retry wants that; so the response
    is returned when that byte is there and not before. It holds for statuses below 400. `item` is for each chunk of
    a body after that, which is what the server sent at once: a comment that keeps a stream of events alive counts.

    Both end in a TimedOutError that is also the library's TimeoutException, and count as failures. Raises
    ValueError or TypeError at construction unless there is a limit, and each is positive and finite.
    """

    first: float | None = None
    item: float | None = None

    def __post_init__(self) -> None:
        if self.first is None and self.item is None:
            raise ValueError("StreamTimeout must have a first or an item")
        for field in ("first", "item"):
            if getattr(self, field) is not None:
                positive(field, getattr(self, field))


class Watch:
    """Ends what takes too long, in the name of one operation of `policy`."""

    __slots__ = ("_operation", "_policy", "limits")

    def __init__(self, limits: StreamTimeout, operation: str, policy: Policy) -> None:
        self.limits = limits
        self._operation = operation
        self._policy = policy

    async def within(self, seconds: float, step: Callable[[], Awaitable[T]]) -> T:
        """Await `step()`. Raises TimedOutError after `seconds`."""
        alarm = arm(seconds)
        try:
            result = await step()
        except BaseException as error:
            if alarm.disarm(error):
                raise self._timed_out(seconds) from error
            raise
        alarm.disarm(None)
        return result

    def _timed_out(self, seconds: float) -> TimedOutError:
        if self._policy.listeners:
            self._policy.emit(CallTimedOut(self._operation, StreamTimeout.__name__, seconds))
        return TimedOutError(
            f"{self._operation} sent nothing within {seconds:g} s", policy=StreamTimeout.__name__, seconds=seconds
        )


async def with_first_byte(response: Any, host: Host) -> None:
    """Wait until the body has a byte, and put it back; the response is closed if there is an error instead."""
    if response.is_closed or response.status_code >= 400:
        return
    chunks = aiter(response.stream)
    body = _body_class(host)(response.stream, chunks)
    try:
        while not (chunk := await anext(chunks, None)) and chunk is not None:
            pass
    except BaseException:
        response.stream = body
        await undisturbed(response.aclose())
        raise
    response.stream = body
    body.first = chunk


class BegunBody:
    """A body of which a chunk has been read, which it gives once more."""

    def __init__(self, stream: Any, chunks: AsyncIterator[bytes]) -> None:
        self.first: bytes | None = None
        self._stream = stream
        self._chunks = chunks
        self._reading = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk, self.first = self.first, None
        if chunk is not None:
            return chunk
        self._reading = True
        try:
            return await anext(self._chunks)
        finally:
            self._reading = False

    async def aclose(self) -> None:
        """Finish the iterator and close the stream."""
        close = getattr(self._chunks, "aclose", None)
        try:
            if close is not None and not self._reading:
                await close()
        finally:
            await self._stream.aclose()


@cache
def _body_class(host: Host) -> type[BegunBody]:
    return type("BegunBody", (BegunBody, host.AsyncByteStream), {"__module__": __name__})
