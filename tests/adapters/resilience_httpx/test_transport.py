"""Retries, rejections, keys and overrides, over real connections wherever bytes matter."""

from __future__ import annotations

import asyncio
import importlib
import pickle
import socket
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from resilience import (
    Bulkhead,
    BulkheadFullError,
    Call,
    CircuitBreaker,
    CircuitOpenError,
    Classifier,
    Event,
    Fallback,
    Guard,
    Pipeline,
    Policy,
    RateLimitedError,
    RateLimiter,
    RejectedError,
    Retry,
    TimedOutError,
    Timeout,
    Verdict,
)
from resilience.events import RetryGaveUp, RetryScheduled
from resilience_httpx import Report, ResilientTransport, http_classifier
from tests.support.http_server import Answer, MisbehavingServer

from .support import assert_idle, connected, mocked, retry

pytestmark = pytest.mark.anyio


def recorded(policy: Policy) -> list[Event]:
    events: list[Event] = []
    policy.listen(events.append)
    return events


@pytest.mark.parametrize(
    ("status", "sends"),
    [(200, 1), (302, 1), (404, 1), (408, 2), (425, 2), (429, 2), (500, 2), (501, 1), (502, 2), (503, 2), (504, 2)],
)
async def test_statuses_that_are_sent_again(lib: Any, server: MisbehavingServer, status: int, sends: int) -> None:
    url = server.answer("/", Answer(status, b"first"), Answer(200, b"second"))
    async with connected(lib, retry(2)) as client:
        response = await client.get(url)
    assert len(server.received("/")) == sends
    assert response.content == (b"first" if sends == 1 else b"second")
    assert response.extensions["resilience"].attempts == sends


async def test_the_last_response_is_the_answer_when_attempts_are_used_up(lib: Any, server: MisbehavingServer) -> None:
    url = server.answer("/", Answer(503, b"1"), Answer(503, b"2"), Answer(503, b"3"), Answer(200))
    async with connected(lib, retry(3)) as client:
        response = await client.get(url)
    assert (response.status_code, response.content) == (503, b"3")
    assert len(server.received("/")) == 3


async def test_transport_errors_are_sent_again(lib: Any, server: MisbehavingServer) -> None:
    silent, reset = Answer(0, ending="cut"), Answer(0, ending="reset")
    url = server.answer("/", silent, reset, Answer(200, b"at last"))
    async with connected(lib, retry(3)) as client:
        response = await client.get(url)
    assert response.content == b"at last"
    assert response.extensions["resilience"].attempts == len(server.received("/")) == 3


async def test_the_original_error_is_raised_when_attempts_are_used_up(lib: Any, server: MisbehavingServer) -> None:
    url = server.answer("/", Answer(0, ending="cut"))
    async with connected(lib, retry(2)) as client:
        with pytest.raises(lib.RemoteProtocolError) as raised:
            await client.get(url)
    assert type(raised.value) is lib.RemoteProtocolError
    assert raised.value.__notes__ == ["Retry gave up after 2 attempts: attempts"]
    assert str(raised.value.request.url) == url


