"""What a ChaosTransport does to a request, in place of sending it or on top.

response = await Status(503, {}).play(host, request, transport, "injected by chaos")
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from resilience._validate import check_integer

from .host import Host

MARK = "X-Chaos"
"""The header of every response that was disturbed; its value is the name of the transport."""

ERRORS = frozenset(
    {"CloseError", "ConnectError", "ConnectTimeout", "NetworkError", "PoolTimeout", "ProxyError", "ReadError"}
) | {"ReadTimeout", "RemoteProtocolError", "TransportError", "WriteError", "WriteTimeout"}
"""Exceptions that both client libraries have under these names."""


class RequestFault(ABC):
    """One fault. Its `repr` is what events say."""

    @abstractmethod
    async def play(self, host: Host, request: Any, transport: Any, mark: str) -> Any:
        """Do it; returns a response or raises what the client library would."""


@dataclass(frozen=True, repr=False)
class Delayed(RequestFault):
    """Send the request: the delay was all."""

    async def play(self, host: Host, request: Any, transport: Any, mark: str) -> Any:
        """Send it."""
        return await transport.handle_async_request(request)

    def __repr__(self) -> str:
        return ""


@dataclass(frozen=True, repr=False)
class Failure(RequestFault):
    """An exception of the client library, which need not be imported before a request arrives."""

    error: str

    async def play(self, host: Host, request: Any, transport: Any, mark: str) -> Any:
        """Raise it."""
        raise failure(host, self.error, request, mark)

    def __repr__(self) -> str:
        return self.error


@dataclass(frozen=True, repr=False)
class Status(RequestFault):
    """A response without a body."""

    status: int
    headers: Mapping[str, str]

    async def play(self, host: Host, request: Any, transport: Any, mark: str) -> Any:
        """Make it."""
        return host.Response(self.status, headers=dict(self.headers), request=request)

    def __repr__(self) -> str:
        return f"status {self.status}"


@dataclass(frozen=True, repr=False)
class Cut(RequestFault):
    """A body that breaks off after at most so many bytes, as if the connection had been closed."""

    size: int

    async def play(self, host: Host, request: Any, transport: Any, mark: str) -> Any:
        """Send the request and cut off what comes back."""
        response = await transport.handle_async_request(request)

        def broken() -> Exception:
            return failure(host, "RemoteProtocolError", request, mark)

        # A new response: one that is in memory already would not look at its stream again.
        return host.Response(
            response.status_code,
            headers=response.headers,
            stream=_body_class(host)(response.stream, self.size, broken),
            request=request,
            extensions=response.extensions,
        )

    def __repr__(self) -> str:
        return f"cut after {self.size} bytes"


def faults_of(
    errors: Sequence[str], statuses: Sequence[int], headers: Mapping[str, str], cut: int | None
) -> list[RequestFault]:
    """The faults that a transport was asked for. Raises TypeError or ValueError for what is none."""
    for error in errors:
        if error not in ERRORS:
            raise ValueError(f"errors must be exceptions or some of {', '.join(sorted(ERRORS))}, got {error!r}")
    for status in statuses:
        check_integer("statuses", status, 100)
        if status > 599:
            raise ValueError(f"statuses must be at most 599, got {status!r}")
    if cut is not None:
        check_integer("cut", cut, 0)
    faults: list[RequestFault] = [*map(Failure, errors), *(Status(status, dict(headers)) for status in statuses)]
    return faults if cut is None else [*faults, Cut(cut)]


def failure(host: Host, name: str, request: Any, mark: str) -> Exception:
    """An exception of the client library, marked."""
    kind: Any = getattr(import_module(host.name), name)
    error: Exception = kind(mark, request=request)
    error.add_note(mark)
    return error


@cache
def _body_class(host: Host) -> type[CutBody]:
    return type("CutBody", (CutBody, host.AsyncByteStream), {"__module__": __name__})


class CutBody:
    """The first bytes of a body, then an error. Its own iterator, for it can be read only once."""

    def __init__(self, stream: Any, left: int, broken: Callable[[], Exception]) -> None:
        self._stream = stream
        self._left = left
        self._broken = broken
        self._chunks: AsyncIterator[bytes] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._chunks is None:
            self._chunks = aiter(self._stream)
        if self._left <= 0:
            raise self._broken()
        try:
            chunk = (await anext(self._chunks))[: self._left]
        except StopAsyncIteration:  # there was less than that: it breaks off all the same
            self._left = 0
            raise self._broken() from None
        self._left -= len(chunk)
        return chunk

    async def aclose(self) -> None:
        """Close the inner stream. Doing it again does no harm."""
        chunks, self._chunks = self._chunks, None
        try:
            if (close := getattr(chunks, "aclose", None)) is not None:
                await close()
        finally:
            await self._stream.aclose()
