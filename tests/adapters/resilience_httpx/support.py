"""What the tests of the transport share: a client that notices leaks, and policies that do not dawdle."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from resilience import Backoff, CircuitBreaker, Event, Policy, Retry
from resilience_httpx import ResilientTransport


@asynccontextmanager
async def connected(lib: Any, policy: Policy, inner: Any = None, **options: Any) -> AsyncGenerator[Any, None]:
    """A client over real connections; at the end every one of them must be idle or closed."""
    inner = inner or lib.AsyncHTTPTransport(verify=False)
    async with lib.AsyncClient(transport=ResilientTransport(policy, inner, **options)) as client:
        yield client
        assert_idle(inner)


def assert_idle(transport: Any) -> None:
    pool = transport._pool
    assert not pool._requests
    assert all(connection.is_idle() or connection.is_closed() for connection in pool.connections)


def assert_unused(transport: Any) -> None:
    """No request is in the pool, and no connection has one."""
    pool = transport._pool
    assert not pool._requests
    assert all(is_free(connection) or in_limbo(connection) for connection in pool.connections), pool.connections


def is_free(connection: Any) -> bool:
    return bool(connection.is_idle() or connection.is_closed())


def in_limbo(connection: Any) -> bool:
    """Whether an HTTP/2 connection calls itself active and has no stream: the request was cancelled before it had."""
    return not is_free(connection) and getattr(connection._connection, "_events", None) == {}


def always(lib: Any, status: int = 200, **response: Any) -> Callable[[Any], Any]:
    """A handler that gives the same response to every request."""
    return lambda request: lib.Response(status, **response)


def mocked(lib: Any, policy: Policy, handler: Callable[[Any], Any], **options: Any) -> Any:
    """A client whose requests end in `handler`."""
    return lib.AsyncClient(transport=ResilientTransport(policy, lib.MockTransport(handler), **options))


def retry(attempts: int = 3, **options: Any) -> Retry:
    """A Retry that does not pause unless it is told to."""
    return Retry(attempts, backoff=Backoff.none(), throttled=Backoff.none(), **options)


def recorded(policy: Policy) -> list[Event]:
    """The events of `policy` from now on."""
    events: list[Event] = []
    policy.listen(events.append)
    return events


def open_breaker() -> Policy:
    """A breaker that refuses every call."""
    breaker = CircuitBreaker(name="orders")
    breaker.isolate()
    return breaker