async def test_refused_connections_are_failures(lib: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        breaker = CircuitBreaker()
        async with connected(lib, Pipeline(retry(2), breaker)) as client:
            with pytest.raises(lib.ConnectError):
                await client.get(f"http://127.0.0.1:{unused.getsockname()[1]}/")
    assert breaker.metrics().failures == 2


async def test_a_wrong_request_is_no_failure_of_the_server(lib: Any) -> None:
    breaker = CircuitBreaker()
    pipeline = Pipeline(retry(3), breaker)
    events = recorded(pipeline)
    async with connected(lib, pipeline) as client:
        with pytest.raises(lib.UnsupportedProtocol):
            await client.get("ftp://127.0.0.1/")
    assert breaker.metrics().calls == 0
    assert [event.kind for event in events] == ["call_failed"]


@pytest.mark.parametrize(
    ("status", "calls", "failures"), [(200, 1, 0), (404, 1, 0), (429, 0, 0), (501, 0, 0), (500, 1, 1)]
)
async def test_verdicts_on_statuses(
    lib: Any, server: MisbehavingServer, status: int, calls: int, failures: int
) -> None:
    breaker = CircuitBreaker()
    async with connected(lib, breaker) as client:
        await client.get(server.answer("/", Answer(status)))
    assert (breaker.metrics().calls, breaker.metrics().failures) == (calls, failures)


async def test_retry_after_is_the_least_delay(lib: Any, server: MisbehavingServer) -> None:
    url = server.answer(
        "/", Answer(503, headers={"Retry-After": "0.05"}), Answer(429, headers={"Retry-After-Ms": "20"}), Answer()
    )
    policy = retry(3, random=lambda: 0.0)
    events = recorded(policy)
    async with connected(lib, policy) as client:
        report: Report = (await client.get(url)).extensions["resilience"]
    assert [event.delay for event in events if isinstance(event, RetryScheduled)] == [0.05, 0.02]
    assert report.attempts == 3
    assert report.elapsed >= report.waited >= 0.07


async def test_a_response_that_asks_for_too_long_a_pause_is_the_answer(lib: Any, server: MisbehavingServer) -> None:
    url = server.answer("/", Answer(503, b"later", {"Retry-After": "1000"}))
    policy = Pipeline(Timeout(5), retry(3))
    events = recorded(policy)
    async with connected(lib, policy) as client:
        response = await client.get(url)
    assert response.content == b"later"
    assert [event.reason for event in events if isinstance(event, RetryGaveUp)] == ["advised delay"]
    assert len(server.received("/")) == 1


async def test_discarded_responses_are_closed_before_the_next_attempt(lib: Any, server: MisbehavingServer) -> None:
    url = server.answer("/", Answer(503, bytes(100_000)), Answer(200))
    inner = lib.AsyncHTTPTransport()
    idle: list[bool] = []

    async def handler(request: Any) -> Any:
        idle.append(not inner._pool._requests)
        return await inner.handle_async_request(request)

    async with inner, mocked(lib, retry(2), handler) as client:
        await client.get(url)
        assert_idle(inner)
    assert idle == [True, True]


async def test_one_permit_covers_all_attempts_and_comes_back(lib: Any, server: MisbehavingServer) -> None:
    bulkhead = Bulkhead(2, queue=100)
    url = server.answer("/", *[Answer(503)] * 10, Answer(200))
    async with connected(lib, Pipeline(bulkhead, retry(11, budget=None))) as client:
        statuses: list[int] = []

        async def get() -> None:
            statuses.append((await client.get(url)).status_code)

        async with anyio.create_task_group() as group:
            for _ in range(15):
                group.start_soon(get)
    assert statuses == [200] * 15
    assert bulkhead.in_use() == bulkhead.waiting() == 0


def full_bulkhead() -> Policy:
    bulkhead = Bulkhead(1)
    bulkhead.enter(Call(bulkhead.operation, print))
    return bulkhead


def open_breaker() -> Policy:
    breaker = CircuitBreaker(name="orders")
    breaker.isolate()
    return breaker


def spent_limiter() -> Policy:
    limiter = RateLimiter("1/hour", max_wait=0)
    limiter.enter(Call(limiter.operation, print))
    return limiter


@pytest.mark.parametrize(
    ("make", "ours"),
    [(full_bulkhead, BulkheadFullError), (open_breaker, CircuitOpenError), (spent_limiter, RateLimitedError)],
)
async def test_rejections_belong_to_both_trees(
    lib: Any, server: MisbehavingServer, make: Callable[[], Policy], ours: type[RejectedError]
) -> None:
    policy = make()
    async with connected(lib, policy) as client:
        with pytest.raises(lib.TransportError) as raised:
            await client.get(server.url)
        with pytest.raises(ours) as again:
            await client.get(server.url)
    error = raised.value
    assert isinstance(error, ours)
    assert not isinstance(error, lib.TimeoutException)
    assert type(error).__name__ == ours.__name__
    assert type(error) is type(again.value)
    assert type(error.__cause__) is ours
    assert (error.policy, error.retry_after) == (policy.name, error.__cause__.retry_after)
    assert str(error) == str(error.__cause__)
    assert error.request.url == server.url
    assert not server.received("/")


async def test_a_rejection_survives_pickling(lib: Any) -> None:
    async with mocked(lib, open_breaker(), lambda request: lib.Response(200)) as client:
        with pytest.raises(CircuitOpenError) as raised:
            await client.get("http://a/")
    copy = pickle.loads(pickle.dumps(raised.value))
    assert type(copy) is type(raised.value)
    assert (copy.args, copy.policy, copy.request.url) == (raised.value.args, "orders", "http://a/")


async def test_timeouts_belong_to_both_trees(lib: Any, server: MisbehavingServer) -> None:
    url = server.answer("/", Answer(0, ending="hang"))
    breaker = CircuitBreaker()
    async with connected(lib, Pipeline(retry(2), breaker, Timeout(0.05, name="attempt")), name="orders") as client:
        with pytest.raises(lib.TimeoutException, match=r"orders did not finish within 0\.05 s") as raised:
            await client.get(url)
    assert isinstance(raised.value, TimedOutError)
    assert (raised.value.policy, raised.value.seconds) == ("attempt", 0.05)
    assert raised.value.__notes__ == ["Retry gave up after 2 attempts: attempts"]
    assert breaker.metrics().failures == len(server.received("/")) == 2


async def test_a_timeout_of_the_client_is_its_own_and_a_failure(lib: Any, server: MisbehavingServer) -> None:
    url = server.answer("/", Answer(0, ending="hang"), Answer(200))
    async with connected(lib, Pipeline(Timeout(5), retry(2))) as client:
        response = await client.get(url, timeout=0.05)
        assert response.extensions["resilience"].attempts == 2
        server.answer("/", Answer(0, ending="hang"))
        with pytest.raises(lib.ReadTimeout) as raised:
            await client.get(url, timeout=0.03)
    assert not isinstance(raised.value, TimedOutError)


async def test_transports_may_be_stacked(lib: Any) -> None:
    inner = ResilientTransport(open_breaker(), lib.MockTransport(lambda request: lib.Response(200)))
    outer_breaker = CircuitBreaker()
    transport = ResilientTransport(Pipeline(retry(3), outer_breaker), inner)
    async with lib.AsyncClient(transport=transport) as client:
        with pytest.raises(lib.TransportError) as raised:
            await client.get("http://a/")
    assert isinstance(raised.value, CircuitOpenError)
    assert outer_breaker.metrics().calls == 0
    assert type(raised.value.__cause__) is CircuitOpenError


async def test_state_is_kept_per_origin_if_asked(lib: Any) -> None:
    breaker = CircuitBreaker(minimum_calls=2)
    async with mocked(lib, breaker, lambda request: lib.Response(500), key="origin") as client:
        for _ in range(2):
            await client.get("http://user:secret@Down.example:80/a")
        with pytest.raises(CircuitOpenError):
            await client.get("http://down.example/b?c")
        await client.get("https://down.example/b")
        await client.get("http://down.example:8080/b")
    assert set(breaker.keys()) - {""} == {"http://down.example", "http://down.example:8080", "https://down.example"}


async def test_keys_by_function_and_by_request(lib: Any) -> None:
    breaker = CircuitBreaker()
    transport = lib.MockTransport(lambda request: lib.Response(200))
    async with lib.AsyncClient(
        transport=ResilientTransport(breaker, transport, key=lambda request: request.url.path)
    ) as client:
        await client.get("http://a/orders")
        await client.get("http://a/orders", extensions={"resilience": {"key": "eu"}})
    assert set(breaker.keys()) - {""} == {"/orders", "eu"}


async def test_a_request_may_bring_another_policy_or_none(lib: Any) -> None:
    seen: list[Any] = []

    def handler(request: Any) -> Any:
        seen.append(request)
        return lib.Response(503)

    async with mocked(lib, open_breaker(), handler) as client:
        response = await client.get("http://a/", extensions={"resilience": {"policy": None}})
        assert "resilience" not in response.extensions
        response = await client.get("http://a/", extensions={"resilience": {"policy": retry(2)}})
        assert response.extensions["resilience"].attempts == 2
    assert len(seen) == 3


async def test_cost_and_name_of_a_request(lib: Any) -> None:
    limiter = RateLimiter("10/hour", max_wait=0)
    pipeline = Pipeline(limiter, name="orders")
    events = recorded(pipeline)
    async with mocked(lib, pipeline, lambda request: lib.Response(200)) as client:
        await client.get("http://a/", extensions={"resilience": {"cost": 8, "name": "bulk"}})
        await client.get("http://a/")
        with pytest.raises(RateLimitedError):
            await client.get("http://a/", extensions={"resilience": {"cost": 2}})
    assert [(event.kind, event.operation) for event in events] == [
        ("call_succeeded", "bulk"),
        ("call_succeeded", "orders"),
        ("call_rejected", "orders"),
        ("call_failed", "orders"),
    ]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"retires": 1}, ValueError, "no key 'retires'; its keys are key, cost, retry, policy, name"),
        ("eu", TypeError, "must be a mapping, got 'eu'"),
        ({"key": 1}, TypeError, "key must be a str, got 1"),
        ({"retry": 1}, TypeError, "retry must be a bool, got 1"),
        ({"name": None}, TypeError, "name must be a str, got None"),
        ({"policy": "none"}, TypeError, "policy must be a Policy or None, got 'none'"),
        ({"cost": -1}, ValueError, "cost must be at least 0, got -1"),
        ({"cost": float("nan")}, ValueError, "cost must be finite"),
        ({"cost": True}, TypeError, "cost must be a number"),
    ],
)
async def test_wrong_overrides_are_refused(lib: Any, given: Any, error: type[Exception], message: str) -> None:
    async with mocked(lib, retry(), lambda request: lib.Response(200)) as client:
        with pytest.raises(error, match=message):
            await client.get("http://a/", extensions={"resilience": given})


