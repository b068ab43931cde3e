# ruff: noqa: PT012, PERF401 - the loop or block is what raises
from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest

from resilience import Pipeline, ResilienceError, Retry, TimedOutError, Timeout, clock, current_deadline
from resilience.events import CallTimedOut
from resilience.running import _deadlines
from resilience.testing import HANG, Delay, EventRecorder, FaultScript, run
from tests.support.engine import Engine

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("seconds", "error", "message"),
    [
        (0, ValueError, "seconds must be greater than 0, got 0"),
        (-1, ValueError, "seconds must be greater than 0, got -1"),
        (math.nan, ValueError, "seconds must be finite, got nan"),
        (math.inf, ValueError, "seconds must be finite, got inf"),
        ("1", TypeError, "seconds must be a number, got '1'"),
        (True, TypeError, "seconds must be a number, got True"),
        (None, TypeError, "seconds must be a number, got None"),
    ],
)
def test_bad_options_are_refused(seconds: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Timeout(seconds)


async def test_a_call_in_time_is_left_alone(engine: Engine) -> None:
    recorder = EventRecorder()
    protected = engine(Timeout(2.0, listeners=[recorder]))
    assert await protected.call(FaultScript(Delay(1.9, "done"))) == "done"
    with pytest.raises(KeyError):
        await protected.call(FaultScript(Delay(1.9, KeyError)))
    await anyio.sleep(10)  # nothing is left behind that could fire
    assert recorder.events == []


async def test_it_ends_a_call_that_takes_too_long(engine: Engine) -> None:
    recorder = EventRecorder()
    protected = engine(Timeout(2.0, name="slow", listeners=[recorder]))

    @protected
    async def fetch() -> None:
        await anyio.sleep_forever()

    with pytest.raises(TimedOutError, match=r"fetch did not finish within 2 s") as caught:
        await fetch()
    assert clock.now() == 2.0
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, ResilienceError)
    assert (caught.value.policy, caught.value.seconds) == ("slow", 2.0)
    assert recorder.events == [CallTimedOut(fetch.__qualname__, "slow", 2.0)]


async def test_cleanup_of_the_call_runs_before_the_error(engine: Engine) -> None:
    steps: list[str] = []

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            steps.append("cleaned")

    with pytest.raises(TimedOutError):
        await engine(Timeout(1)).call(work)
    assert steps == ["cleaned"]


@pytest.mark.parametrize(("outer", "inner", "fired"), [(1.0, 2.0, "outer"), (2.0, 1.0, "inner"), (1.0, 1.0, "outer")])
@pytest.mark.filterwarnings("ignore::resilience.HazardWarning")
async def test_of_nested_timeouts_the_one_that_passed_raises(
    outer: float, inner: float, fired: str, engine: Engine
) -> None:
    recorder = EventRecorder()
    timeouts = Timeout(outer, name="outer", listeners=[recorder]), Timeout(inner, name="inner", listeners=[recorder])
    with pytest.raises(TimedOutError) as caught:
        await engine(*timeouts).call(anyio.sleep_forever)
    assert caught.value.policy == fired
    assert [event.policy for event in recorder.events] == [fired]
    assert clock.now() == 1.0
    await anyio.sleep(5)


async def test_three_levels_and_a_shield_in_between(engine: Engine) -> None:
    async def middle() -> str:
        with pytest.raises(TimedOutError) as caught:
            await engine(Timeout(1.0, name="innermost")).call(anyio.sleep_forever)
        assert caught.value.policy == "innermost"
        with pytest.raises(TimedOutError) as caught:
            await engine(Timeout(1.5, name="second")).call(anyio.sleep_forever)
        assert caught.value.policy == "second"
        await anyio.sleep_forever()
        return "never"

    with pytest.raises(TimedOutError) as caught:
        await engine(Timeout(3.0, name="outermost")).call(middle)
    assert caught.value.policy == "outermost"
    assert clock.now() == 3.0


