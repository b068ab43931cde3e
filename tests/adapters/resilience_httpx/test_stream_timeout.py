"""A first-byte timeout belongs to the attempt, a per-item one to the reader; nothing is buffered for either."""

from __future__ import annotations

import contextlib
from typing import Any

import anyio
import pytest

from resilience import Bulkhead, CircuitBreaker, Pipeline, TimedOutError, Timeout
from resilience.events import CallTimedOut
from resilience_httpx import StreamTimeout
from tests.support.http_server import Answer, MisbehavingServer

from .support import connected, mocked, recorded, retry

pytestmark = pytest.mark.anyio

SSE = {"Content-Type": "text/event-stream"}
STREAM = Answer(200, b"data: 1\n\ndata: 2\n\ndata: 3\n\n", SSE, pieces=3, pause=0.01, chunked=True)
SILENT = Answer(200, b"d", SSE, ending="hang", chunked=True)
"""Headers, and then nothing."""


async def test_a_response_without_a_first_byte_is_given_up_and_asked_for_again(
    lib: Any, server: MisbehavingServer
) -> None:
    breaker, bulkhead = CircuitBreaker(), Bulkhead(1)
    pipeline = Pipeline(retry(2), breaker, bulkhead)
    events = recorded(pipeline)
    url = server.answer("/", SILENT, STREAM)
    async with (
        connected(lib, pipeline, stream_timeout=StreamTimeout(first=0.5)) as client,
        client.stream("GET", url) as response,
    ):
        assert response.extensions["resilience"].attempts == 2
        assert bulkhead.in_use() == 1
        assert [line async for line in response.aiter_lines() if line] == ["data: 1", "data: 2", "data: 3"]
    assert bulkhead.in_use() == 0
    assert (breaker.metrics().calls, breaker.metrics().failures) == (2, 1)
    timed_out = [(event.policy, event.seconds) for event in events if isinstance(event, CallTimedOut)]
    assert timed_out == [("StreamTimeout", 0.5)]


@pytest.mark.parametrize("silent", [SILENT, Answer(0, ending="hang")], ids=["after headers", "before headers"])
async def test_without_a_retry_the_first_byte_timeout_belongs_to_both_trees(
    lib: Any, server: MisbehavingServer, silent: Answer
) -> None:
    breaker = CircuitBreaker()
    url = server.answer("/", silent)
    async with connected(lib, breaker, stream_timeout=StreamTimeout(first=0.03), name="chat") as client:
        with pytest.raises(lib.TimeoutException, match=r"chat sent nothing within 0\.03 s") as raised:
            await client.get(url)
    assert isinstance(raised.value, TimedOutError)
    assert (raised.value.policy, raised.value.seconds) == ("StreamTimeout", 0.03)
    assert breaker.metrics().failures == 1


async def test_a_break_before_the_first_byte_is_tried_again(lib: Any, server: MisbehavingServer) -> None:
    url = server.answer("/", Answer(200, b"1", ending="cut"), Answer(200, b"answer"))
    async with connected(lib, retry(2), stream_timeout=StreamTimeout(first=1)) as client:
        assert (await client.get(url)).content == b"answer"
    assert len(server.received("/")) == 2


async def test_an_item_that_does_not_come_ends_the_stream_as_a_failure(lib: Any, server: MisbehavingServer) -> None:
    breaker, bulkhead = CircuitBreaker(), Bulkhead(1)
    pipeline = Pipeline(bulkhead, retry(3), breaker)
    events = recorded(pipeline)
    url = server.answer("/", Answer(200, b"data: 1\n\n?", SSE, ending="hang", chunked=True))
    seen = b""

    async def read(response: Any) -> None:
        nonlocal seen
        async for chunk in response.aiter_raw():
            seen += chunk

    async with connected(lib, pipeline, stream_timeout=StreamTimeout(first=1, item=0.05)) as client:
        async with client.stream("GET", url) as response:
            with pytest.raises(lib.TimeoutException) as raised:
                await read(response)
            assert bulkhead.in_use() == 0
    assert seen == b"data: 1\n\n"
    assert isinstance(raised.value, TimedOutError)
    assert str(raised.value.request.url) == url  # type: ignore[attr-defined]
    assert (breaker.metrics().calls, breaker.metrics().failures) == (1, 1)
    assert len(server.received("/")) == 1, "what was given to the reader cannot be taken back"
    assert [event.seconds for event in events if isinstance(event, CallTimedOut)] == [0.05]


