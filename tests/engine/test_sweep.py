"""One sweep for all timeouts of a loop means the same as a timer for each."""

from __future__ import annotations

import asyncio
import gc
import math
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resilience import CircuitBreaker, Pipeline, Retry, TimedOutError, Timeout, clock
from resilience.running import _deadlines
from resilience.running._sweep import Sweep
from resilience.testing import VirtualClock, run
from tests.support.rules import LONG

from .nested import Enclose, Program, Victim, limits, model, ours, victims
from .scripts import spread
from .world import on_fast_path

EXAMPLES = 5000 if LONG else 300
relaxed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not LONG,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def sweep_of(function: Any) -> Sweep:
    """The sweep of a decorated function."""
    sweep = function.__globals__["sweep"]
    assert isinstance(sweep, Sweep)
    return sweep


def timers(loop: asyncio.AbstractEventLoop) -> list[Any]:
    """What a loop still has to do some time."""
    return [timer for timer in vars(loop)["_scheduled"] if not timer.cancelled()]


def hush(loop: asyncio.AbstractEventLoop, context: Any) -> None:
    """Asyncio would log that a task was never finished."""


def balanced() -> None:
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


# The model.


def traced(make: Callable[[list[float]], Enclose], seconds: list[float], tasks: list[Victim]) -> list[Any]:
    program = Program(seconds, make(seconds))
    virtual = VirtualClock()
    with virtual.installed():
        virtual.run(program.main, tasks)
    assert not _deadlines._alarms
    # A TaskGroup cancels its tasks in no particular order.
    return sorted(program.trace, key=lambda note: note[:2])


@relaxed
@given(limits, victims)
def test_nested_timeouts_and_cancellations_come_out_as_with_the_standard_librarys(
    quanta: list[int], tasks: list[Victim]
) -> None:
    seconds = [spread(length, 500 + place) for place, length in enumerate(quanta)]
    assert traced(ours, seconds, tasks) == traced(model, seconds, tasks)


@relaxed
@given(
    st.lists(st.tuples(st.floats(0, 50), st.floats(0, 20)), min_size=1, max_size=30),
    st.floats(1e-3, 10),
)
def test_a_deadline_is_never_early_and_as_exact_as_a_timer(calls: list[tuple[float, float]], seconds: float) -> None:
    pipeline = Pipeline(Timeout(seconds))
    resolution = 2e-9  # what loops round timers to

    async def one(start: float, length: float) -> None:
        await asyncio.sleep(start)
        began = clock.now()
        outcome = await pipeline.outcome(asyncio.sleep, length)
        took = clock.now() - began
        if outcome.ok:
            assert took <= seconds + resolution
        else:
            assert length >= seconds - resolution
            assert took == pytest.approx(seconds, abs=resolution)

    async def main() -> None:
        await asyncio.gather(*(one(start, length) for start, length in calls))

    run(main)


# What the sweep has to look after by itself.


def test_a_call_that_ignores_its_cancellation_does_not_keep_the_others_from_their_deadlines() -> None:
    pipeline = Pipeline(Timeout(2.0))

    async def stubborn() -> str:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            await asyncio.sleep(50)
        return "at last"

    async def main() -> None:
        first = asyncio.create_task(pipeline.call(stubborn))
        await asyncio.sleep(1.9)
        for _ in range(5):
            began = clock.now()
            with pytest.raises(TimedOutError):
                await pipeline.call(asyncio.sleep, 30)
            assert clock.now() == began + 2.0
        assert await first == "at last"
        assert clock.now() == 52.0

    run(main)


@pytest.mark.parametrize("between", [[], [Retry(attempts=3, on=KeyError)], [CircuitBreaker()]])
def test_what_outlives_the_shortest_of_several_deadlines_is_ended_by_the_next(between: list[Any]) -> None:
    pipeline = Pipeline(Timeout(10.0, name="outer"), *between, Timeout(2.0, name="inner"))
    assert "sweep" in pipeline.source

    async def stubborn() -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            await asyncio.sleep(100)

    async def main() -> None:
        with pytest.raises(TimedOutError) as caught:
            await pipeline.call(stubborn)
        assert (caught.value.policy, clock.now()) == ("outer", 10.0)
        balanced()

    run(main)