async def test_the_same_timeout_serves_many_calls_at_once(engine: Engine) -> None:
    protected = engine(Timeout(5.0))
    ended: list[tuple[str, float]] = []

    async def one(seconds: float) -> None:
        outcome = await protected.outcome(anyio.sleep, seconds)
        ended.append(("ok" if outcome.ok else "late", clock.now()))

    async with anyio.create_task_group() as group:
        for index in range(100):
            if index != 50:  # that one ends at the very moment of the deadline: either is right
                group.start_soon(one, index / 10)
    assert ended.count(("late", 5.0)) == 49
    assert sum(kind == "ok" for kind, _ in ended) == 50


async def test_a_cancellation_from_outside_is_never_a_timeout(engine: Engine) -> None:
    for moment in (0.5, 1.0):  # before, and at the very moment of the deadline
        recorder = EventRecorder()
        protected = engine(Timeout(1.0, listeners=[recorder]))
        began = clock.now()
        with anyio.move_on_after(moment) as scope:
            await protected.call(anyio.sleep_forever)
        assert scope.cancelled_caught
        assert clock.now() == began + moment
        assert recorder.events == []


async def test_a_scope_inside_keeps_its_own_cancellation(engine: Engine) -> None:
    async def work() -> str:
        for moment in (0.5, 1.0, 1.5):
            with anyio.move_on_after(moment - clock.now()) as scope:
                await anyio.sleep_forever()
            assert scope.cancelled_caught
        return "done"

    assert await engine(Timeout(2.0)).call(work) == "done"


async def test_a_scope_inside_that_ends_with_the_deadline_does_not_keep_it(engine: Engine) -> None:
    async def work() -> None:
        with anyio.move_on_after(1.0):
            await anyio.sleep_forever()
        await anyio.sleep_forever()

    with pytest.raises(TimedOutError):
        await engine(Timeout(1.0)).call(work)
    assert clock.now() == 1.0


async def test_a_shielded_scope_inside_postpones_it(engine: Engine) -> None:
    async def work() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(3.0)
        await anyio.sleep_forever()

    with anyio.move_on_after(10) as outer:
        outcome = await engine(Timeout(1.0)).outcome(work)
        assert isinstance(outcome.error, TimedOutError)
    assert not outer.cancelled_caught


