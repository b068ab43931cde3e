"""Playing a script: concurrent callers, the function they call, and what is done to them meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import nullcontext
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import trio

from resilience import RateLimitedError, Timeout, clock, current_deadline
from resilience.call import Call, Lease
from resilience.engine import build
from resilience.running import _deadlines
from resilience.running._sweep import Sweep
from resilience.testing import VirtualClock
from resilience.testing.virtual_time import Backend
from tests.support.failures import DownError

from .lateness import LATENESS, late_wakes
from .scripts import HORIZON, QUANTUM, Attempt, Caller, Script, spread
from .world import World, describe, on_fast_path


class StopError(BaseException):
    """Neither an Exception nor a cancellation."""


class Closable:
    """A result that wants to be closed when it is thrown away."""

    def __init__(self, note: Any) -> None:
        self.note = note

    async def aclose(self) -> None:
        self.note("closed")

    def __repr__(self) -> str:
        return "Closable"


class Stage:
    """One run of a script."""

    def __init__(self, script: Script, seen: Counter[str], together: bool) -> None:
        self.script = script
        self.seen = seen
        self.together = together
        self.world = World(script, together)
        self.counts: Counter[int] = Counter()
        timeouts = [leaf.seconds for leaf in self.world.leaves if isinstance(leaf, Timeout)]
        self.shortest = min(timeouts, default=1.0)
        pipeline = self.world.pipeline

        @pipeline
        async def work(caller: int, /, depth: int = 0, *rest: Any, steady: bool = True, **extra: Any) -> Any:
            return await self.body(caller, depth)

        def key(caller: int, *args: Any) -> str:
            return script.callers[caller].key

        self.work = work
        self.keyed_work = pipeline.bind(key=key)(self.body)

    async def body(self, index: int, depth: int = 0) -> Any:
        """What is protected."""
        attempts = self.script.callers[index].attempts
        turn = self.counts[index]
        self.counts[index] += 1
        self.seen["attempts"] += 1
        self.seen["fast"] += on_fast_path()
        self.world.note(index, depth, "begins", current_deadline())
        if depth or turn >= 8:
            await anyio.sleep(spread(9, 7000 + index))
            return "good"
        attempt = attempts[min(turn, len(attempts) - 1)]
        try:
            for place, (kind, length) in enumerate(attempt.steps):
                await self.step(index, kind, length, place)
            return self.end(attempt)
        finally:
            self.world.note(index, depth, "ends")

    async def step(self, index: int, kind: str, length: int, place: int) -> None:
        """One step of an attempt."""
        seconds = spread(length, index * 10 + place)
        match kind:
            case "sleep":
                await anyio.sleep(seconds)
            case "checkpoint":
                await anyio.lowlevel.checkpoint()
            case "hang":
                await anyio.sleep_forever()
            case "until_timeout":  # ends at the very moment of a deadline
                await anyio.sleep(self.shortest)
            case "stubborn":
                try:
                    await anyio.sleep(seconds * 16)
                except anyio.get_cancelled_exc_class():
                    self.world.note(index, "swallows a cancellation")
            case "scope":
                with anyio.move_on_after(seconds):
                    await anyio.sleep_forever()
            case _:
                outcome = await self.world.pipeline.outcome(self.body, index, 1)
                # A refusal that comes as a value was perhaps never raised: then it has no context.
                self.world.note(index, "called itself", describe(outcome.error, context=not outcome.rejected))
                try:
                    self.world.note(index, "and again", repr(await self.work(index, 1)))
                except Exception as error:
                    self.world.note(index, "and again", describe(error))

    def end(self, attempt: Attempt) -> Any:
        """How an attempt ends."""
        match attempt.end:
            case "down":
                raise DownError("down")
            case "key":
                raise KeyError("key")
            case "rejected":
                raise RateLimitedError("elsewhere", retry_after=8 * QUANTUM)
            case "base":
                raise StopError
            case "closable":
                return Closable(self.world.note)
            case value:
                return value

    async def use(self, index: int, caller: Caller) -> Any:
        """Call in one of the ways."""
        pipeline = self.world.pipeline
        match caller.use:
            case "function":
                return await self.work(index, 0, "rest", steady=False, extra=1)
            case "call":
                return await pipeline.call(self.body, index)
            case "outcome":
                outcome = await pipeline.outcome(self.body, index)
                return outcome.value
            case "bound":
                return await pipeline.bind(key=caller.key, cost=caller.cost).call(self.body, index)
            case "bound_function":
                return await self.keyed_work(index)
            case _:
                return await self.lease(index, caller)

    async def lease(self, index: int, caller: Caller) -> Any:
        """Hold the result as adapters do."""
        lease = Lease()
        pipeline = self.world.pipeline
        call = Call(pipeline.operation, self.body, (index,), key=caller.key, cost=caller.cost, lease=lease)
        result = await pipeline.run(call)
        self.world.note(index, "holds", repr(result))
        try:
            for turn in range(2):
                await lease.step(partial(anyio.sleep, spread(20, 8000 + index * 2 + turn)))
        except BaseException as error:
            lease.close(error)
            raise
        lease.close(DownError("broke") if caller.cost == 2 else None)
        return result

    async def caller(self, index: int, caller: Caller) -> None:
        """One task, from its start to what comes of it."""
        LATENESS.set(spread(0, 4000 + index))
        # Together: at one of four instants.
        await anyio.sleep((caller.start & ~127) * QUANTUM if self.together else spread(caller.start, 5000 + index))
        cause = RuntimeError("what the caller is busy with") if caller.cost == 2 else None
        try:
            try:
                if cause is not None:
                    raise cause
                result = await self.use(index, caller)
            except RuntimeError as error:
                if error is not cause:
                    raise
                result = await self.use(index, caller)  # from inside an `except` block
            self.world.note(index, "returned", repr(result))
        except BaseException as error:
            self.world.note(index, "raised", describe(error))
            if not isinstance(error, Exception | StopError):
                raise
        finally:
            task = _deadlines.current_asyncio_task()
            if task is not None:
                self.world.note(index, "cancelling", task.cancelling())

    async def acts(self) -> None:
        """What is done by hand, in the order of time."""
        for place, (moment, what, which) in enumerate(sorted(self.script.acts)):
            await anyio.sleep(max(spread(0, 9500 + place), spread(moment, 9000 + place) - clock.now()))
            with anyio.move_on_after(10):  # draining may take for ever
                await self.world.act(what, which)


async def play(stage: Stage) -> None:
    """Run everybody to the end, then let what is left of timers run out."""
    callers = [partial(stage.caller, index, caller) for index, caller in enumerate(stage.script.callers)]
    cancels = [caller.cancel for caller in stage.script.callers]
    moments = [
        spread(HORIZON if cancel is None else caller.start + cancel, 6000 + index)
        for index, (caller, cancel) in enumerate(zip(stage.script.callers, cancels, strict=True))
    ]
    async with anyio.create_task_group() as group:
        group.start_soon(stage.acts)
        await (_play_asyncio if _deadlines.current_asyncio_task() else _play_trio)(callers, moments)
    stage.world.look()
    await anyio.sleep(2000)
    stage.world.look()
    loop = None if _deadlines.current_asyncio_task() is None else asyncio.get_running_loop()
    ticking = [sweep for sweep in _deadlines.sweeps if isinstance(sweep, Sweep) and sweep.loop is loop]
    assert not ticking, "a sweep ticks for nobody"
    assert not _deadlines._alarms, "an alarm was forgotten"


async def _play_asyncio(callers: list[Any], moments: list[float]) -> None:
    tasks = [asyncio.ensure_future(caller()) for caller in callers]
    loop = asyncio.get_running_loop()
    timers = [loop.call_at(moment, task.cancel) for task, moment in zip(tasks, moments, strict=True)]
    for index, task in enumerate(tasks):  # what swallows a cancellation gets another
        timers += [loop.call_at(spread(HORIZON + 1000 * turn, 6600 + index), task.cancel) for turn in range(1, 30)]
    await asyncio.wait(tasks)
    for timer in timers:
        timer.cancel()
    for task in tasks:
        if not task.cancelled():
            task.result()


async def _play_trio(callers: list[Any], moments: list[float]) -> None:
    async def cancelled(caller: Any, moment: float) -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel, scope, moment)
                await caller()
                nursery.cancel_scope.cancel()

    async def cancel(scope: trio.CancelScope, moment: float) -> None:
        await trio.sleep_until(moment)
        scope.cancel()

    async with trio.open_nursery() as nursery:
        for caller, moment in zip(callers, moments, strict=True):
            nursery.start_soon(cancelled, caller, moment)


def run(script: Script, backend: Backend, fused: bool, seen: Counter[str]) -> list[tuple[Any, ...]]:
    """The trace of a script on the fast path or on the plain one."""
    from trio._core import _run

    before, build.fused = build.fused, fused
    _run._r.seed(0)  # trio shuffles what can run
    virtual = VirtualClock()
    together = script.together and backend == "asyncio"  # under trio they would run in no order
    try:
        with virtual.installed(), nullcontext() if together else late_wakes():
            stage = Stage(script, seen, together)
            virtual.run(play, stage, backend=backend)
    finally:
        build.fused = before
    return stage.world.trace