async def test_every_attempt_sees_the_request_as_it_was(lib: Any) -> None:
    seen: list[tuple[Any, Any, Any]] = []

    def handler(request: Any) -> Any:
        seen.append((request.headers.get("x-attempt"), request.extensions["timeout"]["read"], dict(request.extensions)))
        request.headers["x-attempt"] = "spoiled"
        request.extensions["timeout"]["read"] = 0
        request.extensions["note"] = "spoiled"
        return lib.Response(503)

    async with mocked(lib, retry(2), handler) as client:
        request = client.build_request(
            "GET", "http://a/", timeout=3, extensions={"mine": 1, "resilience": {"key": "k"}}
        )
        response = await client.send(request)
    assert [(header, read) for header, read, _ in seen] == [(None, 3), (None, 3)]
    assert [extensions.keys() for _, _, extensions in seen] == [{"mine", "timeout"}] * 2
    assert response.request is request
    assert request.extensions["timeout"]["read"] == 3
    assert "x-attempt" not in request.headers


async def test_redirects_are_calls_of_their_own(lib: Any, server: MisbehavingServer) -> None:
    server.answer("/old", Answer(307, headers={"Location": "/new"}))
    server.answer("/new", Answer(503), Answer(200, b"moved"))
    bulkhead = Bulkhead(1)
    async with connected(lib, Pipeline(bulkhead, retry(2))) as client:
        response = await client.put(server.url + "/old", content=b"body", follow_redirects=True)
    assert response.content == b"moved"
    assert [received.body for received in server.received("/new")] == [b"body"] * 2
    assert bulkhead.in_use() == 0


