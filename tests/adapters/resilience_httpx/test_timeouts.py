"""The client's own timeouts and our deadlines: whichever is earlier ends the attempt, and says whose it was."""

from __future__ import annotations

import socket
from typing import Any

import anyio
import pytest

from resilience import CircuitBreaker, Pipeline, TimedOutError, Timeout
from tests.support.http_server import Answer, MisbehavingServer

from .support import assert_idle, connected, retry

# Generators that send a body are left to the garbage collector by both libraries, and trio says so.
pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")]

LATE = 30.0


async def never_ending() -> Any:
    while True:
        yield bytes(1_000_000)


async def attempt(client: Any, phase: str, server: MisbehavingServer, timeout: float) -> None:
    """A request that waits for ever in one phase."""
    url = server.answer("/", Answer(0, ending="hang"))
    if phase == "pool":
        async with client.stream("GET", server.answer("/other", Answer(200, b"1", ending="hang"))):
            await client.get(url, timeout=timeout)
    elif phase == "write":
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            await client.post(f"http://127.0.0.1:{deaf.getsockname()[1]}/", content=never_ending(), timeout=timeout)
    else:
        await client.get(url, timeout=timeout)


@pytest.mark.parametrize("phase", ["read", "write", "pool"])
async def test_an_earlier_deadline_ends_every_phase(lib: Any, server: MisbehavingServer, phase: str) -> None:
    breaker = CircuitBreaker()
    inner = lib.AsyncHTTPTransport(limits=lib.Limits(max_connections=1))
    policy = Pipeline(breaker, Timeout(0.2 if phase == "pool" else 0.1, name="ours"))
    async with connected(lib, policy, inner=inner) as client:
        with anyio.fail_after(5), pytest.raises(lib.TimeoutException) as raised:
            await attempt(client, phase, server, LATE)
    assert isinstance(raised.value, TimedOutError)
    assert raised.value.policy == "ours"
    assert breaker.metrics().failures >= 1


@pytest.mark.parametrize(
    ("phase", "error"), [("read", "ReadTimeout"), ("write", "WriteTimeout"), ("pool", "PoolTimeout")]
)
async def test_an_earlier_timeout_of_the_client_is_its_own(
    lib: Any, server: MisbehavingServer, phase: str, error: str
) -> None:
    breaker = CircuitBreaker()
    inner = lib.AsyncHTTPTransport(limits=lib.Limits(max_connections=1))
    async with connected(lib, Pipeline(Timeout(LATE), breaker), inner=inner) as client:
        with pytest.raises(getattr(lib, error)) as raised:
            await attempt(client, phase, server, 0.05)
    assert not isinstance(raised.value, TimedOutError)
    assert breaker.metrics().failures == 1


async def test_a_timeout_of_the_client_is_retried_and_stops_at_our_deadline(
    lib: Any, server: MisbehavingServer
) -> None:
    url = server.answer("/", Answer(0, ending="hang"))
    async with connected(lib, Pipeline(Timeout(0.3), retry(100, budget=None))) as client:
        with anyio.fail_after(5), pytest.raises(TimedOutError):
            await client.get(url, timeout=0.05)
    assert 3 <= len(server.received("/")) <= 7


async def test_a_client_without_timeouts_is_ended_by_ours(lib: Any, server: MisbehavingServer) -> None:
    url = server.answer("/", Answer(0, ending="hang"))
    inner = lib.AsyncHTTPTransport()
    async with connected(lib, Timeout(0.1), inner=inner) as client:
        with anyio.fail_after(5), pytest.raises(lib.TimeoutException):
            await client.get(url, timeout=None)
        assert_idle(inner)