def test_the_same_policy_recursively() -> None:
    fast: list[bool] = []
    pipeline = Pipeline(Timeout(4.0))

    @pipeline
    async def down(levels: int) -> float:
        fast.append(on_fast_path())
        await asyncio.sleep(1)
        return await down(levels - 1) if levels else clock.now()

    async def main() -> None:
        assert await down(2) == 3.0
        with pytest.raises(TimedOutError):
            await down(20)
        assert clock.now() == 7.0
        balanced()

    run(main)
    # The outermost is in the table; those inside it have timers of their own.
    assert fast == [True, False, False, True, False, False, False]


def test_an_idle_sweep_leaves_no_timer() -> None:
    @Pipeline(Timeout(8.0))
    async def work(seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for seconds in (0.0, 1.0, 20.0):
            with suppress(TimedOutError):
                await work(seconds)
            assert len(timers(loop)) <= 1
            await asyncio.sleep(2.1)
            assert timers(loop) == []
        sweep = sweep_of(work)
        assert (sweep.live, sweep.alarms, sweep.ticking) == ({}, {}, False)

    run(main)
    assert sweep_of(work) not in _deadlines.sweeps


def test_no_task_is_kept_after_its_call() -> None:
    @Pipeline(Timeout(8.0), Retry(attempts=2))
    async def work(seconds: float, error: type[Exception] | None) -> None:
        await asyncio.sleep(seconds)
        if error:
            raise error

    async def main() -> None:
        tasks = [
            asyncio.create_task(work(seconds, error)) for seconds in (0.0, 7.0, 20.0) for error in (None, KeyError)
        ]
        cancelled = asyncio.create_task(work(20.0, None))
        asyncio.get_running_loop().call_later(7.5, cancelled.cancel)
        tasks.append(cancelled)
        await asyncio.wait(tasks)
        outcomes = ["cancelled" if task.cancelled() else type(task.exception()).__name__ for task in tasks]
        assert outcomes == ["NoneType", "KeyError", "NoneType", *["TimedOutError"] * 3, "cancelled"]
        dead = [weakref.ref(task) for task in tasks]
        tasks.clear()
        del cancelled
        gc.collect()
        assert [ref() for ref in dead] == [None] * 7

    run(main)


def test_a_loop_that_was_blocked_past_the_deadline_ends_the_call_at_once() -> None:
    virtual = VirtualClock()

    @Pipeline(Timeout(1.0))
    async def work() -> None:
        virtual.advance(60.0)  # as time.sleep would
        await asyncio.sleep(1)

    async def main() -> None:
        with pytest.raises(TimedOutError):
            await work()
        assert clock.now() == 60.0

    with virtual.installed():
        virtual.run(main)


def task_of_another_make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
    """A task that is no asyncio.Task but the one written in Python."""
    return vars(asyncio.tasks)["_PyTask"](coro, loop=loop, **options)


factories: list[Any] = [None, task_of_another_make]
if sys.version_info >= (3, 12):
    factories.append(asyncio.eager_task_factory)


@pytest.mark.parametrize("factory", factories)
def test_tasks_of_every_kind_have_deadlines_of_their_own(factory: Any) -> None:
    @Pipeline(Timeout(2.0))
    async def work(seconds: float) -> float:
        child = asyncio.create_task(outcome(seconds + 1)) if seconds < 3 else None
        await asyncio.sleep(seconds)
        return seconds if child is None else await child

    async def outcome(seconds: float) -> float:
        try:
            return await work(seconds)
        except TimedOutError:
            return -clock.now()

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        results = await asyncio.gather(*(asyncio.create_task(outcome(seconds)) for seconds in (0.5, 1.5, 3.0)))
        assert results == [-2.0, -2.0, -2.0]
        assert await outcome(0.0) == 1.0 + 2.0 - 3.0 or clock.now() > 2.0
        balanced()

    run(main)


# Parts of results that live on.


async def part(sweep: Sweep, deadline: float, seconds: float) -> str:
    """Wait for one part; how it ended."""
    alarm = sweep.part(deadline)
    if alarm is None:
        return "not taken"
    try:
        await asyncio.sleep(seconds)
    except BaseException as error:
        return "timed out" if alarm.disarm(error) else type(error).__name__
    assert not alarm.disarm(None)
    return "came"


def test_parts_share_the_deadline_of_the_whole() -> None:
    async def main() -> None:
        sweep = Sweep([4.0])
        assert await part(sweep, 4.0, 1.5) == "came"
        await asyncio.sleep(0.7)
        assert await part(sweep, 4.0, 30.0) == "timed out"
        assert clock.now() == 4.0
        assert (sweep.parts, sweep.alarms) == ({}, {})
        balanced()
        assert await part(sweep, 4.0, 1.0) == "not taken", "the deadline is over"
        assert await part(sweep, 5.0 + 1 / 64, 0.5) == "came", "of another whole"
        assert await part(sweep, 5.5, 0.5) == "not taken", "it would be looked at too late"

    run(main)


def test_a_part_with_an_early_deadline_is_not_hidden_behind_those_that_came_first() -> None:
    async def main() -> None:
        sweep = Sweep([4.0])
        await asyncio.sleep(2.5)
        young = asyncio.create_task(part(sweep, 6.5, 30.0))
        await asyncio.sleep(0)
        assert await part(sweep, 4.25, 30.0) == "timed out"
        assert clock.now() == 4.25
        assert await young == "timed out"
        assert clock.now() == 6.5

    run(main)


def test_who_is_in_a_table_or_being_cancelled_waits_for_parts_by_itself() -> None:
    async def main() -> None:
        sweep = Sweep([4.0])
        task = sweep.attach()
        assert task is not None
        sweep.live[task] = 0.0
        assert sweep.part(4.0) is None
        del sweep.live[task]
        alarm = sweep.part(4.0)
        assert alarm is not None
        assert sweep.part(4.0) is None
        alarm.disarm(None)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1)
        assert sweep.part(4.0) is None
        task.uncancel()
        alarm = sweep.part(4.0)
        assert alarm is not None
        alarm.disarm(None)

    run(main)