async def test_a_fallback_answers_with_a_response(lib: Any, server: MisbehavingServer) -> None:
    bulkhead = Bulkhead(1)

    def canned() -> Any:
        return lib.Response(200, content=b"canned")

    url = server.answer("/", Answer(503, bytes(100_000)))
    async with connected(lib, Pipeline(Fallback(canned), bulkhead)) as client:
        response = await client.get(url)
    assert (response.content, response.extensions["resilience"].attempts) == (b"canned", 1)
    assert bulkhead.in_use() == 0


async def test_a_fallback_that_is_no_response_is_refused(lib: Any, server: MisbehavingServer) -> None:
    bulkhead = Bulkhead(1)
    url = server.answer("/", Answer(503))
    async with connected(lib, Pipeline(Fallback("text"), bulkhead)) as client:
        with pytest.raises(TypeError, match=rf"Pipeline must return a {lib.__name__}.Response, got 'text'"):
            await client.get(url)
    assert bulkhead.in_use() == 0


async def test_statuses_and_classifier_can_be_chosen(lib: Any) -> None:
    def handler(request: Any) -> Any:
        return lib.Response(int(request.url.path[1:]))

    async def sends(status: int, **options: Any) -> int:
        async with mocked(lib, options.pop("policy", retry(2)), handler, **options) as client:
            response = await client.get(f"http://a/{status}")
            return int(response.extensions["resilience"].attempts)

    teapots = Classifier(result=lambda response: Verdict.FAILURE if response.status_code == 418 else Verdict.SUCCESS)
    assert [await sends(status, statuses={500}) for status in (500, 503, 429)] == [2, 1, 2]
    assert [await sends(status, classifier=teapots) for status in (418, 503)] == [2, 1]
    assert [await sends(status, classifier=http_classifier(throttled=())) for status in (429, 503)] == [1, 2]
    assert await sends(418, policy=Pipeline(retry(2), classifier=teapots)) == 2
    assert await sends(418, policy=retry(2, on_result=lambda response: response.is_error)) == 2


