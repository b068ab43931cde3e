"""Several servers that are none, for tests of balancing: inner transports that answer as they are told."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio

from resilience import clock
from resilience_httpx import Balanced, Endpoint

URLS = [f"http://s{number}" for number in range(5)]


class FakeFleet:
    """`latency` and `status` by URL (default: 10 ms and 200); `sent` has every request as (moment, URL, request)."""

    def __init__(self, lib: Any, *, seed: int = 1) -> None:
        self.lib = lib
        self.latency: dict[str, float] = {}
        self.status: dict[str, int] = {}
        self.errors: dict[str, Exception] = {}
        self.sent: list[tuple[float, str, Any]] = []
        self.checks: Counter[str] = Counter()
        self.closed: list[str] = []
        self.random = random.Random(seed)

    def balanced(self, endpoints: Any = URLS, **options: Any) -> Balanced:
        """A balancer over this fleet; its randomness is repeatable."""
        given: dict[str, Any] = {"transport": self.transport, "random": self.random.random, **options}
        return Balanced(endpoints, **given)

    def transport(self, endpoint: Endpoint) -> FakeServer:
        return FakeServer(self, endpoint)

    def counts(self, since: float = 0.0) -> Counter[str]:
        """How many requests each URL got."""
        return Counter(url for moment, url, _ in self.sent if moment >= since)

    async def get(self, transport: Any, path: str = "/", **headers: str) -> Any:
        """One GET through a transport, without a client, read to its end."""
        request = self.lib.Request("GET", f"http://orders{path}", headers=headers)
        response = await transport.handle_async_request(request)
        await response.aread()
        return response


class FakeServer:
    def __init__(self, fleet: FakeFleet, endpoint: Endpoint) -> None:
        self._fleet = fleet
        self._url = endpoint.url

    async def handle_async_request(self, request: Any) -> Any:
        fleet, url = self._fleet, self._url
        check = request.url.path.endswith("/health")
        if check:
            fleet.checks[url] += 1
        else:
            fleet.sent.append((clock.now(), url, request))
        latency = fleet.latency.get(url, 0.01)
        if latency:
            await anyio.sleep(latency * (0.5 + fleet.random.random()))
        if url in fleet.errors:
            raise fleet.errors[url]
        return fleet.lib.Response(fleet.status.get(url, 200), stream=body(fleet.lib, b"ok"))

    async def aclose(self) -> None:
        self._fleet.closed.append(self._url)


def inner(lib: Any, **response: Any) -> Any:
    """A function that makes an inner transport, which always gives the same response."""

    def handler(request: Any) -> Any:
        return lib.Response(200, **response)

    def factory(endpoint: Endpoint) -> Any:
        return lib.MockTransport(handler)

    return factory


def body(lib: Any, *chunks: bytes | Callable[[], Any]) -> Any:
    """A stream of chunks; a function among them is awaited in its place."""

    class Stream(lib.AsyncByteStream):  # type: ignore[misc]  # the class of a module that is a parameter
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for chunk in chunks:
                if isinstance(chunk, bytes):
                    yield chunk
                else:
                    await chunk()

    return Stream()
