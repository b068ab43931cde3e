from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience import (
    Backoff,
    Bulkhead,
    Call,
    CircuitBreaker,
    HazardWarning,
    Hedge,
    Lease,
    MemoryStore,
    Operation,
    Pipeline,
    Policy,
    Quantile,
    RatioBudget,
    RejectedError,
    Retry,
    TimedOutError,
    Timeout,
    TokenBudget,
    clock,
    current_deadline,
)
from resilience.events import CallSucceeded, HedgeStarted, HedgeWon
from resilience.settings import PipelineSettings
from resilience.testing import HANG, Delay, EventRecorder, FaultScript, VirtualClock, run
from tests.support.counted import Counted, together
from tests.support.engine import Engine
from tests.support.failures import DownError, broken, is_bad
from tests.support.scopes import cancelled_after

pytestmark = pytest.mark.anyio
WRONG: Any = "soon"
SHARED = TokenBudget()


class Answer:
    """A result that knows whether it was closed, and takes its time for it."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self._log = log

    async def aclose(self) -> None:
        await anyio.sleep(0.25)
        self._log.append(self.name)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((0,), {}, ValueError, "after must be greater than 0, got 0"),
        ((WRONG,), {}, TypeError, "after must be a number, got 'soon'"),
        ((1.0,), {"at_most": 0}, ValueError, "at_most must be at least 1, got 0"),
        ((1.0,), {"on": 5}, TypeError, "on must be exception types, a predicate or a Classifier, got 5"),
        ((1.0,), {"on_result": 5}, TypeError, "on_result must be a predicate on returned values, got 5"),
        ((1.0,), {"max_keys": 0}, ValueError, "max_keys must be at least 1, got 0"),
        ((1.0,), {"name": ""}, ValueError, "name must be a non-empty string, got ''"),
    ],
)
def test_bad_options_are_refused(
    arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Hedge(*arguments, **options)


async def test_an_answer_in_time_is_the_only_one(engine: Engine) -> None:
    recorder = EventRecorder()
    script = FaultScript(Delay(0.9, "up"))
    assert await engine(Hedge(1.0, listeners=[recorder])).call(script, 1, two=2) == "up"
    await anyio.sleep(10)
    assert script.calls == [((1,), {"two": 2})]
    assert not recorder.of(HedgeStarted)


async def test_a_late_call_is_made_again_and_the_first_answer_counts(engine: Engine) -> None:
    recorder = EventRecorder()
    script = FaultScript(HANG, Delay(0.5, "up"))
    assert await engine(Hedge(1.0, listeners=[recorder])).call(script, 1, two=2) == "up"
    assert clock.now() == 1.5
    assert (script.running, script.started) == (0, [0.0, 1.0])
    assert script.calls == [((1,), {"two": 2})] * 2
    (started,), (won,) = recorder.of(HedgeStarted), recorder.of(HedgeWon)
    assert (started.attempt, started.waited) == (2, 1.0)
    assert (won.attempt, won.duration) == (2, 1.5)


async def test_the_first_attempt_may_still_win(engine: Engine) -> None:
    recorder = EventRecorder()
    script = FaultScript(Delay(1.5, "first"), HANG)
    assert await engine(Hedge(1.0, listeners=[recorder])).call(script) == "first"
    assert (clock.now(), script.running) == (1.5, 0)
    assert recorder.of(HedgeStarted)
    assert not recorder.of(HedgeWon)


@pytest.mark.parametrize("hedge_wins", [True, False])
async def test_losers_are_cancelled_and_awaited(hedge_wins: bool, engine: Engine) -> None:
    slow = Counted(seconds=100.0)

    async def call() -> str:
        call_number.append(len(call_number))
        if (call_number[-1] == 0) == hedge_wins:
            await slow.run()
        await anyio.sleep(0.0 if hedge_wins else 2.0)
        return "up"

    call_number: list[int] = []
    assert await engine(Hedge(1.0)).call(call) == "up"
    assert (slow.cancelled, slow.cleaned) == (1, 1)
    assert clock.now() == (1.5 if hedge_wins else 2.5)  # half a second for the loser to clean up


async def test_there_are_so_many_hedges_and_no_more(engine: Engine) -> None:
    script = FaultScript(HANG, HANG, Delay(5.0, "third"))
    assert await engine(Hedge(1.0, at_most=2)).call(script) == "third"
    assert (script.started, script.running, clock.now()) == ([0.0, 1.0, 2.0], 0, 7.0)


async def test_a_failure_before_the_delay_is_raised_at_once(engine: Engine) -> None:
    script = FaultScript(error := DownError(), "up")
    with pytest.raises(DownError) as caught:
        await engine(Hedge(1.0)).call(script)
    assert caught.value is error
    assert not hasattr(error, "__notes__")
    await anyio.sleep(10)
    assert len(script.calls) == 1


@pytest.mark.parametrize("first_fails", [True, False])
async def test_a_failure_never_beats_an_attempt_under_way(first_fails: bool, engine: Engine) -> None:
    fails, succeeds = Delay(2.0, DownError()), Delay(5.0, "up")
    script = FaultScript(*((fails, succeeds) if first_fails else (succeeds, fails)))
    assert await engine(Hedge(1.0)).call(script) == "up"
    assert clock.now() == (6.0 if first_fails else 5.0)


async def test_further_hedges_may_start_when_the_first_attempt_has_failed(engine: Engine) -> None:
    script = FaultScript(Delay(1.5, DownError()), HANG, Delay(0.5, "third"))
    assert await engine(Hedge(1.0, at_most=2)).call(script) == "third"
    assert clock.now() == 2.5


@pytest.mark.parametrize("hedge_is_last", [True, False])
async def test_if_all_fail_the_error_of_the_first_is_raised_as_it_is(hedge_is_last: bool, engine: Engine) -> None:
    first, second = DownError("first"), KeyError("second")
    script = FaultScript(Delay(2.0 if hedge_is_last else 5.0, first), Delay(3.0, second))
    try:
        raise RuntimeError("of the caller")
    except RuntimeError:
        with pytest.raises(DownError) as caught:
            await engine(Hedge(1.0)).call(script)
    assert caught.value is first
    assert first.__cause__ is None
    assert isinstance(first.__context__, RuntimeError)  # as without hedges, and not the other error
    assert not hasattr(first, "__notes__")
    assert clock.now() == (4.0 if hedge_is_last else 5.0)


async def test_values_can_fail_and_are_closed_if_they_are_not_the_answer(engine: Engine) -> None:
    log: list[str] = []
    bad, good, other = (Answer(name, log) for name in ("bad", "good", "other"))
    hedge = Hedge(1.0, on_result=lambda answer: answer is not good)
    assert await engine(hedge).call(FaultScript(Delay(2.0, bad), Delay(5.0, good))) is good
    assert (log, clock.now()) == (["bad"], 6.25)
    log.clear()
    assert await engine(hedge).call(FaultScript(Delay(2.0, bad), Delay(5.0, other))) is bad
    assert log == ["other"]  # all have failed: the first is the outcome


async def test_an_answer_that_comes_although_it_was_cancelled_is_closed(engine: Engine) -> None:
    log: list[str] = []

    async def stubborn(number: int) -> Answer:
        if number == 0:
            try:
                await anyio.sleep(100)
            except anyio.get_cancelled_exc_class():
                return Answer("first", log)  # as no well-behaved code does
        return Answer("second", log)

    numbers = iter(range(2))

    async def call() -> Answer:
        return await stubborn(next(numbers))

    assert (await engine(Hedge(1.0)).call(call)).name == "second"
    assert log == ["first"]


async def test_an_attempt_that_answers_its_cancellation_with_an_error_loses_like_others(engine: Engine) -> None:
    numbers = iter(range(2))

    async def call() -> str:
        if next(numbers):
            return "second"
        try:
            await anyio.sleep(100)
        except anyio.get_cancelled_exc_class():
            raise KeyError("of the clean-up") from None
        return "never"

    assert await engine(Hedge(1.0)).call(call) == "second"


async def test_one_object_that_is_returned_every_time_is_not_closed(engine: Engine) -> None:
    log: list[str] = []
    shared = Answer("shared", log)

    async def call() -> Answer:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(2)
        return shared

    assert await engine(Hedge(1.0)).call(call) is shared
    assert log == []


async def test_a_broken_predicate_is_raised_and_its_value_closed(engine: Engine) -> None:
    log: list[str] = []
    script = FaultScript(Answer("first", log), Delay(2.0, Answer("late", log)), Answer("hedge", log))
    protected = engine(Hedge(1.0, on_result=broken))
    with pytest.raises(ZeroDivisionError):
        await protected.call(script)
    with pytest.raises(ZeroDivisionError):
        await protected.call(script)
    assert sorted(log) == ["first", "hedge", "late"]


async def test_a_value_that_cannot_be_closed_does_no_harm(engine: Engine) -> None:
    class Broken:
        def close(self) -> None:
            raise OSError

    async def discard(result: Any) -> None:
        raise OSError

    hedge = Hedge(1.0, on_result=lambda answer: answer != "good")
    call = Call(Operation("op", discard=discard), FaultScript(Delay(2.0, Broken()), Delay(2.0, "good")))
    assert await engine(hedge).run(call) == "good"


async def test_what_must_not_be_repeated_is_not(engine: Engine) -> None:
    script = FaultScript(Delay(5.0, "up"))
    assert await engine(Hedge(1.0)).run(Call(Operation("op"), script, repeatable=False)) == "up"
    assert clock.now() == 5.0


# The delay.


async def test_the_delay_is_learned(engine: Engine) -> None:
    hedge = Hedge(Quantile(0.9, samples=10))
    protected = engine(hedge)
    assert hedge.delay() is None
    for n in range(10):
        await protected.call(FaultScript(Delay(1.0 + n / 10, "up")))
    assert hedge.delay() == pytest.approx(1.8, rel=0.05)
    began = clock.now()
    script = FaultScript(HANG, "up")
    assert await protected.call(script) == "up"
    assert clock.now() - began == pytest.approx(1.8, rel=0.05)


async def test_before_it_is_known_nothing_is_hedged_or_after_the_delay_to_start_with(engine: Engine) -> None:
    script = FaultScript(Delay(50.0, "up"))
    assert await engine(Hedge(Quantile())).call(script) == "up"
    hedge = Hedge(Quantile(start=2.0))
    assert hedge.delay() == 2.0
    assert await engine(hedge).call(FaultScript(HANG, "up")) == "up"
    assert clock.now() == 52.0


async def test_each_key_learns_for_itself(engine: Engine) -> None:
    hedge = Hedge(Quantile(0.5, samples=1))
    protected = engine(hedge)
    await protected.run(Call(Operation("op"), FaultScript(Delay(1.0, "up")), key="slow"))
    await protected.run(Call(Operation("op"), FaultScript(Delay(0.1, "up")), key="fast"))
    assert hedge.delay(key="slow") == pytest.approx(1.0, rel=0.05)
    assert hedge.delay(key="fast") == pytest.approx(0.1, rel=0.05)
    assert hedge.delay() is None


async def test_hedges_do_not_teach_that_calls_are_fast(engine: Engine) -> None:
    """Half of all first attempts are slow and lose against their hedges: the delay must not shrink."""
    hedge = Hedge(Quantile(0.4, samples=10, start=1.0), budget=None)
    protected = engine(hedge)
    for _ in range(100):
        await protected.call(FaultScript(Delay(1.0, "up")))
        await protected.call(FaultScript(Delay(20.0, "late"), Delay(0.01, "up")))
    assert hedge.delay() == pytest.approx(1.0, rel=0.06)


async def test_failures_teach_nothing(engine: Engine) -> None:
    hedge = Hedge(Quantile(samples=1))
    await engine(hedge).outcome(FaultScript(DownError))
    await engine(Hedge(Quantile(samples=1), on_result=is_bad)).call(FaultScript("bad"))
    assert hedge.delay() is None


# The budget.


async def test_hedges_are_paid_for(engine: Engine) -> None:
    budget = TokenBudget(capacity=30, transient_cost=10, deposit=1)
    protected = engine(Hedge(1.0, budget=budget))
    for left in (21.0, 12.0, 3.0):  # a hedge costs 10, a success adds 1, also if the hedge won
        assert await protected.call(FaultScript(HANG, "up")) == "up"
        assert budget.tokens == left
    script = FaultScript(Delay(5.0, "late"), "never")
    assert await protected.call(script) == "late"
    assert len(script.calls) == 1
    await protected.outcome(FaultScript(DownError))
    assert budget.tokens == 4


async def test_by_default_it_has_a_budget_of_its_own() -> None:
    assert isinstance(Hedge(1.0).budget, TokenBudget)
    assert Hedge(1.0).budget is not Hedge(1.0).budget
    assert Hedge(1.0, budget=None).budget is None


async def test_a_ratio_bounds_the_load(engine: Engine) -> None:
    budget = RatioBudget(0.1, minimum_per_second=0, window=1e6)
    protected = engine(Hedge(1.0, budget=budget))
    script = FaultScript(Delay(2.0, "up"), repeat=True)
    for _ in range(100):
        await protected.call(script)
    assert len(script.calls) == 109  # the share of those before


async def test_a_budget_can_be_that_of_a_retry(engine: Engine) -> None:
    retry = Retry(3, backoff=Backoff.none(), budget=TokenBudget(capacity=100, transient_cost=10, deposit=1))
    budget = retry.budget
    assert isinstance(budget, TokenBudget)
    hedge = Hedge(1.0, budget=retry)
    assert hedge.budget is budget
    protected = engine(retry, hedge)
    assert await protected.call(FaultScript(Delay(2.0, DownError()), Delay(3.0, DownError()), "up")) == "up"
    assert budget.tokens == 90  # the retry has been repaid, the hedge has not
    await protected.call(FaultScript("up"))
    assert budget.tokens == 91  # and a call counts once


async def test_a_shared_budget_is_asked_before_it_pays(engine: Engine) -> None:
    class Remote(TokenBudget):
        asked = 0

        async def stock(self, cost: float) -> None:
            self.asked += 1
            await anyio.sleep(0.5)

    budget = Remote(capacity=100, transient_cost=10, deposit=1)
    protected = engine(Hedge(1.0, budget=budget))
    assert await protected.call(FaultScript(HANG, "up")) == "up"
    assert (budget.asked, budget.tokens, clock.now()) == (1, 91, 1.5)
    script = FaultScript(Delay(1.25, "first"), "never")
    assert await protected.call(script) == "first"  # meanwhile the answer has come
    assert (budget.asked, budget.tokens, len(script.calls)) == (2, 92, 1)


async def test_a_hedge_that_is_paid_too_late_is_repaid(engine: Engine) -> None:
    class Remote(TokenBudget):
        async def stock(self, cost: float) -> None:
            with anyio.CancelScope(shield=True):  # a command that is under way goes on
                await anyio.sleep(0.5)

    budget = Remote(capacity=100, transient_cost=10, deposit=1)
    script = FaultScript(Delay(1.25, "first"), "never")
    assert await engine(Hedge(1.0, budget=budget)).call(script) == "first"
    assert (budget.tokens, len(script.calls)) == (100, 1)


async def test_a_hedge_that_was_refused_costs_nothing(engine: Engine) -> None:
    budget = TokenBudget(capacity=100, transient_cost=10, deposit=1)
    bulkhead = Bulkhead(1)
    script = FaultScript(Delay(5.0, "up"))
    assert await engine(Hedge(1.0, budget=budget), bulkhead).call(script) == "up"
    assert (budget.tokens, clock.now(), bulkhead.in_use()) == (100, 5.0, 0)


# Deadlines and other policies.


async def test_a_timeout_outside_is_for_all_attempts(engine: Engine) -> None:
    script = FaultScript(HANG, HANG)
    with pytest.raises(TimedOutError):
        await engine(Timeout(3.0), Hedge(1.0)).call(script)
    assert (clock.now(), script.running, len(script.calls)) == (3.0, 0, 2)


async def test_a_hedge_that_nobody_would_wait_for_does_not_start(engine: Engine) -> None:
    script = FaultScript(HANG)
    with pytest.raises(TimedOutError):
        await engine(Timeout(1.0), Hedge(1.0)).call(script)
    assert len(script.calls) == 1


@pytest.mark.filterwarnings("ignore:.*a hedge around a retry")
async def test_retries_inside_of_a_hedge_know_the_deadline_outside(engine: Engine) -> None:
    script = FaultScript(HANG, DownError, "up")
    inner = Retry(2, backoff=Backoff.constant(60.0))
    with pytest.raises(TimedOutError):
        await engine(Timeout(10.0), Hedge(1.0), inner).call(script)
    assert len(script.calls) == 2
    assert inner.budget is not None
    assert inner.budget.available(0.0) == 500  # not scheduled, rather than cancelled


async def test_all_attempts_know_the_deadline_outside(engine: Engine) -> None:
    deadlines: list[float | None] = []

    async def call() -> str:
        deadlines.append(current_deadline())
        if len(deadlines) == 1:
            await anyio.sleep_forever()
        return "up"

    assert await engine(Timeout(10.0), Hedge(1.0)).call(call) == "up"
    assert deadlines == [10.0, 10.0]


async def test_a_timeout_inside_is_one_for_each_attempt(engine: Engine) -> None:
    script = FaultScript(HANG, Delay(2.0, "up"))
    assert await engine(Hedge(1.0), Timeout(2.5)).call(script) == "up"
    assert clock.now() == 3.0
    script = FaultScript(HANG, HANG)
    with pytest.raises(TimedOutError):
        await engine(Hedge(1.0), Timeout(2.5)).call(script)
    assert (clock.now(), script.running) == (6.5, 0)


async def test_guards_inside_see_each_attempt_as_a_call(engine: Engine) -> None:
    breaker, bulkhead = CircuitBreaker(), Bulkhead(5)
    protected = engine(Hedge(1.0), breaker, bulkhead)
    await protected.call(FaultScript(HANG, Delay(1.0, "up")))
    assert (breaker.metrics().calls, breaker.metrics().failures) == (1, 0)  # the loser has no verdict
    await protected.call(FaultScript(Delay(2.0, DownError()), Delay(3.0, "up")))
    assert (breaker.metrics().calls, breaker.metrics().failures) == (3, 1)
    assert bulkhead.in_use() == 0


async def test_attempts_have_numbers_and_the_call_keeps_its_own() -> None:
    seen: list[tuple[int, str]] = []

    def inside(proceed: Callable[[Call], Awaitable[Any]]) -> Callable[[Call], Awaitable[Any]]:
        async def look(call: Call) -> Any:
            seen.append((call.attempt, call.key))
            return await proceed(call)

        return look

    async def proceed(call: Call) -> Any:
        return await call.fn()

    script = FaultScript(HANG, HANG, "up")
    call = Call(Operation("op"), script, key="eu")
    assert await Hedge(1.0, at_most=2).wrap(inside(proceed))(call) == "up"
    assert seen == [(1, "eu"), (2, "eu"), (3, "eu")]
    assert call.attempt == 1


async def test_a_retry_outside_counts_its_own_attempts() -> None:
    recorder = EventRecorder()
    both = Delay(2.0, DownError()), Delay(3.0, DownError())
    pipeline = Pipeline(Retry(2, backoff=Backoff.none()), Hedge(1.0), listeners=[recorder])
    assert await pipeline.call(FaultScript(*both, "up")) == "up"
    assert recorder.of(CallSucceeded)[0].attempts == 2


# Results that are still alive.


@pytest.mark.parametrize("hedge_wins", [True, False])
async def test_what_the_winner_holds_is_kept_and_what_losers_hold_is_not(hedge_wins: bool, engine: Engine) -> None:
    breaker, bulkhead = CircuitBreaker(), Bulkhead(5)
    hedge = Hedge(1.0, on_result=is_bad)
    lines = (Delay(2.0, "bad"), Delay(3.0, "up")) if hedge_wins else (Delay(5.0, "up"), Delay(1.0, "bad"))
    lease = Lease()
    outside = Bulkhead(5)
    call = Call(Operation("op"), FaultScript(*lines), lease=lease)
    assert await engine(outside, hedge, breaker, bulkhead).run(call) == "up"
    assert (bulkhead.in_use(), outside.in_use()) == (1, 1)
    assert breaker.metrics().calls == 1  # that of the loser
    lease.close(ConnectionResetError())
    assert (bulkhead.in_use(), outside.in_use()) == (0, 0)
    assert (breaker.metrics().calls, breaker.metrics().failures) == (2, 1)


async def test_a_timeout_of_the_winner_goes_on_for_its_result(engine: Engine) -> None:
    lease = Lease()
    call = Call(Operation("op"), FaultScript(HANG, "up"), lease=lease)
    assert await engine(Hedge(1.0), Timeout(2.0)).run(call) == "up"
    with pytest.raises(TimedOutError) as caught:
        await lease.step(anyio.sleep_forever)
    assert clock.now() == 3.0  # two seconds after the hedge began
    lease.close(caught.value)


async def test_nothing_is_held_for_a_result_that_the_caller_does_not_wait_for(engine: Engine) -> None:
    bulkhead, log = Bulkhead(5), list[str]()
    call = Call(Operation("op"), FaultScript(Delay(2.0, Answer("bad", log)), HANG), lease=Lease())
    async with cancelled_after(3.0):
        await engine(Hedge(1.0, on_result=lambda value: True), bulkhead).run(call)
    assert (bulkhead.in_use(), log) == (0, ["bad"])


# Context, tasks, cancellation.

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")


async def test_hedges_have_a_copy_of_the_context(engine: Engine) -> None:
    seen: list[str] = []

    async def call() -> str:
        seen.append(variable.get())
        variable.set(f"attempt {len(seen)}")
        if len(seen) == 1:
            await anyio.sleep(100)
        return "up"

    variable.set("of the caller")
    assert await engine(Hedge(1.0)).call(call) == "up"
    assert seen == ["of the caller", "of the caller"]
    assert variable.get() == "attempt 1"  # the first runs in the caller's task


@pytest.mark.parametrize("tenths", [10 * second + tenth for second in range(7) for tenth in (1, 4)])
async def test_cancelled_at_any_time_it_leaves_nothing_behind(tenths: int, engine: Engine) -> None:
    log: list[str] = []
    breaker, bulkhead = CircuitBreaker(), Bulkhead(5)
    slow = Counted(seconds=100.0)
    numbers = iter(range(9))

    async def call() -> Any:
        if next(numbers) != 1:
            return await slow.run()
        await anyio.sleep(2)
        return Answer("bad", log)  # at 3.0, and never good enough

    hedge = Hedge(1.0, at_most=3, on_result=lambda value: True)
    async with cancelled_after(tenths / 10) as scope:
        await engine(hedge, breaker, bulkhead).call(call)
    assert scope.cancelled_caught
    begun = min(tenths // 10, 3) + 1
    assert next(numbers) == begun
    assert slow.begun == slow.cancelled == slow.cleaned == begun - (begun > 1)
    assert log == (["bad"] if tenths > 30 else [])
    assert (bulkhead.in_use(), breaker.metrics().failures) == (0, 0)
    await anyio.sleep(100)
    assert next(numbers) == begun + 1


async def test_storms_of_calls_and_cancellations_leave_nothing_behind(engine: Engine) -> None:
    random = Random(7)
    open_answers: set[object] = set()
    bulkhead, breaker = Bulkhead(10_000), CircuitBreaker(count=10_000, minimum_calls=10_000)
    retry = Retry(2, backoff=Backoff.constant(0.05))
    hedge = Hedge(0.1, at_most=2, budget=retry, on_result=is_bad)
    protected = engine(retry, hedge, bulkhead, breaker)
    running = verdicts = 0

    class Held:
        def __init__(self) -> None:
            open_answers.add(self)

        async def aclose(self) -> None:
            await anyio.sleep(random.random() * 0.02)
            open_answers.discard(self)

    async def work() -> Any:
        nonlocal running, verdicts
        running += 1
        try:
            await anyio.sleep(random.expovariate(10))
            verdicts += 1
            if random.random() < 0.3:
                raise DownError
            return "bad" if random.random() < 0.2 else Held()
        finally:
            running -= 1

    async def caller() -> None:
        await anyio.sleep(random.random())
        with anyio.move_on_after(random.expovariate(4)):
            outcome = await protected.outcome(work)
            if outcome.error is None and isinstance(outcome.value, Held):
                with anyio.CancelScope(shield=True):
                    await outcome.value.aclose()

    async with anyio.create_task_group() as group:
        for _ in range(300):
            group.start_soon(caller)
    assert (running, bulkhead.in_use()) == (0, 0)
    assert breaker.metrics().calls == verdicts
    assert not open_answers


async def test_other_tasks_see_no_cancellation_of_the_caller(engine: Engine) -> None:
    """After a hedge has won, the caller's task is as good as new."""
    protected = engine(Hedge(1.0))
    with anyio.move_on_after(100) as scope:
        for _ in range(3):
            assert await protected.call(FaultScript(HANG, "up")) == "up"
            await anyio.lowlevel.checkpoint()
    assert not scope.cancelled_caught
    with anyio.move_on_after(0.5) as scope:
        await protected.call(FaultScript(HANG))
    assert scope.cancelled_caught


