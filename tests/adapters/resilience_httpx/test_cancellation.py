"""Cancelled at any await: no permit and no connection is left in use, and no verdict comes of it.

An HTTP/2 connection is given up after each such request: what a cancelled request had not written yet is lost to the
connection in both libraries, with or without us, and the next request over it may hang or fail.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any

import anyio
import pytest

from resilience import Bulkhead, CircuitBreaker, Pipeline, Timeout
from resilience_httpx import FAILURES, ResilientTransport, StreamTimeout
from tests.support.http_server import Answer, MisbehavingServer
from tests.support.rules import LONG

from .matrix import Case, cases
from .support import assert_unused, retry

# Generators that send a body are left to the garbage collector by both libraries, and trio says so.
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
]


class Interrupted:
    """Awaits some work and calls `interrupt` when it suspends for the `at`-th time."""

    def __init__(self, work: Coroutine[Any, Any, None], at: int, interrupt: Callable[[], object]) -> None:
        self.awaits = 0
        self._work = work
        self._at = at
        self._interrupt = interrupt

    def __await__(self) -> Generator[Any, Any, None]:
        answer: Any = None
        error: BaseException | None = None
        while True:
            try:
                wanted = self._work.send(answer) if error is None else self._work.throw(error)
            except StopIteration:
                return
            self.awaits += 1
            if self.awaits == self._at:
                self._interrupt()
            answer, error = None, None
            try:
                answer = yield wanted
            except BaseException as raised:
                error = raised


class Noted:
    """A transport that notes what became of every attempt."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self._pool = inner._pool
        self.ended = 0
        """Attempts that ended by themselves."""
        self.failed = 0

    async def handle_async_request(self, request: Any) -> Any:
        try:
            response = await self.inner.handle_async_request(request)
        except Exception:
            self.failed += 1
            self.ended += 1
            raise
        self.failed += response.status_code in FAILURES
        self.ended += 1
        return response


class World:
    """Requests over one pool, one after the other, each cancelled somewhere."""

    def __init__(self, lib: Any, server: MisbehavingServer, http2: bool, seed: int) -> None:
        self.cancelled = self.finished = 0
        self._lib = lib
        self._server = server
        self._draws = random.Random(seed)
        self._cases = list(cases(http2))
        self._http2 = http2
        self._inner = self._pool()
        self._longest: defaultdict[str, int] = defaultdict(lambda: 20)

    async def run(self, runs: int) -> None:
        for number in range(runs):
            await self._one(self._draws.choice(self._cases), f"/{number}")
            if self._http2:
                await self._inner.aclose()
                self._inner = self._pool()
            if not number % 100:
                self._server.forget()
        await self._inner.aclose()
        await self._server.until(lambda: self._server.connections == 0)

    def _pool(self) -> Any:
        return self._lib.AsyncHTTPTransport(verify=False, http1=not self._http2, http2=self._http2)

    async def _one(self, case: Case, path: str) -> None:
        outside, inside = Bulkhead(1, name="outside"), Bulkhead(1, name="inside")
        breaker, noted = CircuitBreaker(minimum_calls=100), Noted(self._inner)
        guards = (outside, Timeout(30), retry(3, budget=None), breaker, inside, Timeout(20))
        limits = self._draws.choice([None, None, StreamTimeout(first=10, item=10)])
        transport: Any = ResilientTransport(Pipeline(*guards), noted, stream_timeout=limits)  # type: ignore[arg-type]
        client = self._lib.AsyncClient(transport=transport)
        broken = await self._cancelled(case, self._request(client, case, path))
        metrics = breaker.metrics()
        assert (outside.in_use(), inside.in_use()) == (0, 0), case
        assert metrics.calls <= noted.ended, case
        assert metrics.failures <= noted.failed + broken, case
        assert_unused(self._inner)

    async def _request(self, client: Any, case: Case, path: str) -> None:
        url = self._server.answer(path, *case.answers)
        if case.redirect:
            url = self._server.answer(f"{path}/old", Answer(case.redirect, b"", {"Location": path}))
        request: dict[str, Any] = {"url": url, "follow_redirects": True, **case.request()}
        if not case.stream:
            await client.request(**request)
            return
        async with client.stream(**request) as response:
            async for _ in response.aiter_bytes():
                pass

    async def _cancelled(self, case: Case, work: Coroutine[Any, Any, None]) -> bool:
        """Cancel the work at one of its awaits, by one of the ways there are; whether it broke by itself."""
        at = self._draws.choice([0, *[self._draws.randint(1, self._longest[case.fault])] * 3])
        scope = anyio.CancelScope(deadline=anyio.current_time() + 0.03 if case.hangs else float("inf"))
        interrupt: Callable[[], object] = scope.cancel
        task = asyncio.current_task() if self._draws.random() < 0.5 and in_asyncio() else None
        if task is not None:
            interrupt = task.cancel
        interrupted = Interrupted(work, at, interrupt)
        broken = cancelled = False
        with scope:
            try:
                await interrupted
            except self._lib.TransportError:
                broken = True
            except asyncio.CancelledError:
                if task is None or not task.cancelling():
                    raise
                cancelled = True
        if task is not None and task.cancelling():
            task.uncancel()
        if cancelled or scope.cancel_called:
            self.cancelled += 1
        else:
            self.finished += 1
            self._longest[case.fault] = max(self._longest[case.fault], interrupted.awaits)
        return broken


def in_asyncio() -> bool:
    with suppress(RuntimeError):
        return asyncio.current_task() is not None
    return False


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_response_that_is_given_up_is_closed_whoever_cancels(lib: Any, server: MisbehavingServer) -> None:
    url = server.answer("/", *[Answer(503, bytes(100_000))] * 2, Answer(200, bytes(100_000)))
    inner = lib.AsyncHTTPTransport(verify=False)
    client = lib.AsyncClient(transport=ResilientTransport(retry(3, budget=None), inner))
    task = asyncio.current_task()
    assert task is not None
    cancelled, at = True, 0
    while cancelled:
        at += 1
        cancelled = False
        server.answer("/", *[Answer(503, bytes(100_000))] * 2, Answer(200, bytes(100_000)))
        try:
            await Interrupted(client.get(url), at, task.cancel)
        except asyncio.CancelledError:
            task.uncancel()
            cancelled = True
        assert not inner._pool._requests, f"cancelled at await {at}"
    assert at > 10
    await inner.aclose()


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
async def test_cancelled_at_any_await(lib: Any, server: MisbehavingServer, http2: bool) -> None:
    world = World(lib, server, http2, seed=1)
    await world.run(60)
    assert world.cancelled > 20


@pytest.mark.long
@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
async def test_cancelled_at_any_await_five_thousand_times(
    lib: Any, server: MisbehavingServer, http2: bool, anyio_backend: str
) -> None:
    world = World(lib, server, http2, seed=2)
    await world.run((750 if anyio_backend == "asyncio" else 500) if LONG else 200)
    assert world.cancelled > world.finished / 4