async def test_the_library_makes_its_own_transport(lib: Any, server: MisbehavingServer) -> None:
    transport = ResilientTransport(retry(2), http2=False, verify=False)
    async with lib.AsyncClient(transport=transport) as client:
        response = await client.get(server.answer("/", Answer(503), Answer(200)))
        assert response.status_code == 200
        inner = transport._made[lib.__name__]
        assert type(inner) is lib.AsyncHTTPTransport
        assert_idle(inner)
    assert not transport._made
    assert not inner._pool.connections


async def test_the_inner_transport_is_entered_left_and_closed(lib: Any) -> None:
    log: list[str] = []

    class Inner:
        async def __aenter__(self) -> Any:
            log.append("enter")
            return self

        async def __aexit__(self, *error: object) -> None:
            log.append("exit")

        async def aclose(self) -> None:
            log.append("close")

        async def handle_async_request(self, request: Any) -> Any:
            return lib.Response(200)

    inner: Any = Inner()
    transport = ResilientTransport(retry(), inner)
    async with lib.AsyncClient(transport=transport) as client:
        await client.get("http://a/")
    await transport.aclose()
    assert log == ["enter", "exit", "close"]


async def test_requests_of_other_libraries_are_refused() -> None:
    transport: Any = ResilientTransport(retry())
    with pytest.raises(TypeError, match=r"must be an httpx or httpx2 Request, got builtins\.str"):
        await transport.handle_async_request("GET /")


async def test_one_transport_serves_both_libraries(server: MisbehavingServer) -> None:
    bulkhead = Bulkhead(1)
    transport = ResilientTransport(bulkhead)
    for name in ("httpx", "httpx2"):
        lib = importlib.import_module(name)
        client = lib.AsyncClient(transport=transport)
        response = await client.get(server.url)
        assert isinstance(response, lib.Response)
    assert bulkhead.in_use() == 0
    await transport.aclose()


async def test_whatever_a_policy_raises_the_response_is_closed(lib: Any, server: MisbehavingServer) -> None:
    class Broken(Guard[int]):
        def enter(self, call: Call) -> int:
            return 1

        def suspend(self, call: Call, token: int) -> int:
            raise ZeroDivisionError

        def leave(self, call: Call, token: int, result: Any, error: BaseException | None) -> None: ...

    bulkhead, inside = Bulkhead(1), Bulkhead(1)
    url = server.answer("/", Answer(200, bytes(100_000)))
    async with connected(lib, Pipeline(bulkhead, Broken(), inside)) as client:
        with pytest.raises(ZeroDivisionError):
            await client.get(url)
    assert bulkhead.in_use() == inside.in_use() == 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"policy": "retry"}, TypeError, "policy must be a Policy, got 'retry'"),
        ({"transport": object()}, TypeError, "transport must be an async transport"),
        ({"key": "host"}, ValueError, "key must be None, 'origin' or a function of the request, got 'host'"),
        ({"key": 7}, ValueError, "key must be None"),
        ({"retry_methods": "GET"}, TypeError, "retry_methods must be a collection of method names, got 'GET'"),
        ({"retry_methods": [1]}, TypeError, "retry_methods"),
        ({"name": ""}, ValueError, "name must be a non-empty string, got ''"),
        ({"statuses": {50}}, ValueError, "failures must hold status codes from 100 to 999, got 50"),
        ({"statuses": {"500"}}, TypeError, "failures must hold status codes, got '500'"),
        ({"statuses": {True}}, TypeError, "failures must hold status codes, got True"),
        ({"statuses": {429}}, ValueError, r"no status in common, got \[429\]"),
        ({"classifier": "strict"}, TypeError, "classifier must be a Classifier, got 'strict'"),
        ({"classifier": Classifier(), "statuses": {500}}, TypeError, "statuses must be left out"),
        ({"htp2": True}, TypeError, "ResilientTransport has no option htp2"),
        ({"transport": ResilientTransport(Retry()), "http2": True}, TypeError, "http2 must be left out"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    make: Any = ResilientTransport
    with pytest.raises(error, match=message):
        make(**{"policy": Retry(), **options})


def test_a_transport_outlives_its_event_loop(lib: Any, server: MisbehavingServer) -> None:
    bulkhead = Bulkhead(1)
    transport = ResilientTransport(Pipeline(bulkhead, retry(2)))

    async def get() -> int:
        async with lib.AsyncClient(transport=transport) as client:
            return int((await client.get(server.url)).status_code)

    assert [asyncio.run(get()), asyncio.run(get())] == [200, 200]
    assert bulkhead.in_use() == 0