async def test_what_is_no_exception_ends_the_call(engine: Engine) -> None:
    class Stop(BaseException):
        pass

    with pytest.raises(Stop):
        await engine(Hedge(1.0)).call(FaultScript(Stop()))
    script = FaultScript(HANG, Stop())
    with pytest.raises(Stop):
        await engine(Hedge(1.0)).call(script)
    assert script.running == 0


async def test_many_at_once(engine: Engine) -> None:
    protected = engine(Hedge(1.0, budget=None))
    scripts = [FaultScript(Delay(n % 3, n), Delay(0.5, n)) for n in range(300)]
    pending = iter(scripts)
    assert sorted(await together(300, lambda: protected.call(next(pending)))) == list(range(300))
    assert clock.now() == 1.5


def test_it_works_in_a_second_run() -> None:
    hedge = Hedge(Quantile(samples=1, start=1.0))
    for backend in ("asyncio", "asyncio", "trio", "asyncio"):
        assert run(hedge.call, FaultScript(HANG, "up"), backend=backend) == "up"


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ((Hedge(1.0), Retry()), "a hedge around a retry hedges its pauses"),
        ((Hedge(1.0), Hedge(2.0, at_most=2)), "nested hedges multiply: 2 x 3 attempts at worst"),
        ((Retry(budget=SHARED), Hedge(1.0, budget=SHARED)), "every call fills the budget twice; give the hedge the re"),
    ],
)
def test_orders_that_do_not_do_what_is_expected(policies: tuple[Policy, ...], message: str) -> None:
    with pytest.warns(HazardWarning, match=message):
        Pipeline(*policies)


