"""A limiter that shares its frame with nobody lets callers wait there: the same wait as through its hooks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from resilience import Pipeline, RateLimitedError, RateLimiter, Timeout, clock
from resilience.call import Call
from resilience.engine import build
from resilience.events import PermitAwaited
from resilience.testing import EventRecorder, run
from resilience.testing.virtual_time import Backend

from .world import on_fast_path

Use = Callable[[RateLimiter, Callable[..., Awaitable[Any]], str], Awaitable[Any]]


async def _function(limiter: RateLimiter, work: Callable[..., Awaitable[Any]], name: str) -> Any:
    return await limiter(work)(name)


async def _record(limiter: RateLimiter, work: Callable[..., Awaitable[Any]], name: str) -> Any:
    return await limiter.run(Call(limiter.operation, work, (name,)))


async def _outcome(limiter: RateLimiter, work: Callable[..., Awaitable[Any]], name: str) -> Any:
    return (await limiter.outcome(work, name)).value


async def _pipeline(limiter: RateLimiter, work: Callable[..., Awaitable[Any]], name: str) -> Any:
    return await Pipeline(limiter).call(work, name)


USES: list[Use] = [_function, _record, _outcome, _pipeline]


@pytest.fixture(params=[True, False], ids=["fused", "plain"])
def fused(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(build, "fused", request.param)
    return bool(request.param)


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> Backend:
    backend: Backend = request.param
    return backend


class Queue:
    """Callers of one limiter, one after another; what became of each and when."""

    def __init__(self, limiter: RateLimiter, use: Use) -> None:
        self.limiter = limiter
        self.use = use
        self.trace: list[tuple[float, str, str]] = []
        self.fast: set[bool] = set()
        self.scopes: dict[str, anyio.CancelScope] = {}

    async def work(self, name: str) -> str:
        self.fast.add(on_fast_path())
        return "in"

    async def caller(self, name: str) -> None:
        with anyio.CancelScope() as scope:
            self.scopes[name] = scope
            try:
                came = await self.use(self.limiter, self.work, name)
            except RateLimitedError as error:
                came = f"refused, {error.retry_after:g} s"
            self.trace.append((clock.now(), name, came))
        if scope.cancelled_caught:
            self.trace.append((clock.now(), name, "gone"))

    async def fill(self) -> None:
        """Take what may go at once."""
        await self.caller("first")
        self.fast.clear()


@pytest.mark.parametrize("use", USES)
def test_callers_come_in_one_after_another(use: Use, fused: bool, backend: Backend) -> None:
    recorder = EventRecorder()
    queue = Queue(RateLimiter("1/s", burst=1, listeners=[recorder]), use)

    async def main() -> None:
        await queue.fill()
        async with anyio.create_task_group() as group:
            for name in "abc":
                group.start_soon(queue.caller, name)
                await anyio.wait_all_tasks_blocked()

    run(main, backend=backend)
    assert queue.trace[1:] == [(1.0, "a", "in"), (2.0, "b", "in"), (3.0, "c", "in")]
    assert [event.waited for event in recorder.of(PermitAwaited)] == [1.0, 2.0, 3.0]
    assert queue.fast == {fused}


@pytest.mark.parametrize("use", USES)
def test_who_has_no_time_to_wait_is_refused_at_once(use: Use, fused: bool, backend: Backend) -> None:
    limiter = RateLimiter("1/s", burst=1, max_wait=1.5)
    queue = Queue(limiter, use)

    async def main() -> None:
        await queue.fill()
        async with anyio.create_task_group() as group:
            for name in "ab":
                group.start_soon(queue.caller, name)
                await anyio.wait_all_tasks_blocked()
        await Timeout(0.5).call(queue.caller, "c")

    run(main, backend=backend)
    assert queue.trace[1:] == [(0.0, "b", "refused, 2 s"), (1.0, "a", "in"), (1.0, "c", "refused, 1 s")]
    assert limiter.rejected == 2


@pytest.mark.parametrize("use", USES)
def test_who_leaves_the_line_leaves_nothing_behind(use: Use, fused: bool, backend: Backend) -> None:
    limiter = RateLimiter("1/s", burst=1)
    queue = Queue(limiter, use)

    async def main() -> None:
        await queue.fill()
        async with anyio.create_task_group() as group:
            for name in "abcd":
                group.start_soon(queue.caller, name)
                await anyio.wait_all_tasks_blocked()
            for name in "ac":
                await anyio.sleep(0.25)
                queue.scopes[name].cancel()
        assert limiter.line.queues == {}

    run(main, backend=backend)
    assert queue.trace[1:] == [(0.25, "a", "gone"), (0.5, "c", "gone"), (1.0, "b", "in"), (2.0, "d", "in")]


@pytest.mark.parametrize("use", USES)
def test_who_is_cancelled_while_coming_in_makes_room_for_the_next(use: Use, fused: bool) -> None:
    queue = Queue(RateLimiter("1/s", burst=1), use)

    async def main() -> None:
        await queue.fill()
        tasks = [asyncio.ensure_future(queue.caller(name)) for name in "ab"]
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_at(1.0, tasks[0].cancel)  # behind the timer that lets it in
        await asyncio.wait(tasks)
        assert tasks[0].cancelled()

    run(main)
    assert queue.trace[1:] == [(1.0, "b", "in")]


@pytest.mark.parametrize("use", USES)
def test_an_error_after_the_wait_comes_from_the_function_alone(use: Use, fused: bool, backend: Backend) -> None:
    limiter = RateLimiter("1/s", burst=1)

    async def work(name: str) -> str:
        raise KeyError(name)

    async def main() -> None:
        await limiter.outcome(work, "first")
        for name in "ab":
            with pytest.raises(KeyError) as caught:
                await use(limiter, work, name)
            assert (caught.value.args, caught.value.__context__) == ((name,), None)
        assert clock.now() == 2.0

    run(main, backend=backend)


def test_nobody_waits_while_the_limiter_only_looks_on(fused: bool, backend: Backend) -> None:
    limiter = RateLimiter("1/s", burst=1)
    queue = Queue(limiter, _function)

    async def main() -> None:
        await queue.fill()
        limiter.mode = "shadow"
        await queue.caller("a")
        limiter.mode = "enforce"
        await queue.caller("b")

    run(main, backend=backend)
    assert queue.trace[1:] == [(0.0, "a", "in"), (1.0, "b", "in")]
    assert limiter.rejected == 1
