from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from resilience import (
    BreakerState,
    CircuitBreaker,
    CircuitOpenError,
    Classifier,
    MemoryStore,
    Pipeline,
    RejectedError,
    Verdict,
)
from resilience.events import CallRejected, CircuitClosed, CircuitHalfOpened, CircuitIsolated, CircuitOpened
from resilience.testing import HANG, Delay, EventRecorder, FaultScript, run
from tests.support.engine import Engine
from tests.support.failures import DownError, broken, is_bad, is_down
from tests.support.scopes import cancelled_after

pytestmark = pytest.mark.anyio


def quick(**options: Any) -> CircuitBreaker:
    """Opens after two failures of two calls, for 5 s sharp, then wants two probes."""
    defaults: dict[str, Any] = {"count": 4, "minimum_calls": 2, "open_for": 5.0, "jitter": 0.0, "probes": 2}
    return CircuitBreaker(**(defaults | options))


async def fail(protected: Any, times: int = 1, key: str = "") -> None:
    for _ in range(times):
        with pytest.raises(DownError):
            await protected.bind(key=key).call(FaultScript(DownError))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"failure_rate": 0}, ValueError, "failure_rate"),
        ({"failure_rate": 1.1}, ValueError, "failure_rate"),
        ({"failure_rate": math.nan}, ValueError, "failure_rate"),
        ({"failure_rate": "half"}, TypeError, "failure_rate"),
        ({"failure_rate": None}, ValueError, "failure_rate or slow_rate must be given"),
        ({"slow_rate": 0.5}, ValueError, "slow_rate and slow_call must be given together"),
        ({"slow_call": 0.5}, ValueError, "slow_rate and slow_call must be given together"),
        ({"slow_rate": 0.5, "slow_call": -1}, ValueError, "slow_call"),
        ({"minimum_calls": 0}, ValueError, "minimum_calls must be at least 1, got 0"),
        ({"minimum_calls": 101}, ValueError, r"minimum_calls must be at most count \(100\)"),
        ({"count": 0}, ValueError, "count must be at least 1, got 0"),
        ({"count": 10, "period": 10.0}, ValueError, "only one of count and period can be given"),
        ({"period": math.inf}, ValueError, "period"),
        ({"period": 10.0, "buckets": 0}, ValueError, "buckets must be at least 1, got 0"),
        ({"open_for": 0}, ValueError, "open_for"),
        ({"open_max": 1.0}, ValueError, "open_max"),
        ({"open_growth": 0.5}, ValueError, "open_growth"),
        ({"jitter": 2}, ValueError, "jitter"),
        ({"probes": True}, TypeError, "probes must be an integer, got True"),
        ({"probe_lease": 0}, ValueError, "probe_lease"),
        ({"ramp": -1}, ValueError, "ramp must be at least 0, got -1"),
        ({"shared": "some"}, ValueError, "shared must be one of 'any', 'quorum', 'local', got 'some'"),
        ({"quorum": 0}, ValueError, "quorum must be at least 1, got 0"),
        ({"on_outage": "wait"}, ValueError, "on_outage must be one of 'local', 'open', 'closed', got 'wait'"),
        ({"mode": "maybe"}, ValueError, "mode must be one of 'enforce', 'shadow', 'off', got 'maybe'"),
        ({"max_keys": 0}, ValueError, "max_keys must be at least 1, got 0"),
        ({"on": 1}, TypeError, "on must be exception types"),
        ({"store": MemoryStore()}, ValueError, "name is required with a store"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CircuitBreaker(**options)


async def test_it_opens_at_the_failure_rate_and_says_when_to_come_back(engine: Engine) -> None:
    recorder = EventRecorder()
    breaker = quick(name="db", listeners=[recorder])
    protected = engine(breaker)
    await protected.call(FaultScript("up"))
    assert breaker.state() is BreakerState.CLOSED
    await fail(protected)
    assert breaker.state() is BreakerState.OPEN
    script = FaultScript("never")
    await anyio.sleep(1)
    with pytest.raises(CircuitOpenError, match="db is open, try again in 4 s") as caught:
        await protected.call(script)
    assert (caught.value.policy, caught.value.retry_after) == ("db", 4.0)
    assert isinstance(caught.value, RejectedError)
    assert caught.value.reason == "db is open, try again in 4 s"
    assert script.calls == []
    assert breaker.rejected == 1
    opened, rejected = recorder.events
    assert isinstance(opened, CircuitOpened)
    assert (opened.policy, opened.key, opened.generation, opened.open_for) == ("db", "", 1, 5.0)
    assert isinstance(rejected, CallRejected)
    assert (rejected.error, rejected.retry_after, rejected.shadow) == (caught.value, 4.0, False)


async def test_by_default_it_wants_twenty_calls(engine: Engine) -> None:
    breaker = CircuitBreaker()
    protected = engine(breaker)
    await fail(protected, 19)
    assert breaker.state() is BreakerState.CLOSED
    await fail(protected)
    assert breaker.state() is BreakerState.OPEN
    assert 5.0 <= (breaker.metrics().retry_after or 0.0) <= 6.0


async def test_probes_close_it(engine: Engine) -> None:
    recorder = EventRecorder()
    breaker = quick(listeners=[recorder])
    protected = engine(breaker)
    await fail(protected, 2)
    await anyio.sleep(5)
    assert breaker.state() is BreakerState.HALF_OPEN  # reading changes nothing
    assert recorder.kinds() == ["circuit_opened"]
    assert await protected.call(FaultScript("up")) == "up"
    assert breaker.state() is BreakerState.HALF_OPEN
    assert await protected.call(FaultScript("up")) == "up"
    assert breaker.state() is BreakerState.CLOSED
    assert recorder.kinds() == ["circuit_opened", "circuit_half_opened", "circuit_closed"]
    assert [event.generation for event in recorder.of(CircuitHalfOpened)] == [2]
    assert [event.generation for event in recorder.of(CircuitClosed)] == [3]
    assert breaker.metrics().calls == 0  # a new window


async def test_after_closing_it_admits_a_share_that_grows_to_all(engine: Engine) -> None:
    recorder = EventRecorder()
    breaker = quick(probes=1, ramp=10.0, listeners=[recorder])
    protected = engine(breaker)
    await fail(protected, 2)
    await anyio.sleep(5)
    await protected.call(FaultScript("up"))
    assert breaker.state() is BreakerState.CLOSED
    shares: list[int] = []
    for _ in range(4):
        outcomes = [await protected.outcome(FaultScript("up")) for _ in range(100)]
        shares.append(sum(outcome.ok for outcome in outcomes))
        refusals = [outcome.error for outcome in outcomes if outcome.rejected]
        assert {error.state for error in refusals if isinstance(error, CircuitOpenError)} <= {"closing"}
        await anyio.sleep(4)
    assert shares == [10, 46, 82, 100]
    assert breaker.metrics().share == 1.0
    assert breaker.metrics().calls == 4  # its window holds the last four
    assert breaker.state() is BreakerState.CLOSED
    assert breaker.rejected == len(recorder.of(CallRejected)) == 90 + 54 + 18


async def test_a_refusal_of_a_ramp_is_an_open_circuit_for_those_who_are_refused(engine: Engine) -> None:
    breaker = quick(name="db", probes=1, ramp=10.0)
    protected = engine(breaker)
    await fail(protected, 2)
    await anyio.sleep(5)
    await protected.call(FaultScript("up"))
    await protected.call(FaultScript("up"))
    with pytest.raises(CircuitOpenError, match="db is closing, try again in 1 s") as caught:
        await protected.call(FaultScript("never"))
    assert caught.value.retry_after == 1.0
    await fail_when_admitted(protected)
    assert breaker.state() is BreakerState.OPEN


async def fail_when_admitted(protected: Any) -> None:
    """Fail until the circuit has seen it: one call in ten is admitted."""
    for _ in range(11):
        outcome = await protected.outcome(FaultScript(DownError))
        if not outcome.rejected:
            return
    raise AssertionError("no call was admitted")


async def test_a_failing_probe_opens_it_for_longer_up_to_the_maximum(engine: Engine) -> None:
    recorder = EventRecorder()
    breaker = quick(probes=1, open_max=12.0, listeners=[recorder])
    protected = engine(breaker)
    await fail(protected, 2)
    for open_for in (5.0, 10.0, 12.0):
        assert breaker.metrics().retry_after == open_for
        await anyio.sleep(open_for)
        await fail(protected)
    assert [event.open_for for event in recorder.of(CircuitOpened)] == [5.0, 10.0, 12.0, 12.0]
    await anyio.sleep(12)
    await protected.call(FaultScript("up"))
    await fail(protected, 2)
    assert breaker.metrics().retry_after == 5.0  # having closed, it begins anew


async def test_jitter_lengthens_the_open_time(engine: Engine) -> None:
    breaker = quick(jitter=0.2, random=lambda: 0.5)
    await fail(engine(breaker), 2)
    assert breaker.metrics().retry_after == pytest.approx(5.5)


async def test_half_open_admits_exactly_the_probes_under_fifty_callers(engine: Engine) -> None:
    breaker = quick(probes=3)
    protected = engine(breaker)
    await fail(protected, 2)
    await anyio.sleep(5)
    script = FaultScript(Delay(1.0, "up"), repeat=True)
    outcomes: list[Any] = []

    async def caller() -> None:
        outcomes.append(await protected.outcome(script))

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(caller)
        await anyio.sleep(0.5)
        assert breaker.metrics().probes == 3
    assert (len(script.calls), script.most) == (3, 3)
    assert [outcome.ok for outcome in outcomes].count(True) == 3
    assert sum(outcome.rejected for outcome in outcomes) == 47
    assert breaker.state() is BreakerState.CLOSED


async def test_a_cancelled_probe_frees_its_place_and_says_nothing(engine: Engine) -> None:
    breaker = quick(probes=1)
    protected = engine(breaker)
    await fail(protected, 2)
    await anyio.sleep(5)
    async with cancelled_after(1.0):
        await protected.call(FaultScript(HANG))
    metrics = breaker.metrics()
    assert (metrics.state, metrics.probes, metrics.calls) == (BreakerState.HALF_OPEN, 0, 0)
    await protected.call(FaultScript("up"))
    assert breaker.state() is BreakerState.CLOSED


async def test_a_hung_probe_counts_as_failed_when_its_lease_ends_and_is_ignored_afterwards(engine: Engine) -> None:
    recorder = EventRecorder()
    breaker = quick(probes=1, probe_lease=2.0, listeners=[recorder])
    protected = engine(breaker)
    await fail(protected, 2)
    await anyio.sleep(5)
    async with anyio.create_task_group() as group:
        group.start_soon(protected.call, FaultScript(Delay(20.0, "much too late")))
        await anyio.sleep(1)
        with pytest.raises(CircuitOpenError, match="is half-open, try again in 1 s"):
            await protected.call(FaultScript("up"))
        await anyio.sleep(1.5)
        assert breaker.state() is BreakerState.OPEN
        with pytest.raises(CircuitOpenError):
            await protected.call(FaultScript("up"))
        await anyio.sleep(10)
        await protected.call(FaultScript("up"))
        await protected.call(FaultScript("up"))
        assert breaker.metrics().calls == 1
    assert breaker.metrics().calls == 1  # the late answer of generation 2 changed nothing


async def test_a_late_answer_from_before_the_break_is_dropped(engine: Engine) -> None:
    breaker = quick(probes=1)
    protected = engine(breaker)
    async with anyio.create_task_group() as group:
        group.start_soon(protected.call, FaultScript(Delay(6.0, "late success")))
        group.start_soon(protected.outcome, FaultScript(Delay(8.0, DownError)))
        await anyio.sleep(1)
        await fail(protected, 2)
        await anyio.sleep(5.5)  # the success has come, half-open since
        assert breaker.state() is BreakerState.HALF_OPEN
        await protected.call(FaultScript("up"))
        assert breaker.state() is BreakerState.CLOSED
    assert breaker.metrics().failures == 0
    assert breaker.state() is BreakerState.CLOSED


async def test_slow_calls_open_it(engine: Engine) -> None:
    breaker = quick(failure_rate=None, slow_rate=0.5, slow_call=1.0)
    protected = engine(breaker)
    await fail(protected, 2)  # failures alone do not
    await protected.call(FaultScript(Delay(1.0, "just not slow")))
    assert breaker.metrics().slow == 0
    for _ in range(2):
        assert breaker.state() is BreakerState.CLOSED
        await protected.call(FaultScript(Delay(1.5, "slow")))
    assert breaker.state() is BreakerState.OPEN


async def test_a_window_of_time_forgets(engine: Engine) -> None:
    breaker = CircuitBreaker(period=10.0, minimum_calls=4, jitter=0.0)
    protected = engine(breaker)
    await fail(protected, 3)
    await anyio.sleep(11)
    await fail(protected)
    assert breaker.state() is BreakerState.CLOSED
    assert breaker.metrics().failures == 1
    await fail(protected, 3)
    assert breaker.state() is BreakerState.OPEN


async def test_a_window_of_calls_forgets(engine: Engine) -> None:
    breaker = CircuitBreaker(count=4, minimum_calls=4, failure_rate=0.75)
    protected = engine(breaker)
    await fail(protected, 2)
    for _ in range(3):
        await protected.call(FaultScript("up"))
    await fail(protected, 2)
    assert breaker.metrics().failures == 2
    assert breaker.state() is BreakerState.CLOSED


@pytest.mark.parametrize(
    "options",
    [
        {"on": DownError},
        {"on": (DownError, OSError)},
        {"on": is_down},
        {"on": Classifier(error=lambda error: Verdict.FAILURE if is_down(error) else Verdict.IGNORED)},
        {"on_result": is_bad},
    ],
    ids=["type", "types", "predicate", "classifier", "result"],
)
async def test_what_counts_as_a_failure(options: dict[str, Any], engine: Engine) -> None:
    breaker = quick(**options)
    protected = engine(breaker)
    with pytest.raises(RejectedError):
        await protected.call(FaultScript(RejectedError("refused elsewhere")))  # ignored in any case
    assert breaker.metrics().calls == 0
    if "on_result" in options:
        assert await protected.call(FaultScript("bad")) == "bad"
    else:
        with pytest.raises(KeyError):
            await protected.call(FaultScript(KeyError))
        assert breaker.metrics().calls == 0
        await fail(protected)
    assert breaker.metrics().failures == 1


async def test_the_classifier_of_the_pipeline_judges_for_a_breaker_without_its_own() -> None:
    breaker = quick()
    classifier = Classifier(
        error=lambda error: Verdict.IGNORED, result=lambda value: Verdict.FAILURE if is_bad(value) else Verdict.SUCCESS
    )
    pipeline = Pipeline(breaker, classifier=classifier)
    await fail(pipeline, 2)
    assert breaker.metrics().calls == 0
    await pipeline.call(FaultScript("bad"))
    assert breaker.metrics().failures == 1


@pytest.mark.parametrize("options", [{"on": broken}, {"on_result": broken}], ids=["on", "on_result"])
async def test_a_broken_predicate_is_raised_and_costs_no_probe(options: dict[str, Any], engine: Engine) -> None:
    breaker = quick(probes=1, **options)
    protected = engine(breaker)
    breaker.isolate()
    breaker.reset()
    with pytest.raises(ZeroDivisionError):
        await protected.call(FaultScript(DownError() if "on" in options else "value"))
    assert breaker.metrics().calls == 0


async def test_a_broken_predicate_on_a_probe_frees_its_place(engine: Engine) -> None:
    verdicts = iter([True, True])

    def judge(error: Exception) -> bool:
        return next(verdicts)  # then StopIteration

    breaker = quick(probes=1, on=judge)
    protected = engine(breaker)
    await fail(protected, 2)
    await anyio.sleep(5)
    with pytest.raises((StopIteration, RuntimeError)):
        await protected.call(FaultScript(DownError()))
    assert breaker.metrics().probes == 0


async def test_by_hand(engine: Engine) -> None:
    recorder = EventRecorder()
    breaker = quick(listeners=[recorder])
    protected = engine(breaker)
    breaker.isolate()
    assert breaker.state() is BreakerState.ISOLATED
    await anyio.sleep(1000)
    with pytest.raises(CircuitOpenError, match=r"is isolated$") as caught:
        await protected.call(FaultScript("up"))
    assert caught.value.retry_after is None
    breaker.isolate()  # once is enough
    breaker.reset()
    assert breaker.state() is BreakerState.CLOSED
    assert await protected.call(FaultScript("up")) == "up"
    assert recorder.of(CircuitIsolated)[0].operation == ""
    assert recorder.kinds() == ["circuit_isolated", "call_rejected", "circuit_closed"]


async def test_reset_forgets_and_drops_calls_under_way(engine: Engine) -> None:
    breaker = quick()
    protected = engine(breaker)
    await fail(protected)
    async with anyio.create_task_group() as group:
        group.start_soon(protected.outcome, FaultScript(Delay(1.0, DownError)))
        await anyio.sleep(0.5)
        breaker.reset()
    assert breaker.metrics().calls == 0
    await fail(protected)
    assert breaker.state() is BreakerState.CLOSED


async def test_shadow_mode_counts_and_reports_but_lets_pass(engine: Engine) -> None:
    recorder = EventRecorder()
    breaker = quick(mode="shadow", listeners=[recorder])
    protected = engine(breaker)
    await fail(protected, 2)
    assert breaker.state() is BreakerState.OPEN
    assert await protected.call(FaultScript("up")) == "up"
    (rejected,) = recorder.of(CallRejected)
    assert rejected.shadow
    assert isinstance(rejected.error, CircuitOpenError)
    assert breaker.rejected == 1
    await anyio.sleep(5)
    await protected.call(FaultScript("up"))
    await protected.call(FaultScript("up"))
    assert breaker.state() is BreakerState.CLOSED


async def test_off_does_nothing_and_modes_change_at_any_time(engine: Engine) -> None:
    breaker = quick(mode="off")
    protected = engine(breaker)
    await fail(protected, 5)
    assert breaker.metrics().calls == 0
    breaker.mode = "enforce"
    await fail(protected, 2)
    with pytest.raises(CircuitOpenError):
        await protected.call(FaultScript("up"))
    breaker.mode = "off"
    assert await protected.call(FaultScript("up")) == "up"
    with pytest.raises(ValueError, match="mode must be one of"):
        breaker.mode = "never"  # type: ignore[assignment] # pyright: ignore[reportAttributeAccessIssue] - refused at run time too


async def test_circuits_by_key(engine: Engine) -> None:
    recorder = EventRecorder()
    breaker = quick(listeners=[recorder])
    protected = engine(breaker)
    await fail(protected, 2, key="eu")
    assert (breaker.state("eu"), breaker.state("us"), breaker.state()) == (
        BreakerState.OPEN,
        BreakerState.CLOSED,
        BreakerState.CLOSED,
    )
    with pytest.raises(CircuitOpenError, match="for 'eu' is open"):
        await protected.bind(key="eu").call(FaultScript("up"))
    assert await protected.bind(key="us").call(FaultScript("up")) == "up"
    assert {"eu", "us"} <= set(breaker.keys()) <= {"", "eu", "us"}
    assert recorder.of(CircuitOpened)[0].key == "eu"
    breaker.reset("eu")
    assert await protected.bind(key="eu").call(FaultScript("up")) == "up"


async def test_without_keys_there_is_one_circuit(engine: Engine) -> None:
    breaker = quick(keyed=False)
    protected = engine(breaker)
    await fail(protected, 2, key="eu")
    with pytest.raises(CircuitOpenError):
        await protected.bind(key="us").call(FaultScript("up"))
    assert breaker.keys() == [""]
    assert breaker.state("anything") is BreakerState.OPEN
    assert breaker.metrics("anything").state is BreakerState.OPEN
    breaker.reset("anything")
    assert breaker.state() is BreakerState.CLOSED
    breaker.isolate("anything")
    assert breaker.state() is BreakerState.ISOLATED


async def test_open_circuits_are_never_forgotten(engine: Engine) -> None:
    breaker = quick(max_keys=10)
    protected = engine(breaker)
    await fail(protected, 2, key="bad")
    for number in range(100):
        await protected.bind(key=str(number)).call(FaultScript("up"))
    assert breaker.state("bad") is BreakerState.OPEN
    assert len(breaker.keys()) <= 12


async def test_circuits_are_shared_by_name_and_store(engine: Engine) -> None:
    store = MemoryStore()
    first, second = quick(name="db", store=store), quick(name="db", store=store)
    await fail(engine(first), 2)
    assert second.state() is BreakerState.OPEN
    assert quick(name="other", store=store).state() is BreakerState.CLOSED
    with pytest.raises(ValueError, match="name 'db' is taken by a circuit breaker with other settings"):
        quick(name="db", store=store, open_for=6.0)


async def test_reading_a_circuit_without_calls() -> None:
    breaker = quick()
    metrics = breaker.metrics("nobody")
    assert (metrics.state, metrics.calls, metrics.retry_after) == (BreakerState.CLOSED, 0, 0.0)
    assert breaker.keys() == []


async def test_a_block_counts_as_a_call(engine: Engine) -> None:
    breaker = quick()
    protected = engine(breaker)
    async with protected.guard():
        pass
    assert breaker.metrics().calls == 1
    with pytest.raises(DownError):
        async with protected.guard():
            raise DownError
    with pytest.raises(CircuitOpenError):
        await protected.guard().__aenter__()


async def test_a_generator_is_judged_when_it_ends(engine: Engine) -> None:
    breaker = quick()

    @engine(breaker)
    async def numbers(fails: bool) -> AsyncIterator[int]:
        yield 1
        if fails:
            raise DownError
        yield 2

    async for number in numbers(False):
        assert breaker.metrics().calls == 0
        assert number in {1, 2}
    assert (breaker.metrics().calls, breaker.metrics().failures) == (1, 0)
    generator = numbers(True)
    assert await anext(generator) == 1
    with pytest.raises(DownError):
        await anext(generator)
    assert breaker.state() is BreakerState.OPEN


def test_it_works_in_a_second_run() -> None:
    breaker = quick(open_for=100.0)
    for backend in ("asyncio", "trio"):
        with pytest.raises(DownError):
            run(breaker.call, FaultScript(DownError), backend=backend)
    with pytest.raises(CircuitOpenError):
        run(breaker.call, FaultScript("up"))
