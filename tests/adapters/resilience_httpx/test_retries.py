"""What is sent again, when, and what the caller gets in the end: over real connections."""

from __future__ import annotations

import socket
from typing import Any

import anyio
import pytest

from resilience import (
    Bulkhead,
    CircuitBreaker,
    Pipeline,
    Timeout,
)
from resilience.events import RetryGaveUp, RetryScheduled
from resilience_httpx import Report
from tests.support.http_server import Answer, MisbehavingServer

from .support import assert_idle, connected, mocked, recorded, retry

pytestmark = pytest.mark.anyio


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
