"""The body of an answer while it is read: its bytes pass unchanged, and at its end the request is settled.

    response.stream = metered_body(response.stream, host, tally.take, settle)

However it ends: read, closed early, broken or cancelled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from typing import Any

from resilience_httpx.closing import undisturbed
from resilience_httpx.host import Host


def metered_body(stream: Any, host: Host, take: Callable[[bytes], None], finish: Callable[[], Awaitable[None]]) -> Any:
    """`stream` as an AsyncByteStream of `host`: `take` sees every chunk, `finish` is awaited once, at the end."""
    return _body_class(host)(stream, take, finish)


@cache
def _body_class(host: Host) -> type[MeteredBody]:
    return type("MeteredBody", (MeteredBody, host.AsyncByteStream), {"__module__": __name__})


class MeteredBody:
    """The body of one response; its own iterator, for it can be read only once.

    Not an async generator: readers who stop early would leave one behind for the garbage collector.
    """

    def __init__(self, stream: Any, take: Callable[[bytes], None], finish: Callable[[], Awaitable[None]]) -> None:
        self._stream = stream
        self._take = take
        self._finish = finish
        self._finished = False
        self._reading = False
        self._chunks: AsyncIterator[bytes] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._chunks is None:
            self._chunks = aiter(self._stream)
        self._reading = True
        try:
            chunk = await self._chunks.__anext__()
        except BaseException:  # the end, too
            await self._end()
            raise
        finally:
            self._reading = False
        self._take(chunk)
        return chunk

    async def aclose(self) -> None:
        """Close the inner stream and settle, whatever happens. Doing it again does no harm."""
        try:
            await undisturbed(self._close_stream())
        finally:
            await self._end()

    async def _close_stream(self) -> None:
        chunks, self._chunks = self._chunks, None
        close = getattr(chunks, "aclose", None)
        try:
            if close is not None and not self._reading:
                await close()  # an inner generator would be left to the garbage collector
        finally:
            await self._stream.aclose()

    async def _end(self) -> None:
        if not self._finished:
            self._finished = True
            await self._finish()
