from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience import (
    Advice,
    Backoff,
    CircuitBreaker,
    CircuitOpenError,
    Classifier,
    MemoryStore,
    Pipeline,
    RatioBudget,
    RejectedError,
    Retry,
    TimedOutError,
    Timeout,
    TokenBudget,
    Verdict,
    clock,
)
from resilience.call import Call, Lease, Operation
from resilience.events import RetryGaveUp, RetryScheduled
from resilience.testing import HANG, Delay, EventRecorder, FaultScript, run
from tests.support.engine import Engine
from tests.support.failures import DownError, always, broken, is_bad, is_down
from tests.support.scopes import cancelled_after

pytestmark = pytest.mark.anyio


def server_error(status: Any) -> bool:
    return isinstance(status, int) and status >= 500


def steady(attempts: int = 3, delay: float = 1.0, **options: Any) -> Retry:
    """A Retry without chance: always the same pause."""
    return Retry(attempts, backoff=Backoff.constant(delay), random=lambda: 0.0, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"attempts": 0}, ValueError, "attempts must be at least 1, got 0"),
        ({"attempts": 2.0}, TypeError, "attempts must be an integer, got 2.0"),
        ({"attempts": True}, TypeError, "attempts must be an integer, got True"),
        ({"max_advice": 0}, ValueError, "max_advice must be greater than 0, got 0"),
        ({"max_advice": math.nan}, ValueError, "max_advice must be finite, got nan"),
        ({"on": 5}, TypeError, "on must be exception types, a predicate or a Classifier, got 5"),
        ({"on": (KeyError, int)}, TypeError, "on must hold exception types derived from Exception, got <class 'int'>"),
        ({"on": BaseException}, TypeError, "on must hold exception types derived from Exception"),
        ({"on_result": 5}, TypeError, "on_result must be a predicate on returned values, got 5"),
        ({"on": Classifier(), "on_result": bool}, TypeError, "on_result must be left out when on is a Classifier"),
        ({"name": ""}, ValueError, "name must be a non-empty string, got ''"),
        ({"store": MemoryStore()}, ValueError, "name is required with a store"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Retry(**options)


async def test_a_success_is_returned_at_once(engine: Engine) -> None:
    script = FaultScript("up")
    assert await engine(Retry()).call(script, 1, two=2) == "up"
    assert script.calls == [((1,), {"two": 2})]


async def test_failures_are_repeated_with_the_same_arguments(engine: Engine) -> None:
    recorder = EventRecorder()
    script = FaultScript(first := DownError(), second := DownError(), "up")
    assert await engine(steady(delay=2.0, listeners=[recorder])).call(script, 1, two=2) == "up"
    assert script.started == [0.0, 2.0, 4.0]
    assert script.calls == [((1,), {"two": 2})] * 3
    assert [(event.attempt, event.delay, event.error) for event in recorder.of(RetryScheduled)] == [
        (1, 2.0, first),
        (2, 2.0, second),
    ]


async def test_the_last_error_is_raised_as_it_is_with_a_note(engine: Engine) -> None:
    recorder = EventRecorder()
    last = KeyError("last")
    with pytest.raises(KeyError) as caught:
        await engine(steady(name="fetching", listeners=[recorder])).call(FaultScript(DownError, DownError, last))
    assert caught.value is last
    assert last.__notes__ == ["fetching gave up after 3 attempts: attempts"]
    (gave_up,) = recorder.of(RetryGaveUp)
    assert (gave_up.attempt, gave_up.reason, gave_up.error) == (3, "attempts", last)


async def test_a_single_attempt_gets_no_note(engine: Engine) -> None:
    error = KeyError()
    with pytest.raises(KeyError):
        await engine(Retry(1)).call(FaultScript(error))
    assert not hasattr(error, "__notes__")


@pytest.mark.parametrize(
    "on",
    [
        ConnectionError,
        (ConnectionError, OSError),
        is_down,
        Classifier(error=lambda error: Verdict.FAILURE if isinstance(error, DownError) else Verdict.IGNORED),
    ],
    ids=["type", "types", "predicate", "classifier"],
)
async def test_only_what_counts_as_failed_is_repeated(on: Any, engine: Engine) -> None:
    protected = engine(steady(on=on))
    assert await protected.call(FaultScript(DownError, "up")) == "up"
    script = FaultScript(KeyError("mine"), "up")
    with pytest.raises(KeyError) as caught:
        await protected.call(script)
    assert len(script.calls) == 1
    assert not hasattr(caught.value, "__notes__")


async def test_by_default_rejections_are_not_repeated(engine: Engine) -> None:
    script = FaultScript(CircuitOpenError("open", retry_after=1.0), "up")
    with pytest.raises(CircuitOpenError):
        await engine(Retry()).call(script)
    assert len(script.calls) == 1


async def test_an_open_circuit_ends_the_retries(engine: Engine) -> None:
    breaker = CircuitBreaker(count=2, minimum_calls=2)
    script = FaultScript(DownError, repeat=True)
    with pytest.raises(CircuitOpenError):
        await engine(steady(5), breaker).call(script)
    assert len(script.calls) == 2


async def test_returned_values_can_fail(engine: Engine) -> None:
    recorder = EventRecorder()
    protected = engine(steady(on_result=server_error, listeners=[recorder]))
    assert await protected.call(FaultScript(503, 500, 200)) == 200
    assert await protected.call(FaultScript(503, 502, 501)) == 501  # the last value, as it is
    (gave_up,) = recorder.of(RetryGaveUp)
    assert (gave_up.attempt, gave_up.reason, gave_up.error) == (3, "attempts", None)


async def test_a_classifier_of_the_pipeline_serves_a_retry_without_its_own() -> None:
    classifier = Classifier(result=lambda status: Verdict.FAILURE if server_error(status) else Verdict.SUCCESS)
    pipeline = Pipeline(steady(), classifier=classifier)
    script = FaultScript(500, 200)
    assert await pipeline.call(script) == 200
    assert await Pipeline(steady(on=KeyError), classifier=classifier).call(FaultScript(500)) == 500


async def test_a_broken_predicate_is_raised(engine: Engine) -> None:
    closed: list[int] = []

    class Response:
        async def aclose(self) -> None:
            closed.append(1)

    with pytest.raises(ZeroDivisionError):
        await engine(steady(on_result=broken)).call(FaultScript(Response()))
    assert closed == [1]  # nobody will see it


@pytest.mark.parametrize("method", ["aclose", "close", "nothing", "broken"])
async def test_results_of_discarded_attempts_are_closed_and_the_kept_one_is_not(method: str, engine: Engine) -> None:
    closed: list[int] = []

    class Response:
        def __init__(self, number: int) -> None:
            self.number = number

    class Async(Response):
        async def aclose(self) -> None:
            await anyio.lowlevel.checkpoint()
            closed.append(self.number)

    class Sync(Response):
        def close(self) -> None:
            closed.append(self.number)

    class Broken(Response):
        async def aclose(self) -> None:
            raise OSError("cannot even close")

    kind = {"aclose": Async, "close": Sync, "nothing": Response, "broken": Broken}[method]
    responses = [kind(number) for number in range(3)]
    kept = await engine(steady(on_result=always)).call(FaultScript(*responses))
    assert kept is responses[2]
    assert closed == ([0, 1] if method in {"aclose", "close"} else [])


async def test_pauses_follow_the_backoff_and_are_jittered(engine: Engine) -> None:
    draws = iter([0.5, 0.25, 1.0])
    retry = Retry(4, backoff=Backoff.full(base=1.0, cap=3.0), random=lambda: next(draws))
    script = FaultScript(DownError, DownError, DownError, "up")
    assert await engine(retry).call(script) == "up"
    assert script.started == [0.0, 0.5, 1.0, 4.0]


async def test_by_default_there_are_three_attempts_with_full_jitter_from_50_ms() -> None:
    retry = Retry()
    assert (retry.attempts, retry.backoff, retry.max_advice) == (3, Backoff.full(0.05, 20.0), 300.0)
    assert retry.throttled == Backoff.full(base=1.0)
    assert isinstance(retry.budget, TokenBudget)


def advised(seconds: float) -> RejectedError:
    return RejectedError("later", retry_after=seconds)


async def test_the_servers_delay_is_a_minimum_and_stretched(engine: Engine) -> None:
    for draw, expected in ((0.0, 10.0), (1.0, 15.0)):
        began = clock.now()
        script = FaultScript(advised(10.0), "up")
        retry = Retry(backoff=Backoff.none(), on=RejectedError, random=iter([draw, draw]).__next__)
        assert await engine(retry).call(script) == "up"
        assert script.started[1] - began == expected


async def test_a_longer_back_off_than_advised_stays(engine: Engine) -> None:
    script = FaultScript(advised(1.0), "up")
    assert await engine(steady(delay=5.0, on=RejectedError)).call(script) == "up"
    assert script.started[1] == 5.0


async def test_too_long_a_delay_ends_the_retries_at_once(engine: Engine) -> None:
    error = advised(301.0)
    with pytest.raises(RejectedError):
        await engine(steady(on=RejectedError)).call(FaultScript(error))
    assert clock.now() == 0.0
    assert error.__notes__ == ["Retry gave up after 1 attempt: advised delay"]
    with pytest.raises(RejectedError):
        await engine(steady(on=RejectedError, max_advice=5.0)).call(FaultScript(advised(6.0)))


async def test_throttling_is_retried_more_slowly_and_is_cheaper(engine: Engine) -> None:
    budget = TokenBudget()
    classifier = Classifier(
        error=lambda error: Verdict.IGNORED,  # throttling is not the dependency's failure
        advice=lambda result, error: Advice(throttled=True),
    )
    retry = steady(on=classifier, budget=budget, throttled=Backoff.constant(7.0))
    script = FaultScript(DownError, DownError, DownError)
    with pytest.raises(ConnectionError):
        await engine(retry).call(script)
    assert script.started == [0.0, 7.0, 14.0]
    assert budget.tokens == 500 - 2 * 5


async def test_no_retry_is_scheduled_past_the_deadline(engine: Engine) -> None:
    recorder = EventRecorder()
    script = FaultScript(DownError, DownError, DownError)
    error: ConnectionError | None = None
    try:
        await engine(Timeout(1.5), steady(delay=1.0, listeners=[recorder])).call(script)
    except ConnectionError as caught:
        error = caught
    assert isinstance(error, DownError)
    assert clock.now() == 1.0  # at once, and with the reason, not at the deadline
    assert recorder.of(RetryGaveUp)[0].reason == "deadline"


async def test_deadlines_further_out_count_too(engine: Engine) -> None:
    inner = engine(steady(delay=1.0))
    script = FaultScript(KeyError(), "up")
    with pytest.raises(KeyError):
        await engine(Timeout(0.9)).call(inner.call, script)
    assert clock.now() == 0.0


async def test_the_deadline_of_an_adapters_call_counts() -> None:
    call = Call(Operation("op"), FaultScript(KeyError(), "up"), deadline=clock.now() + 0.9)
    with pytest.raises(KeyError):
        await steady(delay=1.0).run(call)
    assert clock.now() == 0.0


async def test_what_must_not_be_repeated_is_not(engine: Engine) -> None:
    recorder = EventRecorder()
    script = FaultScript(KeyError(), "up")
    with pytest.raises(KeyError):
        await engine(steady(listeners=[recorder])).run(Call(Operation("op"), script, repeatable=False))
    assert recorder.of(RetryGaveUp)[0].reason == "not repeatable"


async def test_the_budget_limits_the_retries_of_all_calls(engine: Engine) -> None:
    budget = TokenBudget(capacity=30, transient_cost=10)
    recorder = EventRecorder()
    first, second = engine(steady(budget=budget)), engine(steady(budget=budget, listeners=[recorder]))
    with pytest.raises(ConnectionError):
        await first.call(FaultScript(DownError, repeat=True))
    assert budget.tokens == 10
    script = FaultScript(DownError, repeat=True)
    with pytest.raises(ConnectionError):
        await second.call(script)
    assert len(script.calls) == 2
    assert recorder.of(RetryGaveUp)[0].reason == "budget"
    assert budget.tokens == 0


async def test_success_pays_back(engine: Engine) -> None:
    budget = TokenBudget(capacity=100, transient_cost=10, deposit=1)
    protected = engine(steady(budget=budget))
    with pytest.raises(ConnectionError):
        await protected.call(FaultScript(DownError, repeat=True))
    assert budget.tokens == 80
    assert await protected.call(FaultScript(DownError, "up")) == "up"
    assert budget.tokens == 80  # the cost of the retry that helped came back
    for expected in (81, 82):
        await protected.call(FaultScript("up"))
        assert budget.tokens == expected


async def test_success_pays_back_when_values_are_judged(engine: Engine) -> None:
    budget = TokenBudget(capacity=100, transient_cost=10, deposit=1)
    protected = engine(steady(budget=budget, on_result=is_bad))
    await protected.call(FaultScript("bad", "bad", "bad"))
    assert budget.tokens == 80
    await protected.call(FaultScript("up"))
    assert budget.tokens == 81
    await protected.call(FaultScript("bad", "up"))
    assert budget.tokens == 81


async def test_without_a_budget_there_is_no_limit(engine: Engine) -> None:
    script = FaultScript(*[DownError] * 199, "up")
    assert await engine(steady(200, budget=None)).call(script) == "up"
    assert await engine(steady(2, budget=None, on_result=is_bad)).call(FaultScript("bad", 2)) == 2
    with pytest.raises(KeyError):
        await engine(steady(2, budget=None, on=OSError)).call(FaultScript(KeyError()))
    with pytest.raises(ConnectionError):
        await engine(steady(2, budget=None)).call(FaultScript(DownError, DownError))


async def test_a_ratio_budget(engine: Engine) -> None:
    budget = RatioBudget(ratio=0.5, minimum_per_second=0)
    protected = engine(steady(2, delay=0.001, budget=budget))
    for _ in range(10):
        await protected.call(FaultScript("up"))
    attempts = 0
    for _ in range(10):
        script = FaultScript(DownError, repeat=True)
        with pytest.raises(ConnectionError):
            await protected.call(script)
        attempts += len(script.calls)
    assert attempts == 10 + 9  # half of the ten that succeeded, and of those that failed since


async def test_a_budget_is_shared_by_name_and_store() -> None:
    store = MemoryStore()
    assert Retry(name="same", store=store).budget is Retry(name="same", store=store).budget
    assert Retry(name="same", store=store).budget is not Retry(name="other", store=store).budget
    assert Retry().budget is not Retry().budget
    assert Retry(budget=None, name="same", store=store).budget is None


async def test_a_cancelled_retry_costs_nothing(engine: Engine) -> None:
    budget = TokenBudget()
    async with cancelled_after(1.5) as scope:
        await engine(steady(budget=budget)).call(FaultScript(DownError, HANG))
    assert scope.cancelled_caught
    assert budget.tokens == 500


async def test_a_cancelled_pause_costs_nothing(engine: Engine) -> None:
    budget = TokenBudget()
    script = FaultScript(DownError, "up")
    async with cancelled_after(0.5) as scope:
        await engine(steady(delay=1.0, budget=budget)).call(script)
    assert scope.cancelled_caught
    assert budget.tokens == 500
    async with cancelled_after(0.5):
        await engine(steady(delay=1.0, budget=None)).call(FaultScript(DownError, "up"))
    await anyio.sleep(5)
    assert len(script.calls) == 1


async def test_a_cancellation_is_not_a_failure(engine: Engine) -> None:
    recorder = EventRecorder()
    script = FaultScript(Delay(10.0, "late"), "up")
    with anyio.move_on_after(1.0) as scope:
        await engine(steady(listeners=[recorder])).call(script)
    assert scope.cancelled_caught
    assert recorder.events == []
    assert len(script.calls) == 1


async def test_a_cancellation_while_a_result_is_closed_costs_nothing(engine: Engine) -> None:
    class Response:
        async def aclose(self) -> None:
            await anyio.sleep_forever()

    budget = TokenBudget()
    async with cancelled_after(1.0) as scope:
        await engine(steady(budget=budget, on_result=always)).call(FaultScript(Response(), "up"))
    assert scope.cancelled_caught
    assert budget.tokens == 500


async def test_timeouts_of_attempts_are_failures(engine: Engine) -> None:
    script = FaultScript(Delay(5.0, "late"), "up")
    assert await engine(steady(), Timeout(1.0)).call(script) == "up"
    assert script.started == [0.0, 2.0]


async def test_what_an_attempt_holds_for_its_result_is_let_go_with_it() -> None:
    left: list[object] = []

    from resilience import Guard

    class Gate(Guard[str]):
        def enter(self, call: Call) -> str:
            return f"token {call.attempt}"

        def leave(self, call: Call, token: str, result: Any, error: BaseException | None) -> None:
            left.append((token, result, error))

    lease = Lease()
    call = Call(Operation("op"), FaultScript("bad", "good"), lease=lease)
    pipeline = Pipeline(steady(on_result=is_bad), Gate())
    assert await pipeline.run(call) == "good"
    assert left == [("token 1", "bad", None)]
    lease.close()
    assert left[1:] == [("token 2", "good", None)]


def test_blocks_and_generators_are_refused() -> None:
    message = "Retry cannot guard a block or an async generator"

    async def numbers() -> AsyncIterator[int]:
        yield 1

    decorate: Any = Retry()  # type checkers refuse it too: tests/typing
    with pytest.raises(TypeError, match=message):
        decorate(numbers)
    with pytest.raises(TypeError, match=message):
        Pipeline(Timeout(1), Retry()).guard()
    with pytest.raises(TypeError, match=message):
        Retry().bind(key="a").guard()
    assert not hasattr(Retry(), "guard")


def test_it_works_in_a_second_run() -> None:
    retry = steady(delay=1.0)
    for backend in ("asyncio", "asyncio", "trio", "asyncio"):
        assert run(retry.call, FaultScript(DownError, "up"), backend=backend) == "up"


async def test_a_timed_out_attempt_is_what_is_raised_in_the_end(engine: Engine) -> None:
    with pytest.raises(TimedOutError) as caught:
        await engine(steady(2), Timeout(1.0)).call(FaultScript(Delay(5.0), repeat=True))
    assert caught.value.__notes__ == ["Retry gave up after 2 attempts: attempts"]
