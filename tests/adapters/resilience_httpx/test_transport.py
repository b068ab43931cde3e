"""The transport as a whole: what it is made of, what it returns, what it owns."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

import pytest

from resilience import (
    Bulkhead,
    Call,
    Classifier,
    Fallback,
    Guard,
    Pipeline,
    Retry,
    Verdict,
)
from resilience_httpx import ResilientTransport, http_classifier
from tests.support.http_server import Answer, MisbehavingServer

from .support import assert_idle, connected, mocked, retry

pytestmark = pytest.mark.anyio


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

    def is_error(response: Any) -> bool:
        return bool(response.is_error)

    teapots = Classifier(result=lambda response: Verdict.FAILURE if response.status_code == 418 else Verdict.SUCCESS)
    assert [await sends(status, statuses={500}) for status in (500, 503, 429)] == [2, 1, 2]
    assert [await sends(status, classifier=teapots) for status in (418, 503)] == [2, 1]
    assert [await sends(status, classifier=http_classifier(throttled=())) for status in (429, 503)] == [1, 2]
    assert await sends(418, policy=Pipeline(retry(2), classifier=teapots)) == 2
    assert await sends(418, policy=retry(2, on_result=is_error)) == 2


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
        ({"key": "host"}, ValueError, "key must be 'client', 'origin', 'route' or a function of the request"),
        ({"key": 7}, ValueError, "or a function of the request, got 7"),
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