def test_sound_orders() -> None:
    retry = Retry()
    Pipeline(Timeout(10), retry, Hedge(1.0, budget=retry), CircuitBreaker(), Timeout(2))
    Pipeline(Retry(budget=None), Hedge(1.0, budget=None))
    Pipeline(Retry(), Hedge(1.0))


def test_settings() -> None:
    data: dict[str, Any] = {"policies": [{"type": "hedge", "after": 0.05}, {"type": "timeout", "seconds": 1}]}
    hedge = PipelineSettings.model_validate(data).build().policies[0]
    assert isinstance(hedge, Hedge)
    assert hedge.after == 0.05
    data = {"policies": [{"type": "hedge", "after": {"q": 0.9, "samples": 30}, "at_most": 2, "budget": None}]}
    hedge = PipelineSettings.model_validate(data).build().policies[0]
    assert isinstance(hedge, Hedge)
    assert (hedge.after, hedge.at_most, hedge.budget) == (Quantile(0.9, samples=30), 2, None)


def test_blocks_are_refused() -> None:
    with pytest.raises(TypeError, match="Hedge cannot guard a block or an async generator"):
        Pipeline(Hedge(1.0)).guard()


# What only asyncio can do.


def on_asyncio(fn: Callable[[], Awaitable[Any]]) -> Any:
    with VirtualClock().installed() as virtual:
        return virtual.run(fn)


