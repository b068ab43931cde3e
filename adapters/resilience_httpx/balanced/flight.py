"""One request at one endpoint, from the choice to the end of its body."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cache
from typing import Any, Protocol

from ..host import Host


class Flight(Protocol):
    """What a body reports to."""

    def end(self, error: BaseException | None = None) -> None:
        """The body was read or closed, or broke with `error`. Again does nothing."""
        ...

    async def settle(self) -> None:
        """Clean up after the end; must not fail."""
        ...


def counted_body(stream: Any, flight: Flight, host: Host) -> Any:
    """`stream` as an AsyncByteStream of `host` that ends `flight` when it ends, breaks or is closed."""
    return _body_class(host)(stream, flight)


@cache
def _body_class(host: Host) -> type[CountedBody]:
    return type("CountedBody", (CountedBody, host.AsyncByteStream), {"__module__": __name__})


class CountedBody:
    """The body of one response; its own iterator, for it can be read only once."""

    def __init__(self, stream: Any, flight: Flight) -> None:
        self._stream = stream
        self._flight = flight
        self._chunks: AsyncIterator[bytes] | None = None
        self._reading = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._chunks is None:
            self._chunks = aiter(self._stream)
        self._reading = True
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            self._flight.end()
            raise
        except BaseException as error:
            self._flight.end(error)
            raise
        finally:
            self._reading = False

    async def aclose(self) -> None:
        """Close the inner stream and end the flight, whatever happens. Doing it again does no harm."""
        try:
            chunks, self._chunks = self._chunks, None
            close = getattr(chunks, "aclose", None)
            if close is not None and not self._reading:
                await close()
        finally:
            try:
                await self._stream.aclose()
            finally:
                self._flight.end()
                await self._flight.settle()
