"""Which requests share state: by client, origin, route or function; bounded, and nothing of weight is forgotten."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from resilience import Bulkhead, CircuitBreaker, CircuitOpenError, Pipeline, RateLimitedError, RateLimiter
from resilience_httpx import ResilientTransport
from resilience_httpx.scopes import scope

from .support import always, mocked, retry

pytestmark = pytest.mark.anyio

ROUTES = ["/orders", "/orders/{id}", "POST /orders/{id}/items", "GET /files/{path:path}", "/a.b/{x}-{y}"]


@pytest.mark.parametrize(
    ("method", "url", "key"),
    [
        ("GET", "http://a/orders", "http://a /orders"),
        ("GET", "http://a/orders?page=2", "http://a /orders"),
        ("GET", "http://A:80/orders/17", "http://a /orders/{id}"),
        ("GET", "http://a:81/orders/17?x=/", "http://a:81 /orders/{id}"),
        ("GET", "http://a/orders/a%2Fb", "http://a /orders/{id}"),
        ("POST", "http://a/orders/17/items", "http://a POST /orders/{id}/items"),
        ("GET", "http://a/orders/17/items", "http://a"),
        ("GET", "http://a/orders/", "http://a"),
        ("GET", "http://a/files/x/y/z", "http://a GET /files/{path:path}"),
        ("GET", "http://a/a.b/1-2", "http://a /a.b/{x}-{y}"),
        ("GET", "http://a/aXb/1-2", "http://a"),
        ("GET", "http://a", "http://a"),
    ],
)
def test_routes(method: str, url: str, key: str) -> None:
    route_of = scope("route", ROUTES)
    assert route_of is not None
    assert route_of(httpx2.Request(method, url)) == key


@pytest.mark.parametrize(
    ("key", "routes", "error", "message"),
    [
        ("route", [], ValueError, "routes must be given with key='route'"),
        ("origin", ["/a"], ValueError, "routes must be given with key='route', and only with it"),
        (None, ["/a"], ValueError, "routes must be given with key='route'"),
        ("route", "/a", TypeError, "routes must be a collection of templates"),
        ("route", [1], TypeError, "routes must be a collection of templates"),
        ("route", ["orders"], ValueError, "paths from '/'"),
        ("route", ["get /orders"], ValueError, "paths from '/'"),
        ("route", ["/a b"], ValueError, "paths from '/'"),
        ("route", ["/{1}"], ValueError, r"parameters like \{id\}"),
        ("route", ["/{id"], ValueError, r"parameters like \{id\}"),
        ("route", ["/{a:int}"], ValueError, r"parameters like \{id\}"),
        ("host", [], ValueError, "key must be 'client', 'origin', 'route' or a function"),
    ],
)
def test_wrong_scopes_are_refused(key: Any, routes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ResilientTransport(retry(), key=key, routes=routes)


async def test_a_function_must_return_a_string(lib: Any) -> None:
    def wrong(request: Any) -> Any:
        return None

    async with mocked(lib, retry(), always(lib), key=wrong) as client:
        with pytest.raises(TypeError, match="key must return a str, got None"):
            await client.get("http://a/")


async def test_one_scope_serves_breaker_limiter_and_bulkhead(lib: Any) -> None:
    breaker, limiter, bulkhead = CircuitBreaker(), RateLimiter("2/hour", max_wait=0), Bulkhead(1)
    everywhere = RateLimiter("5/hour", max_wait=0, keyed=False)
    policy = Pipeline(everywhere, breaker, limiter, bulkhead)
    async with mocked(lib, policy, always(lib), key="route", routes=ROUTES) as client:
        for url in ("http://a/orders/1", "http://a/orders/2", "http://a/orders"):
            await client.get(url)
        with pytest.raises(RateLimitedError):
            await client.get("http://a/orders/3")
        await client.get("http://b/orders/3")
        with pytest.raises(RateLimitedError) as raised:
            await client.get("http://c/")
    assert raised.value.policy == everywhere.name
    assert set(breaker.keys()) - {""} == {"http://a /orders/{id}", "http://a /orders", "http://b /orders/{id}"}
    assert bulkhead.in_use("http://a /orders") == 0


async def test_a_key_that_is_used_again_and_again_is_not_forgotten(lib: Any) -> None:
    breaker = CircuitBreaker(max_keys=2)
    async with mocked(lib, breaker, always(lib), key="origin") as client:
        for name in ("a", "b", "a", "c"):
            await client.get(f"http://{name}/")
    assert breaker.metrics("http://a").calls == 2
    assert breaker.metrics("http://b").calls == 0, "the key that was idle longest has left"


@pytest.mark.parametrize("key", [None, "client"])
async def test_by_client_there_is_one_state(lib: Any, key: Any) -> None:
    breaker = CircuitBreaker()
    async with mocked(lib, breaker, always(lib), key=key) as client:
        await client.get("http://a/")
        await client.get("http://b/")
    assert breaker.metrics().calls == 2


async def test_every_hop_of_a_redirect_has_its_own_key_and_permit(lib: Any) -> None:
    bulkhead, breaker = Bulkhead(1), CircuitBreaker()
    permits: list[tuple[int, int]] = []

    def handler(request: Any) -> Any:
        permits.append((bulkhead.in_use("http://a"), bulkhead.in_use("http://b")))
        if request.url.host == "a":
            return lib.Response(302, headers={"Location": "http://b/"})
        return lib.Response(200)

    async with mocked(lib, Pipeline(bulkhead, breaker), handler, key="origin") as client:
        response = await client.get("http://a/", follow_redirects=True)
    assert response.status_code == 200
    assert permits == [(1, 0), (0, 1)]
    assert [breaker.metrics(key).calls for key in ("http://a", "http://b")] == [1, 1]
    assert [each.extensions["resilience"].attempts for each in (*response.history, response)] == [1, 1]


async def test_many_origins_are_bounded_and_open_circuits_and_debts_kept(lib: Any) -> None:
    breaker = CircuitBreaker(minimum_calls=2, max_keys=20, open_for=60)
    limiter = RateLimiter("1/hour", max_wait=0, max_keys=20)

    def handler(request: Any) -> Any:
        return lib.Response(500 if request.url.host == "down" else 200)

    async with (
        mocked(lib, breaker, handler, key="origin") as client,
        mocked(lib, limiter, handler, key="origin") as limited,
    ):
        for _ in range(2):
            await client.get("http://down/")
        await limited.get("http://spent/")
        for n in range(200):
            await client.get(f"http://host{n}/")
        for n in range(50):
            await limited.get(f"http://host{n}/")
        with pytest.raises(CircuitOpenError):
            await client.get("http://down/")
        with pytest.raises(RateLimitedError):
            await limited.get("http://spent/")
    assert len(list(breaker.keys())) <= 25