def test_a_task_that_is_cancelled_while_a_loser_cleans_up_ends_cancelled() -> None:
    log: list[str] = []

    async def main() -> None:
        slow = Counted(seconds=100.0)
        numbers = iter(range(2))

        async def call() -> Any:
            if next(numbers):
                return await slow.run()
            await asyncio.sleep(2)
            return Answer("first", log)

        task = asyncio.ensure_future(Hedge(1.0).call(call))
        await asyncio.sleep(2.1)
        assert task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert slow.cancelled == 1

    on_asyncio(main)
    assert log == ["first"]


async def with_timeout(work: Awaitable[Any]) -> None:
    async with asyncio.timeout(2.5):
        await work


async def with_wait_for(work: Awaitable[Any]) -> None:
    await asyncio.wait_for(work, 2.5)


@pytest.mark.parametrize("limited", [with_timeout, with_wait_for])
def test_deadlines_of_asyncio_around_it(limited: Callable[[Awaitable[Any]], Awaitable[None]]) -> None:
    async def main() -> None:
        script = FaultScript(HANG, HANG)
        with pytest.raises(TimeoutError):
            await limited(Hedge(1.0).call(script))
        assert (script.running, clock.now()) == (0, 2.5)

    on_asyncio(main)


def test_a_hedge_that_is_cancelled_from_within_is_a_failed_one() -> None:
    async def main() -> Any:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        numbers = iter(range(2))

        async def call() -> Any:
            if next(numbers):
                await future
            await asyncio.sleep(3)
            return "first"

        return await Hedge(1.0).call(call)

    assert on_asyncio(main) == "first"