async def test_task_groups_inside(engine: Engine) -> None:
    stopped: list[int] = []

    async def child(number: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            stopped.append(number)

    async def work() -> None:
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(child, number)

    with pytest.raises(TimedOutError):
        await engine(Timeout(1.0)).call(work)
    assert sorted(stopped) == [0, 1, 2]


async def test_task_groups_around(engine: Engine) -> None:
    protected = engine(Timeout(1.0))
    outcomes: list[Any] = []

    async def child(seconds: float) -> None:
        outcomes.append(await protected.outcome(anyio.sleep, seconds))

    with anyio.move_on_after(5) as scope:
        async with anyio.create_task_group() as group:
            for seconds in (0.5, 2.0, 3.0):
                group.start_soon(child, seconds)
    assert not scope.cancelled_caught
    assert sorted(outcome.ok for outcome in outcomes) == [False, False, True]


async def test_a_failing_sibling_cancels_it_as_a_cancellation(engine: Engine) -> None:
    recorder = EventRecorder()
    protected = engine(Timeout(1.0, listeners=[recorder]))

    async def fail() -> None:
        await anyio.sleep(1.0)
        raise KeyError("sibling")

    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as group:
            group.start_soon(fail)
            await anyio.sleep(0.5)
            group.start_soon(protected.call, anyio.sleep_forever)
    assert caught.group_contains(KeyError)
    assert not caught.group_contains(TimedOutError)
    assert recorder.events == []


async def test_a_call_that_answers_its_cancellation_with_an_error_raises_that(engine: Engine) -> None:
    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise KeyError("mine")

    with pytest.raises(KeyError):
        await engine(Timeout(1.0)).call(work)
    await anyio.sleep(1)


async def test_deadlines_inside_are_known_and_taken_back(engine: Engine) -> None:
    seen: list[float | None] = []

    async def look() -> None:
        seen.append(current_deadline())

    protected = engine(Timeout(3.0))
    await anyio.sleep(1)
    await protected.call(look)
    await look()
    assert seen == [4.0, None]


async def test_the_earliest_deadline_counts(engine: Engine) -> None:
    async def look() -> float | None:
        return current_deadline()

    async def outer() -> float | None:
        return await engine(Timeout(10.0)).call(look)

    assert await engine(Timeout(3.0)).call(outer) == 3.0
    assert await engine(Timeout(30.0)).call(outer) == 10.0


async def test_a_block(engine: Engine) -> None:
    protected = engine(Timeout(1.0, name="block"))
    async with protected.guard():
        assert current_deadline() == 1.0
    assert current_deadline() is None
    with pytest.raises(TimedOutError) as caught:
        async with protected.guard():
            await anyio.sleep_forever()
    assert caught.value.policy == "block"
    with anyio.move_on_after(0.5) as scope:
        async with protected.guard():
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    with pytest.raises(KeyError):
        async with protected.guard():
            raise KeyError


async def test_a_generator_has_one_deadline_for_all_items(engine: Engine) -> None:
    recorder = EventRecorder()

    @engine(Timeout(1.0, listeners=[recorder]))
    async def numbers() -> AsyncIterator[int]:
        for number in range(10):
            await anyio.sleep(0.3)
            yield number

    seen: list[int] = []
    with pytest.raises(TimedOutError):
        async for number in numbers():
            seen.append(number)
    assert seen == [0, 1, 2]
    assert clock.now() == 1.0
    assert len(recorder.events) == 1


async def test_a_slow_reader_is_not_cancelled_by_the_generators_deadline(engine: Engine) -> None:
    @engine(Timeout(1.0))
    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2
        await anyio.sleep(0.1)
        yield 3

    seen: list[int] = []
    with pytest.raises(TimedOutError):
        async for number in numbers():
            seen.append(number)
            await anyio.sleep(5)  # the reader's own time
            assert current_deadline() is None
    assert seen == [1, 2]


async def test_every_attempt_has_its_own(engine: Engine) -> None:
    script = FaultScript(HANG, HANG, "third")
    protected = engine(Timeout(10.0), Retry(attempts=3, random=lambda: 0.0), Timeout(1.0))
    assert await protected.call(script) == "third"
    assert script.started == [0.0, 1.0, 2.0]


async def test_the_whole_ends_all_attempts(engine: Engine) -> None:
    script = FaultScript(HANG, repeat=True)
    whole = Timeout(2.5, name="whole")
    with pytest.raises(TimedOutError) as caught:
        await engine(whole, Retry(attempts=9, random=lambda: 0.0), Timeout(1.0, name="attempt")).call(script)
    assert caught.value.policy == "whole"
    assert script.running == 0


# What only asyncio has.


def on_asyncio(test: Callable[[], Awaitable[None]]) -> None:
    run(test)
    assert not _deadlines._alarms, "an alarm was left behind"


def balanced() -> None:
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


def test_the_cancellations_of_a_task_balance() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        return "late but here"

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(TimedOutError):
                await Timeout(1.0).call(anyio.sleep_forever)
            balanced()
        assert await Timeout(1.0).call(stubborn) == "late but here"
        balanced()
        await asyncio.sleep(1)

    on_asyncio(main)


def test_nested_timeouts_of_one_moment_balance() -> None:
    async def main() -> None:
        inner = Timeout(1.0, name="inner")
        with pytest.raises(TimedOutError) as caught:
            await Timeout(1.0, name="outer").call(inner.call, anyio.sleep_forever)
        assert caught.value.policy == "outer"
        balanced()

    on_asyncio(main)


@pytest.mark.parametrize("before", [True, False])
def test_a_cancel_that_races_the_deadline_wins(before: bool) -> None:
    recorder = EventRecorder()
    timeout = Timeout(1.0, listeners=[recorder])

    async def victim() -> None:
        try:
            await timeout.call(anyio.sleep_forever)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 1
            raise

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(victim())
        if before:
            loop.call_at(1.0, task.cancel)
            await asyncio.sleep(0)
        else:
            await asyncio.sleep(0)
            loop.call_at(1.0, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert clock.now() == 1.0

    on_asyncio(main)
    assert recorder.events == []


def test_a_cancel_while_the_call_cleans_up_after_its_deadline_wins() -> None:
    async def slow_to_stop() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            await asyncio.sleep(1)

    async def main() -> None:
        task = asyncio.create_task(Timeout(1.0).call(slow_to_stop))
        asyncio.get_running_loop().call_at(1.5, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task

    on_asyncio(main)


@pytest.mark.parametrize(("inside", "fired"), [(0.5, "asyncio"), (2.0, "ours")])
def test_asyncio_timeout_inside(inside: float, fired: str) -> None:
    async def work() -> None:
        async with asyncio.timeout(inside):
            await asyncio.sleep(60)

    async def main() -> None:
        with pytest.raises(TimeoutError) as caught:
            await Timeout(1.0).call(work)
        assert ("ours" if isinstance(caught.value, TimedOutError) else "asyncio") == fired
        balanced()

    on_asyncio(main)


@pytest.mark.parametrize(("around", "fired"), [(0.5, "asyncio"), (2.0, "ours"), (1.0, "asyncio")])
def test_asyncio_timeout_around(around: float, fired: str) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(around):
                await Timeout(1.0).call(anyio.sleep_forever)
        assert ("ours" if isinstance(caught.value, TimedOutError) else "asyncio") == fired
        balanced()

    on_asyncio(main)


def test_asyncio_task_groups_inside_and_around() -> None:
    async def group_of_two() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(60))
            group.create_task(asyncio.sleep(60))

    async def failing_group() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(60))
            group.create_task(FaultScript(Delay(0.5, KeyError("child")))())
            await asyncio.sleep(60)  # in the body: waiting in its exit, 3.11's TaskGroup loses count by itself

    async def main() -> None:
        with pytest.raises(TimedOutError):
            await Timeout(1.0).call(group_of_two)
        balanced()
        with pytest.raises(ExceptionGroup):
            await Timeout(1.0).call(failing_group)
        balanced()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(Timeout(1.0).outcome(anyio.sleep_forever)) for _ in range(3)]
        assert all(isinstance(task.result().error, TimedOutError) for task in tasks)
        balanced()

    on_asyncio(main)


