"""What one request decides for itself: its key, cost, name and policy, and that attempts do not spoil it."""

from __future__ import annotations

from typing import Any

import pytest

from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    Pipeline,
    RateLimitedError,
    RateLimiter,
)
from resilience_httpx import ResilientTransport

from .support import always, mocked, open_breaker, recorded, retry

pytestmark = pytest.mark.anyio


async def test_state_is_kept_per_origin_if_asked(lib: Any) -> None:
    breaker = CircuitBreaker(minimum_calls=2)
    async with mocked(lib, breaker, always(lib, 500), key="origin") as client:
        for _ in range(2):
            await client.get("http://user:secret@Down.example:80/a")
        with pytest.raises(CircuitOpenError):
            await client.get("http://down.example/b?c")
        await client.get("https://down.example/b")
        await client.get("http://down.example:8080/b")
    assert set(breaker.keys()) - {""} == {"http://down.example", "http://down.example:8080", "https://down.example"}


async def test_keys_by_function_and_by_request(lib: Any) -> None:
    breaker = CircuitBreaker()
    transport = lib.MockTransport(always(lib))
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
    async with mocked(lib, pipeline, always(lib)) as client:
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
    async with mocked(lib, retry(), always(lib)) as client:
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