def test_for_a_caller_who_is_on_his_way_out_no_hedge_starts() -> None:
    async def main() -> None:
        slow = Counted(seconds=100.0)
        with anyio.move_on_after(0.9):
            await Hedge(1.0).call(slow.run)
        assert clock.now() == 1.4
        assert (slow.begun, slow.cleaned) == (1, 1)

    on_asyncio(main)


@pytest.mark.parametrize("outcome", ["up", Delay(0.5, "up"), DownError(), Delay(2.0, DownError())])
def test_eager_tasks(outcome: Any) -> None:
    """A hedge may be over before the timer that began it has returned."""

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(vars(asyncio).get("eager_task_factory"))  # since 3.12
        script = FaultScript(Delay(5.0, "first"), outcome)
        assert await Hedge(1.0).call(script) in {"first", "up"}
        assert script.running == 0

    on_asyncio(main)


def test_no_task_is_started_for_an_answer_in_time() -> None:
    async def main() -> set[Any]:
        tasks: set[Any] = set()

        async def call() -> str:
            await asyncio.sleep(0.5)
            tasks.update(asyncio.all_tasks())
            return "up"

        await Hedge(1.0).call(call)
        return tasks

    assert len(on_asyncio(main)) == 1


@pytest.mark.parametrize("closed", [True, False], ids=["loop closed", "loop open"])
def test_a_call_that_is_thrown_away_takes_its_hedges_along(closed: bool) -> None:
    """What is left of calls when their event loop is closed over them is closed by the garbage collector."""
    script = FaultScript(HANG, HANG)
    coroutine = Hedge(0.005).call(script)
    loop = asyncio.new_event_loop()
    task = loop.create_task(coroutine)
    loop.call_later(0.05, loop.stop)
    loop.run_forever()
    assert script.running == 2
    if closed:
        loop.close()
    coroutine.close()
    assert script.running == 1
    if not closed:
        loop.run_until_complete(asyncio.sleep(0.01))
        assert script.running == 0
        task.cancel()
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            loop.run_until_complete(task)
        loop.close()


