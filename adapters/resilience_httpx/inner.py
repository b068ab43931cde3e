"""What transports around another one have in common: who does the sending, and that it is closed with them."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

from .host import Host, host_of

if TYPE_CHECKING:
    import httpx
    import httpx2
    from httpx import AsyncBaseTransport as _HttpxTransport
    from httpx2 import AsyncBaseTransport as _Httpx2Transport
else:
    # Clients ask for no base class at run time, and inheriting from theirs would import both.

    class _HttpxTransport: ...

    class _Httpx2Transport: ...


class OuterTransport(_HttpxTransport, _Httpx2Transport):
    """A transport of both libraries around `transport`, or around one of the library's own.

    That one is made with `options` when the first request arrives, for only then is it known which library asks.
    """

    def __init__(self, transport: Any, options: Any = None) -> None:
        self._transport: Any = transport
        self._options: dict[str, Any] = options or {}
        self._made: dict[str, Any] = {}

    @overload
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response: ...
    @overload
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response: ...
    async def handle_async_request(self, request: Any) -> Any:
        """Send a request; clients call it."""
        return await self._inner(host_of(request)).handle_async_request(request)

    async def aclose(self) -> None:
        """Close the inner transport."""
        made, self._made = self._made, {}
        for transport in (*made.values(), self._transport):
            if transport is not None:
                await transport.aclose()

    async def __aenter__(self) -> Self:
        if self._transport is not None:
            await self._transport.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        if self._transport is None:
            await self.aclose()
        else:
            await self._transport.__aexit__(exc_type, exc_value, traceback)

    def _inner(self, host: Host) -> Any:
        if self._transport is not None:
            return self._transport
        transport = self._made.get(host.name)
        if transport is None:
            transport = self._made[host.name] = host.AsyncHTTPTransport(**self._options)
        return transport
