"""What transports of this package have in common: they fit both clients, have listeners, and close when left."""

from __future__ import annotations

import abc
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

from resilience.events import Event, Listener, emit

if TYPE_CHECKING:
    import httpx
    import httpx2
    from httpx import AsyncBaseTransport as _HttpxTransport
    from httpx2 import AsyncBaseTransport as _Httpx2Transport
else:
    # Clients ask for no base class at run time, and inheriting from theirs would import both.

    class _HttpxTransport: ...

    class _Httpx2Transport: ...


class Announcer:
    """Tells listeners what happens; `name` is the events' `policy`. Raises ValueError for an empty name."""

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError(f"name must be a non-empty string, got {name!r}")
        self.name: str = name
        self.listeners: list[Listener] = []

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Tell `listener` every event from now on; returns a function that ends it."""
        self.listeners.append(listener)

        def end() -> None:
            if listener in self.listeners:
                self.listeners.remove(listener)

        return end

    def emit(self, kind: type[Event], *details: Any) -> None:
        """Build the event and tell it, if anybody listens."""
        if self.listeners:
            emit(self.listeners, kind("", self.name, *details))


class SharedTransport(_HttpxTransport, _Httpx2Transport, abc.ABC):
    """A transport for `httpx.AsyncClient` and `httpx2.AsyncClient`."""

    @overload
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response: ...
    @overload
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response: ...
    async def handle_async_request(self, request: Any) -> Any:
        """Send a request; clients call it. Raises what the inner transport raises, and what the class says."""
        return await self._send(request)

    @abc.abstractmethod
    async def _send(self, request: Any) -> Any: ...

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Close everything."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()