@pytest.mark.parametrize(("seconds", "outcome"), [(1.0, "CancelledError"), (3.5, "CancelledError"), (4.5, "timed out")])
def test_a_cancellation_from_outside_is_not_taken_for_the_deadline_of_a_part(seconds: float, outcome: str) -> None:
    async def main() -> None:
        sweep = Sweep([4.0])
        waiting = asyncio.create_task(part(sweep, 4.0, 30.0))
        await asyncio.sleep(seconds)
        waiting.cancel()
        assert await waiting == outcome
        assert waiting.cancelling() == (outcome != "timed out")
        assert (sweep.parts, sweep.alarms, _deadlines._alarms) == ({}, {}, {})

    run(main)


def test_the_deadline_of_a_part_is_known_inside() -> None:
    async def main() -> None:
        alarm = Sweep([4.0]).part(3.0)
        assert alarm is not None
        assert _deadlines.current_deadline() == 3.0
        alarm.disarm(None)
        assert _deadlines.current_deadline() is None

    run(main)


def test_a_sweep_serves_one_loop_as_long_as_it_has_parts_there() -> None:
    sweep = Sweep([4.0])
    entered = asyncio.Event()

    async def waits() -> None:
        alarm = sweep.part(clock.now() + 4.0)
        assert alarm is not None
        entered.set()
        await asyncio.sleep(0.05)
        alarm.disarm(None)

    async def asks() -> bool:
        alarm = sweep.part(clock.now() + 4.0)
        if alarm is not None:
            alarm.disarm(None)
        return alarm is not None

    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    task = first.create_task(waits())
    first.run_until_complete(entered.wait())
    assert not second.run_until_complete(asks())
    first.run_until_complete(task)
    assert second.run_until_complete(asks())
    for loop in (first, second):
        loop.close()


def test_parts_of_a_loop_that_is_closed_are_forgotten() -> None:
    sweep = Sweep([4.0])

    async def left() -> None:
        assert sweep.part(clock.now() + 4.0) is not None

    asyncio.run(left())
    assert sweep.parts
    asyncio.run(left())
    assert len(sweep.parts) == 1


# Several loops.


