"""Balanced against real servers, and what it does with a request and its answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from contextlib import ExitStack
from typing import Any

import anyio
import pytest

from resilience import Bulkhead, Event, Pipeline
from resilience.events import EndpointAnswered, EndpointEjected, EndpointsPanicked
from resilience_httpx import Balanced, Endpoint, HealthCheck, NoEndpointError, OutlierRule, ResilientTransport
from tests.support.http_server import Answer, MisbehavingServer

from .fake_fleet import URLS, FakeFleet, body, inner
from .support import assert_idle, retry

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def running_servers() -> Generator[list[MisbehavingServer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(MisbehavingServer()) for _ in range(3)]


@pytest.fixture
def servers(running_servers: list[MisbehavingServer]) -> list[MisbehavingServer]:
    for server in running_servers:
        server.forget()
    return running_servers


def recorded(balanced: Balanced) -> list[Event]:
    events: list[Event] = []
    balanced.listen(events.append)
    return events


async def test_requests_go_round_and_name_their_endpoint(lib: Any, servers: list[MisbehavingServer]) -> None:
    balanced = Balanced([server.url + "/v1" for server in servers], strategy="round_robin")
    events = recorded(balanced)
    async with lib.AsyncClient(transport=balanced) as client:
        responses = [await client.get("https://orders/a%20b?x=1&y=%2F", headers={"n": str(n)}) for n in range(6)]
        assert [response.extensions["resilience_endpoint"] for response in responses] == [
            server.url + "/v1" for server in servers
        ] * 2
        assert {str(response.url) for response in responses} == {"https://orders/a%20b?x=1&y=%2F"}
        assert all(each.in_flight == 0 and (each.latency or 0) > 0 for each in balanced.status())
    for server in servers:
        received = server.received("/v1/a%20b?x=1&y=%2F")
        assert [request.headers["host"] for request in received] == [server.url.removeprefix("http://")] * 2
        await server.until(lambda server=server: not server.connections)  # type: ignore[misc]  # bound as a default
    assert [(event.endpoint, event.verdict) for event in events if isinstance(event, EndpointAnswered)] == [
        (server.url + "/v1", "success") for server in servers
    ] * 2


@pytest.mark.parametrize(
    ("endpoint", "host", "header", "tls"),
    [
        (Endpoint("http://10.0.0.1:81"), "endpoint", "10.0.0.1:81", None),
        (Endpoint("https://10.0.0.1:81", host="api:81"), "endpoint", "api:81", "api"),
        (Endpoint("https://10.0.0.1:81", host="api"), "request", "orders:90", "orders"),
        (Endpoint("https://[::1]:81"), "request", "orders:90", "orders"),
        (Endpoint("https://10.0.0.1:81", host="api"), "other", "other", "other"),
        (Endpoint("https://orders"), "request", "orders:90", None),
    ],
)
async def test_host_and_server_name(lib: Any, endpoint: Endpoint, host: str, header: str, tls: str | None) -> None:
    fleet = FakeFleet(lib)
    request = lib.Request("GET", "http://orders:90/x")
    await fleet.balanced([endpoint], host=host).handle_async_request(request)
    sent = fleet.sent[0][2]
    assert (sent.headers["host"], sent.extensions.get("sni_hostname")) == (header, tls)
    assert str(sent.url) == endpoint.url + "/x"
    assert (str(request.url), request.headers["host"]) == ("http://orders:90/x", "orders:90")  # as it was


async def test_a_retry_prefers_another_endpoint(lib: Any, servers: list[MisbehavingServer]) -> None:
    for server in servers[:2]:
        server.answer("/", Answer(503))
    urls = [server.url for server in servers]
    for strategy in ("round_robin", "least_in_flight", "two_choices"):
        balanced = Balanced(urls, strategy=strategy, outliers=None)
        async with lib.AsyncClient(transport=ResilientTransport(retry(3), balanced)) as client:
            for _ in range(5):
                response = await client.get("http://orders/")
                assert (response.status_code, response.extensions["resilience_endpoint"]) == (200, urls[2])
            assert [each.in_flight for each in balanced.status()] == [0, 0, 0]
            for member in balanced._fleet.members():
                for transport in member._made.values():
                    assert_idle(transport)


async def test_a_dead_endpoint_is_left_alone(lib: Any, servers: list[MisbehavingServer]) -> None:
    with MisbehavingServer() as stopped:
        dead = stopped.url
    balanced = Balanced([dead, *(server.url for server in servers)], strategy="round_robin")
    events = recorded(balanced)
    async with lib.AsyncClient(transport=ResilientTransport(retry(2), balanced)) as client:
        for _ in range(60):
            assert (await client.get("http://orders/")).status_code == 200
    sent = [event.endpoint for event in events if isinstance(event, EndpointAnswered)]
    assert sent.count(dead) == 5
    assert [event.endpoint for event in events if isinstance(event, EndpointEjected)] == [dead]


async def test_load_lasts_until_the_body_is_closed(lib: Any, servers: list[MisbehavingServer]) -> None:
    servers[0].answer("/", Answer(200, b"abcdef", pieces=3, pause=0.02))
    balanced = Balanced([servers[0].url])
    async with lib.AsyncClient(transport=balanced) as client:
        async with client.stream("GET", "http://orders/") as response:
            assert (balanced.status()[0].in_flight, balanced.status()[0].latency) == (1, None)
            assert await response.aread() == b"abcdef"
        assert balanced.status()[0].in_flight == 0
        assert (balanced.status()[0].latency or 0) >= 0.04


@pytest.mark.parametrize("ending", ["cut", "reset"])
async def test_an_error_in_mid_body_is_a_failure(lib: Any, servers: list[MisbehavingServer], ending: Any) -> None:
    servers[0].answer("/", Answer(200, bytes(100), pieces=2, pause=0.02, ending=ending))
    balanced = Balanced([servers[0].url], outliers=OutlierRule(failures=1))
    events = recorded(balanced)
    async with lib.AsyncClient(transport=balanced) as client:
        with pytest.raises(lib.TransportError):
            await client.get("http://orders/")
    assert [event.kind for event in events] == ["endpoint_answered", "endpoint_ejected"]


async def test_closing_early_is_no_failure(lib: Any, servers: list[MisbehavingServer]) -> None:
    servers[0].answer("/", Answer(200, bytes(300_000), ending="hang"))
    balanced = Balanced([servers[0].url], outliers=OutlierRule(failures=1))
    events = recorded(balanced)
    async with lib.AsyncClient(transport=balanced) as client:
        async with client.stream("GET", "http://orders/"):
            assert balanced.status()[0].in_flight == 1
    assert [event.verdict for event in events if isinstance(event, EndpointAnswered)] == ["success"]


@pytest.mark.parametrize("ending", ["hang", "complete"])
async def test_cancellation_counts_neither_way(lib: Any, servers: list[MisbehavingServer], ending: Any) -> None:
    """Cancelled while the body hangs, or before there is an answer at all."""
    servers[0].answer("/", Answer(200, b"ab", ending=ending) if ending == "hang" else Answer(0, ending="hang"))
    balanced = Balanced([servers[0].url], outliers=OutlierRule(failures=1))
    events = recorded(balanced)
    async with lib.AsyncClient(transport=balanced) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.get, "http://orders/")
            await servers[0].until(lambda: bool(servers[0].received("/")))
            await anyio.sleep(0.02)
            tasks.cancel_scope.cancel()
        assert balanced.status()[0].in_flight == 0
        assert balanced.status()[0].latency is None
    assert [event.verdict for event in events if isinstance(event, EndpointAnswered)] == ["ignored"]


async def test_throttling_counts_neither_way(lib: Any, servers: list[MisbehavingServer]) -> None:
    servers[0].answer("/", Answer(429))
    balanced = Balanced([servers[0].url])
    async with lib.AsyncClient(transport=balanced) as client:
        for _ in range(10):
            await client.get("http://orders/")
    assert (balanced.status()[0].latency, balanced.status()[0].ejected) == (None, False)


async def test_the_policies_around_it_keep_their_permits(lib: Any) -> None:
    fleet, bulkhead = FakeFleet(lib), Bulkhead(1)
    transport = ResilientTransport(Pipeline(bulkhead, retry(2)), fleet.balanced())
    async with lib.AsyncClient(transport=transport) as client:
        async with client.stream("GET", "http://orders/") as response:
            assert bulkhead.in_use() == 1
            await response.aread()
        assert bulkhead.in_use() == 0


async def test_consistent_hash_by_a_key_of_the_request(lib: Any) -> None:
    fleet = FakeFleet(lib)
    fleet.latency = dict.fromkeys(URLS, 0.0)

    def key(request: Any) -> Any:
        return request.headers.get("user")

    balanced = fleet.balanced(strategy="consistent_hash", key=key)
    homes = {
        user: {(await fleet.get(balanced, user=user)).extensions["resilience_endpoint"] for _ in range(3)}
        for user in map(str, range(50))
    }
    assert all(len(home) == 1 for home in homes.values())
    assert set[str]().union(*homes.values()) == set(URLS)


async def test_in_memory_answers_end_at_once(lib: Any) -> None:
    balanced = Balanced(URLS, transport=inner(lib, text="x"))
    async with lib.AsyncClient(transport=balanced) as client:
        assert (await client.get("http://orders/")).text == "x"
        assert all(each.in_flight == 0 for each in balanced.status())


async def test_nobody_left_is_an_error_of_both_trees(lib: Any) -> None:
    fleet = FakeFleet(lib)
    fleet.errors["http://s0"] = lib.ConnectError("refused")
    balanced = fleet.balanced(["http://s0"], panic=0, outliers=OutlierRule(failures=1))
    request = lib.Request("GET", "http://orders/")
    with pytest.raises(lib.ConnectError) as failed:
        await balanced.handle_async_request(request)
    assert failed.value.__notes__ == ["endpoint: http://s0"]
    with pytest.raises(NoEndpointError, match="balanced has no endpoint for a request") as raised:
        await balanced.handle_async_request(request)
    error: Any = raised.value
    assert isinstance(error, lib.TransportError)
    assert error.request is request
    assert len(fleet.sent) == 1


async def test_a_panic_is_told_once(lib: Any) -> None:
    fleet = FakeFleet(lib)
    fleet.latency = dict.fromkeys(URLS, 0.0)
    balanced = fleet.balanced(URLS[:2], outliers=OutlierRule(failures=1, share=1.0))
    events = recorded(balanced)
    fleet.status = dict.fromkeys(URLS, 503)
    for _ in range(6):
        await fleet.get(balanced)
    assert [event for event in events if isinstance(event, EndpointsPanicked)] == [
        EndpointsPanicked("", "balanced", 0, 2)
    ]
    fleet.status.clear()
    for _ in range(6):
        await fleet.get(balanced)
    assert sum(each.ejected for each in balanced.status()) == 1  # half of them are enough: the other waits its time


async def test_an_error_of_the_body_that_the_request_caused_is_no_failure(lib: Any) -> None:
    async def fails() -> None:
        raise lib.DecodingError("gzip")

    balanced = Balanced(URLS[:1], transport=inner(lib, stream=body(lib, fails)))
    events = recorded(balanced)
    async with lib.AsyncClient(transport=balanced) as client:
        with pytest.raises(lib.DecodingError):
            await client.get("http://orders/")
    assert [event.verdict for event in events if isinstance(event, EndpointAnswered)] == ["ignored"]


async def test_a_body_that_cannot_be_referenced_weakly_is_sent_all_the_same(lib: Any) -> None:
    class Slotted:
        __slots__ = ()

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"x"

    fleet = FakeFleet(lib)
    request = lib.Request("POST", "http://orders/", stream=Slotted())
    balanced: Any = fleet.balanced()
    assert (await balanced.handle_async_request(request)).status_code == 200


async def test_a_list_may_be_refreshed_too(lib: Any) -> None:
    balanced = FakeFleet(lib).balanced()
    await balanced.refresh()
    assert [each.endpoint.url for each in balanced.status()] == URLS


async def test_listening_can_end(lib: Any) -> None:
    fleet = FakeFleet(lib)
    balanced = fleet.balanced()
    events: list[Event] = []
    end = balanced.listen(events.append)
    await fleet.get(balanced)
    end()
    end()
    await fleet.get(balanced)
    assert len(events) == 1


async def test_the_inner_transports_take_options_and_share_a_tls_context(lib: Any) -> None:
    balanced = Balanced(["https://a", "https://b"], verify=False, http2=True, trust_env=False)
    await balanced._fleet.ready(lib.Request)
    from resilience_httpx.host import host_named

    made = [member.transport(host_named(lib.__name__)) for member in balanced._fleet.members()]
    assert {type(each) for each in made} == {lib.AsyncHTTPTransport}
    assert made[0]._pool._ssl_context is made[1]._pool._ssl_context
    assert made[0]._pool._http2
    await balanced.aclose()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"endpoints": []}, ValueError, "endpoints must not be empty"),
        ({"endpoints": "http://a"}, TypeError, "endpoints must be a list of URLs, a function or a resolver"),
        ({"endpoints": 7}, TypeError, "endpoints must be"),
        ({"endpoints": ["http://a", "http://a/"]}, ValueError, "endpoints must all be different"),
        ({"endpoints": [7]}, TypeError, "url must be a string"),
        ({"endpoints": ["a:80"]}, ValueError, "url must be http or https with a host, got 'a:80'"),
        ({"endpoints": ["http://u:p@a"]}, ValueError, "no query, fragment or user"),
        ({"endpoints": ["http://a?x"]}, ValueError, "no query, fragment or user"),
        ({"endpoints": ["http://a:0"]}, ValueError, "a port from 1 to 65535"),
        ({"endpoints": ["http://a:70000"]}, ValueError, "[Pp]ort"),
        ({"strategy": "fastest"}, ValueError, "strategy must be one of"),
        ({"strategy": "consistent_hash"}, ValueError, "key must be given for consistent_hash"),
        ({"key": str}, ValueError, "key must be given for consistent_hash, and for no other"),
        ({"key": 7, "strategy": "consistent_hash"}, TypeError, "key must be a function"),
        ({"bound": 2.0}, ValueError, "bound must be left out"),
        ({"host": ""}, ValueError, "host must be a non-empty string"),
        ({"name": ""}, ValueError, "name must be a non-empty string"),
        ({"latency": "all"}, ValueError, "latency must be one of 'body', 'headers'"),
        ({"decay": 0}, ValueError, "decay must be greater than 0"),
        ({"panic": 2}, ValueError, "panic must be at most 1"),
        ({"slow_start": -1}, ValueError, "slow_start must be at least 0"),
        ({"health": "/health"}, TypeError, "health must be a HealthCheck"),
        ({"classifier": 7}, TypeError, "classifier must be a Classifier"),
        ({"outliers": 5}, TypeError, "outliers must be an OutlierRule"),
        ({"transport": 7}, TypeError, "transport must be a function of an endpoint"),
        ({"transport": str, "http2": True}, TypeError, "http2 must be left out"),
        ({"htp2": True}, TypeError, "Balanced has no option htp2"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    make: Any = Balanced
    with pytest.raises(error, match=message):
        make(**{"endpoints": ["http://a"], **options})


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (Endpoint, {"url": "http://a", "weight": 0}, ValueError, "weight must be greater than 0"),
        (Endpoint, {"url": "http://a", "host": ""}, ValueError, "host must be a non-empty string"),
        (HealthCheck, {"path": "health"}, ValueError, "path must begin with a slash"),
        (HealthCheck, {"interval": 0}, ValueError, "interval must be greater than 0"),
        (HealthCheck, {"timeout": 0}, ValueError, "timeout must be greater than 0"),
        (HealthCheck, {"jitter": 2}, ValueError, "jitter must be at most 1"),
        (HealthCheck, {"healthy_after": 0}, ValueError, "healthy_after must be at least 1"),
        (HealthCheck, {"passes": 200}, TypeError, "passes must be a function"),
    ],
)
def test_wrong_parts_are_refused(make: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(**options)
