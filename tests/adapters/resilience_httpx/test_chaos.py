"""Faults under the client: what it gets instead of an answer, and that it can tell why."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio
import pytest

from resilience import Backoff, CircuitBreaker, Pipeline, Retry, clock
from resilience.events import ChaosInjected, Event
from resilience_httpx import ChaosTransport, ResilientTransport
from tests.support.http_server import Answer, MisbehavingServer

from .support import always, assert_idle

pytestmark = pytest.mark.anyio

MARK = "x-chaos"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "latency, or at least one fault, must be given"),
        ({"statuses": [99]}, ValueError, "statuses must be at least 100, got 99"),
        ({"statuses": [600]}, ValueError, "statuses must be at most 599, got 600"),
        ({"statuses": ["503"]}, TypeError, "statuses must be an integer, got '503'"),
        ({"cut": -1}, ValueError, "cut must be at least 0, got -1"),
        ({"errors": ["Ouch"]}, ValueError, "errors must be exceptions or some of CloseError, .*, got 'Ouch'"),
        ({"errors": "ConnectError"}, TypeError, "errors must be a sequence, got 'ConnectError'"),
        ({"errors": [5]}, TypeError, "errors must hold exceptions or types of them, got 5"),
        ({"statuses": [503], "rate": 2}, ValueError, "rate must be at most 1, got 2"),
        ({"statuses": [503], "nonsense": 1}, TypeError, "has no option nonsense"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ChaosTransport(**options)


def chaotic(lib: Any, **options: Any) -> tuple[Any, ChaosTransport]:
    """A client without policies, and its transport."""
    transport = ChaosTransport(lib.MockTransport(always(lib, 200, content=b"0123456789")), enabled=True, **options)
    return lib.AsyncClient(transport=transport), transport


async def test_it_is_off_until_it_is_switched_on(lib: Any, server: MisbehavingServer) -> None:
    url = server.answer("/", Answer(200, b"fine"))
    transport = ChaosTransport(statuses=[503])
    async with lib.AsyncClient(transport=transport) as client:
        response = await client.get(url)
        assert (response.content, MARK in response.headers) == (b"fine", False)
        transport.enable()
        assert (await client.get(url)).status_code == 503
        transport.disable()
        assert (await client.get(url)).status_code == 200
    assert transport.injected == 1
    assert len(server.received("/")) == 2


async def test_statuses(lib: Any) -> None:
    client, _ = chaotic(lib, statuses=[429], headers={"Retry-After": "7"}, name="storm")
    async with client:
        response = await client.get("https://api.example/")
        assert isinstance(response, lib.Response)
        assert (response.status_code, response.headers["retry-after"], response.headers[MARK]) == (429, "7", "storm")
        with pytest.raises(lib.HTTPStatusError):
            response.raise_for_status()


@pytest.mark.parametrize("name", ["ConnectError", "ReadTimeout", "RemoteProtocolError", "PoolTimeout"])
async def test_errors_of_the_client_by_name(lib: Any, name: str) -> None:
    client, _ = chaotic(lib, errors=[name], name="storm")
    async with client:
        with pytest.raises(getattr(lib, name)) as caught:
            await client.get("https://api.example/orders")
    assert caught.value.__notes__ == ["injected by storm"]
    assert str(caught.value.request.url) == "https://api.example/orders"


async def test_errors_of_any_other_kind(lib: Any) -> None:
    client, _ = chaotic(lib, errors=[lib.ReadError, OSError("no route")], seed=1)
    seen: set[Any] = set()
    async with client:
        for _ in range(20):
            with pytest.raises((lib.ReadError, OSError)) as caught:
                await client.get("https://api.example/")
            assert caught.value.__notes__ == ["injected by ChaosTransport"]
            error: Any = caught.value
            seen.add(type(error))
    assert seen == {lib.ReadError, OSError}


@pytest.mark.parametrize("cut", [0, 4, 100])
async def test_bodies_are_cut_off(lib: Any, cut: int) -> None:
    client, _ = chaotic(lib, cut=cut)
    received = b""
    async with client, client.stream("GET", "https://api.example/") as response:
        assert (response.status_code, response.headers[MARK]) == (200, "ChaosTransport")
        with pytest.raises(lib.RemoteProtocolError) as caught:  # noqa: PT012 - what came before counts
            async for chunk in response.aiter_bytes():
                received += chunk
    assert received == b"0123456789"[:cut]
    assert caught.value.__notes__ == ["injected by ChaosTransport"]


# Both libraries leave generators of their own to the garbage collector when reading breaks off, and trio says so.
@pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2?\\.:ResourceWarning")
async def test_cut_bodies_of_real_connections_leak_none(lib: Any, server: MisbehavingServer) -> None:
    url = server.answer("/", Answer(200, b"x" * 1000, pieces=5, pause=0.002))
    inner = lib.AsyncHTTPTransport()
    async with lib.AsyncClient(transport=ChaosTransport(inner, cut=300, enabled=True)) as client:
        with pytest.raises(lib.RemoteProtocolError):
            await client.get(url)
        async with client.stream("GET", url) as response:
            assert len(await anext(response.aiter_raw())) <= 300
        async with client.stream("GET", url):
            pass
        assert_idle(inner)


async def test_delays(lib: Any) -> None:
    client, _ = chaotic(lib, latency=0.05)
    began = clock.now()
    async with client:
        response = await client.get("https://api.example/")
    assert (response.status_code, response.headers[MARK]) == (200, "ChaosTransport")
    assert clock.now() - began >= 0.05


def path_of(request: Any) -> str:
    return str(request.url.path)


async def test_only_some_origins(lib: Any) -> None:
    client, transport = chaotic(lib, statuses=[503], keys=["https://api.example"])
    async with client:
        assert (await client.get("https://api.example/a")).status_code == 503
        assert (await client.get("https://other.example/a")).status_code == 200
    client, _ = chaotic(lib, statuses=[503], key=path_of, keys={"/a"}.__contains__)
    async with client:
        assert (await client.get("https://api.example/a")).status_code == 503
        assert (await client.get("https://api.example/b")).status_code == 200
    assert transport.injected == 1


async def test_a_share_of_requests_repeatably_and_in_events(lib: Any) -> None:
    events: list[Event] = []

    async def statuses(**options: Any) -> list[int]:
        client, _ = chaotic(lib, statuses=[500, 503], rate=0.3, seed=9, **options)
        async with client:
            return [(await client.get("https://api.example/")).status_code for _ in range(50)]

    first = await statuses(listeners=[events.append])
    assert first == await statuses()
    assert {200, 500, 503} == set(first)
    injected = [event for event in events if isinstance(event, ChaosInjected)]
    assert [event.fault for event in injected] == [f"status {status}" for status in first if status != 200]
    assert {event.key for event in injected} == {"https://api.example"}


async def test_events_name_the_faults(lib: Any) -> None:
    faults: list[str] = []
    for options in ({"errors": ["ReadError"]}, {"cut": 3}, {"latency": 0.001}):
        client, transport = chaotic(lib, **options)
        transport.chaos.listen(lambda event: faults.append(event.fault) if isinstance(event, ChaosInjected) else None)
        async with client:
            with suppress(lib.TransportError):
                await client.get("https://api.example/")
    assert faults == ["ReadError", "cut after 3 bytes", ""]


async def test_under_a_resilient_transport(lib: Any, server: MisbehavingServer) -> None:
    """Retries and the breaker see what they would see of a sick server."""
    url = server.answer("/", Answer(200, b"x" * 100))
    inner = lib.AsyncHTTPTransport()
    chaos = ChaosTransport(inner, statuses=[503], errors=["ReadError"], rate=0.5, seed=4, enabled=True)
    breaker = CircuitBreaker(minimum_calls=100)
    policy = Pipeline(Retry(30, backoff=Backoff.none(), budget=None), breaker)
    async with lib.AsyncClient(transport=ResilientTransport(policy, chaos)) as client:
        for _ in range(10):
            response = await client.get(url)
            assert (response.status_code, len(response.content), MARK in response.headers) == (200, 100, False)
        assert_idle(inner)
    assert breaker.metrics().failures == chaos.injected > 3


async def test_a_cut_body_fails_the_call(lib: Any) -> None:
    breaker = CircuitBreaker()
    chaos = ChaosTransport(lib.MockTransport(always(lib, content=b"0123456789")), cut=5, enabled=True)
    async with lib.AsyncClient(transport=ResilientTransport(breaker, chaos)) as client:
        with pytest.raises(lib.RemoteProtocolError):
            await client.get("https://api.example/")
    assert (breaker.metrics().calls, breaker.metrics().failures) == (1, 1)


async def test_as_a_context_of_its_own(lib: Any, server: MisbehavingServer) -> None:
    url = server.answer("/", Answer(200, b"fine"))
    async with ChaosTransport(latency=0.001, enabled=True) as transport:
        handle: Any = transport.handle_async_request
        response = await handle(lib.Request("GET", url))
        assert await response.aread() == b"fine"
        await response.aclose()
    async with ChaosTransport(lib.AsyncHTTPTransport(), latency=0.001) as transport:
        handle = transport.handle_async_request
        response = await handle(lib.Request("GET", url))
        assert await response.aread() == b"fine"
        await response.aclose()
    with anyio.fail_after(5):
        await server.until(lambda: server.connections == 0)