async def test_errors_are_not_kept_alive(engine: Engine) -> None:
    kept: list[weakref.ref[DownError]] = []

    async def call() -> None:
        await anyio.sleep(2)
        error = DownError()
        kept.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    gc.collect()
    gc.disable()
    try:
        with suppress(DownError):
            await engine(Hedge(1.0)).call(call)
        await anyio.sleep(1)
        assert [each() for each in kept] == [None, None]
    finally:
        gc.enable()


async def test_rejections_and_stores() -> None:
    store = MemoryStore()
    retry = Retry(name="shared", store=store)
    assert Hedge(1.0, budget=retry).budget is Retry(name="shared", store=store).budget
    with pytest.raises(RejectedError):
        await Hedge(1.0).call(FaultScript(RejectedError("full")))


# What it is for.


async def tail(protected: Any, calls: int, random: Random) -> tuple[list[float], int]:
    """Make calls at random times to a service that is 50 times slower for one answer in a hundred.

    Returns how long they took, in order, and how often the service was asked.
    """
    asked = 0
    durations: list[float] = []

    async def service() -> None:
        nonlocal asked
        asked += 1
        normal = random.lognormvariate(-4.0, 0.25)  # about 18 ms
        await anyio.sleep(normal * 50 if random.random() < 0.01 else normal)

    async def client() -> None:
        began = clock.now()
        await protected.call(service)
        durations.append(clock.now() - began)

    async with anyio.create_task_group() as group:
        for _ in range(calls):
            group.start_soon(client)
            await anyio.sleep(random.expovariate(200))
    return sorted(durations), asked


@pytest.mark.parametrize("calls", [3_000, pytest.param(10_000, marks=pytest.mark.long)])
async def test_the_slowest_in_a_thousand_get_faster_for_little_load(calls: int) -> None:
    """Bar: with 1 % of answers slowed 50 times, p99.9 falls at least 5 times for at most 3 % more load."""
    plain, asked = await tail(Pipeline(), calls, Random(11))
    assert asked == calls
    hedged, asked = await tail(Hedge(Quantile(0.98)), calls, Random(11))
    at = calls - calls // 1000
    print(
        f"p99.9 {plain[at]:.3f} s, hedged {hedged[at]:.3f} s, {plain[at] / hedged[at]:.1f} times; {asked / calls:.4f}"
    )
    assert plain[at] >= 5 * hedged[at]
    assert asked <= 1.03 * calls
