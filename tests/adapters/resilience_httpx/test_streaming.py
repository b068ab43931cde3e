"""Permits, verdicts and deadlines last until the body has been read or closed, however that comes about."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from resilience import (
    Bulkhead,
    CircuitBreaker,
    CircuitOpenError,
    HazardWarning,
    Pipeline,
    TimedOutError,
    Timeout,
    TokenBudget,
)
from resilience_httpx import ResilientTransport
from tests.support.http_server import Answer, MisbehavingServer

from .support import always, assert_idle, connected, mocked, retry

pytestmark = pytest.mark.anyio


class Held:
    """A pipeline whose every permit and verdict can be counted."""

    def __init__(self, *inner: Any) -> None:
        self.outside = Bulkhead(8, name="outside")
        self.breaker = CircuitBreaker()
        self.inside = Bulkhead(8, name="inside")
        self.pipeline = Pipeline(self.outside, retry(2), self.breaker, self.inside, *inner)

    @property
    def permits(self) -> tuple[int, int]:
        return self.outside.in_use(), self.inside.in_use()

    @property
    def verdicts(self) -> tuple[int, int]:
        metrics = self.breaker.metrics()
        return metrics.calls, metrics.failures


LONG = Answer(200, bytes(1_000_000), pieces=4)


async def test_permits_are_held_until_the_body_is_read(lib: Any, server: MisbehavingServer) -> None:
    held = Held()
    url = server.answer("/", Answer(503), LONG)
    async with connected(lib, held.pipeline) as client, client.stream("GET", url) as response:
        assert held.permits == (1, 1)
        assert held.verdicts == (1, 1), "the discarded attempt is judged, the one being read is not"
        assert len(await response.aread()) == 1_000_000
        assert held.permits == (0, 0)
        assert held.verdicts == (2, 1)


async def test_permits_are_free_when_the_client_has_read_the_body(lib: Any, server: MisbehavingServer) -> None:
    held = Held()
    async with connected(lib, held.pipeline) as client:
        await client.get(server.answer("/", LONG))
        assert held.permits == (0, 0)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_responses_without_a_body(lib: Any, server: MisbehavingServer, method: str, status: int) -> None:
    held = Held()
    url = server.answer("/", Answer(status, b""))
    async with connected(lib, held.pipeline) as client:
        async with client.stream(method, url):
            assert held.permits == (1, 1)
        assert held.permits == (0, 0)
        assert (await client.request(method, url)).content == b""
        assert held.permits == (0, 0)
    assert held.verdicts == (2, 0)


async def test_a_response_in_memory_holds_nothing(lib: Any) -> None:
    held = Held()
    async with (
        mocked(lib, held.pipeline, always(lib, content=b"here")) as client,
        client.stream("GET", "http://a/") as response,
    ):
        assert held.permits == (0, 0)
        assert await response.aread() == b"here"
    assert held.verdicts == (1, 0)


# Both libraries leave generators of their own to the garbage collector when a reader stops early, and trio says so.
stops_early = pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2?\\.:ResourceWarning")


@stops_early
async def test_bodies_are_streamed_and_not_collected(lib: Any, server: MisbehavingServer) -> None:
    held = Held()
    url = server.answer("/", Answer(200, b"first...", ending="hang", chunked=True))
    async with connected(lib, held.pipeline) as client, client.stream("GET", url) as response:
        with anyio.fail_after(5):
            async with contextlib.aclosing(response.aiter_raw()) as chunks:
                assert await anext(chunks) == b"first.."


@stops_early
async def test_early_close_frees_everything_and_is_no_failure(lib: Any, server: MisbehavingServer) -> None:
    held = Held()
    url = server.answer("/", LONG)
    async with connected(lib, held.pipeline) as client:
        response = await client.send(client.build_request("GET", url), stream=True)
        async with contextlib.aclosing(response.aiter_raw()) as chunks:
            await anext(chunks)
            assert held.permits == (1, 1)
        await response.aclose()
        assert held.permits == (0, 0)
        await response.stream.aclose()
        await response.stream.aclose()
    assert held.verdicts == (1, 0)


async def test_early_close_finishes_the_inner_stream_before_closing_it(lib: Any) -> None:
    log: list[str] = []

    class Body:
        async def __aiter__(self) -> AsyncIterator[bytes]:
            try:
                yield b"first"
                yield b"second"
            finally:
                log.append("finished")

        async def aclose(self) -> None:
            log.append("closed")

    body: Any = type("AsyncBody", (Body, lib.AsyncByteStream), {})
    transport: Any = ResilientTransport(retry(), lib.MockTransport(always(lib, stream=body())))
    response = await transport.handle_async_request(lib.Request("GET", "http://a/"))
    assert await anext(aiter(response.stream)) == b"first"
    assert log == []
    await response.aclose()
    assert log == ["finished", "closed"]


async def test_a_body_that_is_never_read_can_be_closed(lib: Any, server: MisbehavingServer) -> None:
    held = Held()
    async with connected(lib, held.pipeline) as client:
        response = await client.send(client.build_request("GET", server.answer("/", LONG)), stream=True)
        await response.aclose()
        assert held.permits == (0, 0)


@pytest.mark.parametrize(("ending", "error"), [("cut", "RemoteProtocolError"), ("reset", "ReadError")])
async def test_an_error_in_mid_body_is_a_failure(lib: Any, server: MisbehavingServer, ending: Any, error: str) -> None:
    held = Held()
    url = server.answer("/", Answer(200, bytes(1000), ending=ending, pieces=2, pause=0.01))
    async with connected(lib, held.pipeline) as client:
        async with client.stream("GET", url) as response:
            with pytest.raises(getattr(lib, error)) as raised:
                await response.aread()
            assert held.permits == (0, 0)
        assert type(raised.value) is getattr(lib, error)
        assert str(raised.value.request.url) == url
    assert held.verdicts == (1, 1)
    assert len(server.received("/")) == 1, "what was given to the reader cannot be taken back"


async def test_the_deadline_goes_on_in_the_body(lib: Any, server: MisbehavingServer) -> None:
    held = Held(Timeout(0.1, name="attempt"))
    url = server.answer("/", Answer(200, bytes(1000), ending="hang"))
    async with connected(lib, held.pipeline) as client:
        with pytest.raises(lib.TimeoutException) as raised:
            await client.get(url)
        error: Any = raised.value
        assert isinstance(raised.value, TimedOutError)
        assert (error.policy, str(error.request.url)) == ("attempt", url)
        assert type(error.__cause__) is TimedOutError
    assert held.permits == (0, 0)
    assert held.verdicts == (1, 1)


async def test_of_two_equal_timeouts_the_inner_one_ends_a_body(lib: Any, server: MisbehavingServer) -> None:
    url = server.answer("/", Answer(200, bytes(1000), ending="hang"))
    with pytest.warns(HazardWarning, match="never fires"):
        policy = Pipeline(Timeout(0.6, name="outer"), Timeout(0.6, name="inner"))
    async with connected(lib, policy) as client:
        with pytest.raises(TimedOutError) as raised:
            await client.get(url)
    assert raised.value.policy == "inner"


async def test_a_retry_is_done_with_a_streamed_success_at_its_headers(lib: Any, server: MisbehavingServer) -> None:
    budget = TokenBudget(100.0)
    url = server.answer("/", Answer(200, bytes(1000), ending="reset"))
    budget.reserve(0.0, 50.0)
    async with connected(lib, Pipeline(retry(2, budget=budget))) as client:
        for already in (0, 1):
            async with client.stream("GET", url) as response:
                assert budget.available(0.0) == 50.0 + 1.0 + already
                with pytest.raises(lib.TransportError):
                    await response.aread()
        assert len(server.received("/")) == 2
        async with client.stream("GET", server.answer("/whole", Answer(200, bytes(1000)))) as response:
            assert len(await response.aread()) == 1000
    assert budget.available(0.0) == 53.0


async def test_a_reader_may_take_its_time_between_chunks(lib: Any, server: MisbehavingServer) -> None:
    held = Held(Timeout(5))
    url = server.answer("/", Answer(200, b"abcd", pieces=4, pause=0.005, chunked=True))
    body = b""
    async with connected(lib, held.pipeline) as client, client.stream("GET", url) as response:
        async for chunk in response.aiter_bytes():
            body += chunk
            await anyio.sleep(0.001)
    assert body == b"abcd"
    assert held.verdicts == (1, 0)


@pytest.mark.parametrize(
    "answer",
    [Answer(0, ending="hang"), Answer(200, bytes(1000), ending="hang"), Answer(503, headers={"Retry-After": "60"})],
    ids=["headers", "body", "back-off"],
)
async def test_cancellation_frees_everything_and_has_no_verdict(
    lib: Any, server: MisbehavingServer, answer: Answer
) -> None:
    held = Held(Timeout(100))
    url = server.answer("/", answer)
    async with connected(lib, held.pipeline) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.get, url)
            await server.until(lambda: bool(server.received("/")))
            await anyio.sleep(0.02)
            group.cancel_scope.cancel()
        assert held.permits == (0, 0)
    assert held.verdicts == ((1, 1) if answer.status == 503 else (0, 0))


async def test_a_stream_left_by_a_cancelled_reader_is_closed(lib: Any, server: MisbehavingServer) -> None:
    held = Held()
    url = server.answer("/", Answer(200, bytes(1000), ending="hang"))
    async with connected(lib, held.pipeline) as client:
        with anyio.CancelScope() as scope:
            async with client.stream("GET", url):
                scope.cancel()
                await anyio.sleep(1)
        assert held.permits == (0, 0)
        await server.until(lambda: server.connections == 0)
    assert held.verdicts == (1, 0), "its headers came and nobody wanted more"


async def test_cancellation_at_any_moment_leaks_nothing(lib: Any, server: MisbehavingServer) -> None:
    held = Held(Timeout(1))
    draws = random.Random(7)
    url = server.answer("/", Answer(503, bytes(100)), Answer(200, bytes(50_000), pieces=3, pause=0.001), Answer(408))
    inner = lib.AsyncHTTPTransport()
    async with inner, mocked(lib, held.pipeline, inner.handle_async_request) as client:
        for _ in range(40):
            with anyio.move_on_after(draws.uniform(0, 0.008)), contextlib.suppress(CircuitOpenError):
                await client.get(url)
            assert held.permits == (0, 0)
            assert_idle(inner)


async def closed_while_read(response: Any, held: Held) -> Exception | None:
    """Close a response that another task is reading; what became of the reader."""
    errors: list[Exception] = []

    async def read() -> None:
        try:
            await response.aread()
        except Exception as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await anyio.sleep(0.02)
        await response.aclose()
        assert held.permits == (0, 0)
    return errors[0] if errors else None


async def test_closing_while_another_task_reads(lib: Any, server: MisbehavingServer) -> None:
    held = Held()
    url = server.answer("/", Answer(200, bytes(1000), ending="hang"))
    async with connected(lib, held.pipeline) as client:
        response = await client.send(client.build_request("GET", url), stream=True)
        error = await closed_while_read(response, held)
    assert error is not None


async def test_the_deadline_ends_a_reader_also_of_what_another_task_has_closed(lib: Any) -> None:
    class Deaf(lib.AsyncByteStream):  # type: ignore[misc]
        """Never has anything to say, and goes on when it is closed."""

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> bytes:
            await anyio.sleep_forever()
            return b""

        async def aclose(self) -> None:
            pass

    held = Held(Timeout(0.2, name="ours"))
    async with mocked(lib, held.pipeline, lambda request: lib.Response(200, stream=Deaf())) as client:
        response = await client.send(client.build_request("GET", "http://a/"), stream=True)
        error = await closed_while_read(response, held)
    assert isinstance(error, TimedOutError)
    assert held.verdicts == (1, 0), "to close it was the outcome"
