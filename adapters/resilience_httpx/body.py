"""A response's body while it is streamed: what the policies hold is held until it is read or closed.

    response.stream = leased_body(response.stream, lease, host, request)

Every chunk is awaited under the deadline of the call; an error in mid-body is the outcome of the call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache, partial
from typing import Any

from resilience.call import Leasing

from .closing import Deferring
from .errors import in_tree
from .host import Host
from .stream_timeout import Watch


def leased_body(stream: Any, lease: Leasing, host: Host, request: Any, watch: Watch | None = None) -> Any:
    """`stream` as an AsyncByteStream of `host` that closes `lease` when it ends, breaks or is closed.

    `watch` limits the time for each chunk.
    """
    return _body_class(host)(stream, lease, host, request, watch)


@cache
def _body_class(host: Host) -> type[LeasedBody]:
    return type("LeasedBody", (LeasedBody, host.AsyncByteStream), {"__module__": __name__})


class LeasedBody:
    """The body of one response; its own iterator, for it can be read only once.

    Not an async generator: readers who stop early would leave one behind for the garbage collector.
    """

    def __init__(self, stream: Any, lease: Leasing, host: Host, request: Any, watch: Watch | None) -> None:
        self._stream = stream
        self._lease = lease
        self._host = host
        self._request = request
        self._chunks: AsyncIterator[bytes] | None = None
        self._reading = False
        self._watch = watch
        self._item = None if watch is None else watch.limits.item

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._chunks is None:
            self._chunks = aiter(self._stream)
        read: Callable[[], Awaitable[bytes]] = self._chunks.__anext__
        step = read if self._watch is None or self._item is None else partial(self._watch.within, self._item, read)
        self._reading = True
        try:
            return await self._lease.step(step)
        except StopAsyncIteration:
            self._lease.close()
            raise
        except BaseException as error:
            self._lease.close(error)
            if (ours := in_tree(error, self._host, self._request)) is not None:
                raise ours from error
            raise
        finally:
            self._reading = False

    async def aclose(self) -> None:
        """Close the inner stream and let the policies go, whatever happens. Doing it again does no harm."""
        try:
            await Deferring(self._close_stream())  # pools keep cancelled scopes away by themselves
        finally:
            self._lease.close()

    async def _close_stream(self) -> None:
        try:
            await self._close_chunks()
        finally:
            await self._stream.aclose()

    async def _close_chunks(self) -> None:
        """Finish the inner generator, which would otherwise be left to the garbage collector."""
        chunks, self._chunks = self._chunks, None
        close = getattr(chunks, "aclose", None)
        if close is not None and not self._reading:
            await close()