def test_wait_for_and_shield_around_and_inside() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError) as caught:
            await asyncio.wait_for(Timeout(2.0).call(anyio.sleep_forever), 1.0)
        assert not isinstance(caught.value, TimedOutError)
        kept = asyncio.create_task(asyncio.sleep(5, "kept"))

        async def shielded() -> str:
            return await asyncio.shield(kept)

        with pytest.raises(TimedOutError):
            await Timeout(1.0).call(shielded)
        assert await kept == "kept"
        balanced()

    on_asyncio(main)


def test_it_works_in_a_second_run() -> None:
    timeout = Timeout(1.0)

    async def main() -> None:
        with pytest.raises(TimedOutError):
            await timeout.call(anyio.sleep_forever)

    for backend in ("asyncio", "asyncio", "trio", "asyncio"):
        run(main, backend=backend)


if sys.version_info >= (3, 12):

    def test_eager_tasks() -> None:
        async def main() -> None:
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
            timeout = Timeout(1.0)
            quick = asyncio.create_task(timeout.call(FaultScript("at once")))
            slow = [asyncio.create_task(timeout.outcome(anyio.sleep_forever)) for _ in range(3)]
            assert await quick == "at once"
            for task in slow:
                assert isinstance((await task).error, TimedOutError)
                assert task.cancelling() == 0
            balanced()

        on_asyncio(main)


def test_a_pipeline_warns_of_a_timeout_that_never_fires() -> None:
    with pytest.warns(UserWarning, match="the inner timeout of 3 s never fires"):
        Pipeline(Timeout(2.0), Timeout(3.0))