def test_one_loop_after_another() -> None:
    @Pipeline(Timeout(0.02))
    async def work(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    for _ in range(3):
        assert asyncio.run(work(0)) == "done"
        with pytest.raises(TimedOutError):
            asyncio.run(work(5))


def test_two_loops_in_turn_with_calls_under_way_in_both() -> None:
    virtual = VirtualClock()
    pipeline = Pipeline(Timeout(2.0))
    ended: list[tuple[str, float]] = []

    async def call(name: str) -> None:
        with pytest.raises(TimedOutError):
            await pipeline.call(asyncio.sleep, 30)
        ended.append((name, clock.now()))

    with virtual.installed():
        loops = {name: virtual.loop() for name in "ab"}
        tasks = {name: loop.create_task(call(name)) for name, loop in loops.items()}
        for _ in range(4):  # 0.3 s of each
            for loop in loops.values():
                loop.run_until_complete(asyncio.sleep(0.3))
        loops["a"].run_until_complete(tasks["a"])
        loops["b"].run_until_complete(tasks["b"])
        for loop in loops.values():
            loop.close()
    # The clock is one for both; b began when a had run for 0.3 s.
    assert [name for name, _ in ended] == ["a", "b"]
    assert all(2.0 <= moment <= 3.0 for _, moment in ended)
    assert not _deadlines._alarms


def test_a_sweep_that_changes_loops_has_one_timer_in_the_one_it_serves() -> None:
    virtual = VirtualClock()

    @Pipeline(Timeout(40.0))
    async def work(seconds: float) -> None:
        await asyncio.sleep(seconds)

    with virtual.installed():
        loops = [virtual.loop(), virtual.loop()]
        for _ in range(10):
            for loop in loops:
                loop.run_until_complete(work(0.0))
        loops[0].run_until_complete(work(15.0))  # the timers from before come due meanwhile
        assert len(timers(loops[0])) == 1
        for loop in loops:
            loop.close()


@pytest.mark.parametrize("age", [0.1, 1.9])  # before and after it has an exact alarm
def test_a_loop_closed_with_calls_under_way_does_not_spoil_the_next(age: float) -> None:
    virtual = VirtualClock()

    @Pipeline(Timeout(4.0), Retry(), Timeout(2.0))
    async def work(seconds: float) -> bool:
        await asyncio.sleep(seconds)
        return on_fast_path()

    with virtual.installed():
        loop = virtual.loop()
        loop.set_exception_handler(hush)
        coroutine = work(3.0)
        task = loop.create_task(coroutine)
        loop.run_until_complete(asyncio.sleep(age))
        loop.close()
        assert virtual.run(work, 1.0) is True
        with pytest.raises(TimedOutError):
            virtual.run(work, 5.0)
        coroutine.close()  # what happens to it when it is destroyed
    assert not task.done()
    assert (sweep_of(work).live, sweep_of(work).alarms, _deadlines._alarms) == ({}, {}, {})


def test_sweeps_of_ended_loops_are_forgotten() -> None:
    async def noop() -> None: ...

    def one() -> None:
        asyncio.run(Pipeline(Timeout(60.0))(noop)())

    for _ in range(5):
        one()
    ended = [sweep for sweep in _deadlines.sweeps if isinstance(sweep, Sweep) and sweep.loop and sweep.loop.is_closed()]
    assert len(ended) <= 1


def test_two_loops_in_two_threads_at_once() -> None:
    pipeline = Pipeline(Timeout(0.1))
    fast: Counter[bool] = Counter()
    both = threading.Barrier(2)

    async def work() -> None:
        fast[on_fast_path()] += 1
        await asyncio.to_thread(both.wait, 10)  # both calls are under way
        await asyncio.sleep(10)

    async def main() -> float:
        began = time.monotonic()
        with pytest.raises(TimedOutError):
            await pipeline.call(work)
        balanced()
        return time.monotonic() - began

    took: list[float] = []
    threads = [threading.Thread(target=lambda: took.append(asyncio.run(main()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(took) == 2
    assert all(0.1 <= seconds < 5 for seconds in took)
    assert fast == {True: 1, False: 1}  # whoever came second found the table taken


def test_a_loop_that_moves_to_another_thread_is_followed() -> None:
    @Pipeline(Timeout(10.0))
    async def work() -> int:
        return threading.get_ident()

    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(work()) == sweep_of(work).thread
    moved: list[int] = []
    thread = threading.Thread(target=lambda: moved.append(loop.run_until_complete(work())))
    thread.start()
    thread.join(10)
    loop.close()
    assert moved == [sweep_of(work).thread]


def test_in_real_time() -> None:
    @Pipeline(Timeout(0.03))
    async def work() -> None:
        await asyncio.sleep(5)

    async def one(delay: float) -> float:
        await asyncio.sleep(delay)
        began = time.monotonic()
        with pytest.raises(TimedOutError):
            await work()
        return time.monotonic() - began

    async def main() -> list[float]:
        return await asyncio.gather(*(one(number / 250) for number in range(10)))

    took = asyncio.run(main())
    assert min(took) >= 0.03 - time.get_clock_info("monotonic").resolution - 1e-6
    assert sorted(took)[len(took) // 2] < 0.08, "the median, for a busy machine's sake"
    assert math.isfinite(max(took))
