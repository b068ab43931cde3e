"""Rejections and timeouts are errors of ours and of the client library at once."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from resilience import (
    Bulkhead,
    BulkheadFullError,
    Call,
    CircuitBreaker,
    CircuitOpenError,
    Pipeline,
    Policy,
    RateLimitedError,
    RateLimiter,
    RejectedError,
    TimedOutError,
    Timeout,
)
from resilience_httpx import ResilientTransport
from tests.support.http_server import Answer, MisbehavingServer

from .support import always, connected, mocked, open_breaker, retry

pytestmark = pytest.mark.anyio


def url_of(error: Any) -> str:
    """Of the request that an error carries, as errors of both libraries do."""
    return str(error.request.url)


def full_bulkhead() -> Policy:
    bulkhead = Bulkhead(1)
    bulkhead.enter(Call(bulkhead.operation, print))
    return bulkhead


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
    error: Any = raised.value
    assert isinstance(raised.value, ours)
    assert not isinstance(error, lib.TimeoutException)
    assert type(error).__name__ == ours.__name__
    assert type(error) is type(again.value)
    assert type(error.__cause__) is ours
    assert isinstance(error.__cause__, ours)
    assert (error.policy, error.retry_after) == (policy.name, error.__cause__.retry_after)
    assert str(error) == str(error.__cause__)
    assert url_of(error) == server.url
    assert not server.received("/")


async def test_a_rejection_survives_pickling(lib: Any) -> None:
    async with mocked(lib, open_breaker(), always(lib)) as client:
        with pytest.raises(CircuitOpenError) as raised:
            await client.get("http://a/")
    copy = pickle.loads(pickle.dumps(raised.value))
    assert type(copy) is type(raised.value)
    assert (copy.args, copy.policy, url_of(copy)) == (raised.value.args, "orders", "http://a/")
    assert isinstance(copy, lib.TransportError)


async def test_timeouts_belong_to_both_trees(lib: Any, server: MisbehavingServer) -> None:
    url = server.answer("/", Answer(0, ending="hang"))
    breaker = CircuitBreaker()
    async with connected(lib, Pipeline(retry(2), breaker, Timeout(0.2, name="attempt")), name="orders") as client:
        with pytest.raises(lib.TimeoutException, match=r"orders did not finish within 0\.2 s") as raised:
            await client.get(url)
    assert isinstance(raised.value, TimedOutError)
    assert (raised.value.policy, raised.value.seconds) == ("attempt", 0.2)
    notes = ["Retry gave up after 2 attempts: attempts"]
    assert raised.value.__notes__ == notes
    raised.value.add_note("more")
    cause = raised.value.__cause__
    assert cause is not None
    assert cause.__notes__ == notes
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
    inner = ResilientTransport(open_breaker(), lib.MockTransport(always(lib)))
    outer_breaker = CircuitBreaker()
    transport = ResilientTransport(Pipeline(retry(3), outer_breaker), inner)
    async with lib.AsyncClient(transport=transport) as client:
        with pytest.raises(lib.TransportError) as raised:
            await client.get("http://a/")
    assert isinstance(raised.value, CircuitOpenError)
    assert outer_breaker.metrics().calls == 0
    assert type(raised.value.__cause__) is CircuitOpenError