async def test_a_deadline_of_the_whole_goes_before_that_of_an_item(lib: Any, server: MisbehavingServer) -> None:
    url = server.answer("/", Answer(200, b"data: 1\n\n?", SSE, ending="hang", chunked=True))
    policy = Timeout(0.05, name="whole")
    async with connected(lib, policy, stream_timeout=StreamTimeout(item=5)) as client:
        with pytest.raises(TimedOutError) as raised:
            await client.get(url)
    assert raised.value.policy == "whole"


async def test_many_slow_items_are_fine_and_so_is_a_slow_reader(lib: Any, server: MisbehavingServer) -> None:
    url = server.answer("/", Answer(200, b"abcdefgh", pieces=8, pause=0.02, chunked=True))
    got = b""
    async with connected(lib, retry(), stream_timeout=StreamTimeout(item=0.4)) as client:
        async with client.stream("GET", url) as response:
            async for chunk in response.aiter_raw():
                got += chunk
                await anyio.sleep(0.45 if chunk == b"a" else 0)
    assert got == b"abcdefgh"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", [200, 204, 404])
async def test_responses_without_a_body_and_errors_have_no_first_byte(
    lib: Any, server: MisbehavingServer, method: str, status: int
) -> None:
    bulkhead = Bulkhead(1)
    url = server.answer("/", Answer(status, b""))
    async with connected(lib, bulkhead, stream_timeout=StreamTimeout(first=1, item=1)) as client:
        assert (await client.request(method, url)).content == b""
    assert bulkhead.in_use() == 0


async def test_a_request_may_have_limits_of_its_own_or_none(lib: Any, server: MisbehavingServer) -> None:
    url = server.answer("/", Answer(200, b"ab", pieces=2, pause=0.1, chunked=True))
    async with connected(lib, retry(1), stream_timeout=StreamTimeout(item=0.02)) as client:
        with pytest.raises(TimedOutError):
            await client.get(url)
        assert (await client.get(url, extensions={"resilience": {"stream_timeout": None}})).content == b"ab"
    async with connected(lib, retry(1)) as client:
        with pytest.raises(TimedOutError):
            await client.get(url, extensions={"resilience": {"stream_timeout": StreamTimeout(item=0.02)}})


async def test_a_body_in_memory_is_left_as_it_is(lib: Any) -> None:
    def handler(request: Any) -> Any:
        return lib.Response(200, content=b"here")

    async with mocked(lib, retry(), handler, stream_timeout=StreamTimeout(first=1)) as client:
        assert (await client.get("http://a/")).content == b"here"


# Both libraries leave generators of their own to the garbage collector when a reader stops early, and trio says so.
@pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2?\\.:ResourceWarning")
async def test_only_the_first_chunk_is_read_ahead(lib: Any, server: MisbehavingServer) -> None:
    bulkhead = Bulkhead(1)
    url = server.answer("/", Answer(200, b"first?", ending="hang", chunked=True))
    async with connected(lib, bulkhead, stream_timeout=StreamTimeout(first=1)) as client:
        response = await client.send(client.build_request("GET", url), stream=True)
        with anyio.fail_after(5):
            async with contextlib.aclosing(response.aiter_raw()) as chunks:
                assert await anext(chunks) == b"first"
        await response.aclose()
        assert bulkhead.in_use() == 0
        response = await client.send(client.build_request("GET", url), stream=True)
        await response.aclose()
    assert bulkhead.in_use() == 0


async def test_closing_while_another_task_reads_on(lib: Any, server: MisbehavingServer) -> None:
    url = server.answer("/", Answer(200, b"first?", ending="hang", chunked=True))
    errors: list[Exception] = []
    async with connected(lib, Bulkhead(1), stream_timeout=StreamTimeout(first=1)) as client:
        response = await client.send(client.build_request("GET", url), stream=True)

        async def read() -> None:
            try:
                await response.aread()
            except Exception as error:
                errors.append(error)

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await anyio.sleep(0.02)
            await response.aclose()
    assert len(errors) == 1


async def test_cancelled_while_waiting_for_the_first_byte(lib: Any, server: MisbehavingServer) -> None:
    breaker, bulkhead = CircuitBreaker(), Bulkhead(1)
    url = server.answer("/", SILENT)
    async with connected(lib, Pipeline(bulkhead, breaker), stream_timeout=StreamTimeout(first=5)) as client:
        with anyio.move_on_after(0.05):
            await client.get(url)
        assert bulkhead.in_use() == 0
    assert breaker.metrics().calls == 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "StreamTimeout must have a first or an item"),
        ({"first": 0}, ValueError, "first must be greater than 0|first must be above 0|first must"),
        ({"item": float("inf")}, ValueError, "item must be finite"),
        ({"item": "1"}, TypeError, "item must be a number"),
    ],
)
def test_wrong_limits_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        StreamTimeout(**options)
