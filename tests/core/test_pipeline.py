from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from resilience import (
    Bulkhead,
    Cache,
    Call,
    CircuitBreaker,
    Fallback,
    Guard,
    HazardWarning,
    Pipeline,
    Policy,
    RateLimitedError,
    RateLimiter,
    Retry,
    TimedOutError,
    Timeout,
)
from resilience.call import Handler
from resilience.events import CallFailed, CallSucceeded
from resilience.testing import HANG, Delay, EventRecorder, FaultScript, run
from tests.support.engine import Engine
from tests.support.failures import DownError
from tests.support.scopes import cancelled_after

WORD: ContextVar[str] = ContextVar("word")

pytestmark = pytest.mark.anyio


class Tracer(Guard[str]):
    """A guard of one's own."""

    def __init__(self, name: str, log: list[str], refuse: bool = False, wait: float | None = None) -> None:
        super().__init__(name)
        self.log = log
        self.refuse = refuse
        self.seconds = wait

    def enter(self, call: Call) -> str | None:
        self.log.append(f"+{self.name}")
        if self.refuse:
            raise PermissionError(self.name)
        return None if self.seconds is not None else self.name

    async def wait(self, call: Call) -> str:
        if self.seconds is None:
            return await super().wait(call)
        await anyio.sleep(self.seconds)
        return self.name

    def leave(self, call: Call, token: str, result: Any, error: BaseException | None) -> None:
        assert token == self.name
        self.log.append(f"-{self.name} {type(error).__name__ if error else result}")


async def test_the_first_listed_is_the_outermost(engine: Engine) -> None:
    log: list[str] = []
    protected = engine(Tracer("a", log), Tracer("b", log, wait=1.0), Tracer("c", log))
    await protected.call(FaultScript("x"))
    assert log == ["+a", "+b", "+c", "-c x", "-b x", "-a x"]
    log.clear()
    with pytest.raises(KeyError):
        await protected.call(FaultScript(KeyError))
    assert log == ["+a", "+b", "+c", "-c KeyError", "-b KeyError", "-a KeyError"]
    log.clear()
    async with protected.guard():
        log.append("in")
    assert log == ["+a", "+b", "+c", "in", "-c None", "-b None", "-a None"]


async def test_a_refusal_inside_is_the_outcome_for_those_outside(engine: Engine) -> None:
    log: list[str] = []
    protected = engine(Tracer("a", log), Tracer("b", log, refuse=True), Tracer("c", log))
    with pytest.raises(PermissionError):
        await protected.call(FaultScript("never"))
    assert log == ["+a", "+b", "-a PermissionError"]
    log.clear()
    with pytest.raises(PermissionError):
        await protected.guard().__aenter__()
    assert log == ["+a", "+b", "-a PermissionError"]


async def test_a_guard_that_waits_without_knowing_how_is_an_error(engine: Engine) -> None:
    class Lazy(Guard[str]):
        def enter(self, call: Call) -> str | None:
            return None

        def leave(self, call: Call, token: str, result: Any, error: BaseException | None) -> None:
            raise AssertionError("never entered")

    with pytest.raises(RuntimeError, match=r"Lazy.enter returned None, but it has no wait method"):
        await engine(Lazy()).call(FaultScript("never"))


async def test_a_cancelled_wait_leaves_those_outside(engine: Engine) -> None:
    log: list[str] = []
    protected = engine(Tracer("a", log), Tracer("b", log, wait=9.0))
    async with cancelled_after(1):
        async with protected.guard():
            log.append("never")
    async with cancelled_after(1):
        await protected.call(FaultScript("never"))
    assert [line.split()[0] for line in log] == ["+a", "+b", "-a"] * 2


async def test_an_error_raised_on_leaving_replaces_the_outcome_for_those_outside(engine: Engine) -> None:
    log: list[str] = []

    class Broken(Tracer):
        def leave(self, call: Call, token: str, result: Any, error: BaseException | None) -> None:
            raise OSError("broken")

    protected = engine(Tracer("a", log), Broken("b", log), Tracer("c", log))
    with pytest.raises(OSError, match="broken"):
        await protected.call(FaultScript("x"))
    assert log == ["+a", "+b", "+c", "-c x", "-a OSError"]
    log.clear()
    with pytest.raises(OSError, match="broken"):
        async with protected.guard():
            pass
    assert log == ["+a", "+b", "+c", "-c None", "-a OSError"]
    log.clear()
    refusing = engine(Tracer("a", log), Broken("b", log), Tracer("c", log, refuse=True))
    with pytest.raises(OSError, match="broken") as caught:
        await refusing.guard().__aenter__()
    assert isinstance(caught.value.__context__ or caught.value.__cause__, PermissionError)


async def test_an_empty_pipeline_does_nothing() -> None:
    assert await Pipeline().call(FaultScript("x")) == "x"
    async with Pipeline().guard(key="k", cost=2) as call:
        assert (call.key, call.cost, call.attempt) == ("k", 2, 1)


async def test_a_policy_of_ones_own(engine: Engine) -> None:
    class Twice(Policy):
        def wrap(self, proceed: Handler) -> Handler:
            async def twice(call: Call) -> Any:
                return [await proceed(call), await proceed(call)]

            return twice

    assert await engine(Twice(), Timeout(1)).call(FaultScript(1, 2)) == [1, 2]
    with pytest.raises(TypeError, match="Twice cannot guard a block"):
        Pipeline(Twice()).guard()
    assert repr(Twice("mine")) == "<Twice 'mine'>"


async def test_pipelines_nest(engine: Engine) -> None:
    log: list[str] = []
    inner = Pipeline(Tracer("b", log), Pipeline(Tracer("c", log)), name="inner")
    protected = engine(Tracer("a", log), inner, Tracer("d", log))
    await protected.call(FaultScript("x"))
    assert log == ["+a", "+b", "+c", "+d", "-d x", "-c x", "-b x", "-a x"]
    log.clear()
    async with protected.guard():
        pass
    assert [line[:2] for line in log] == ["+a", "+b", "+c", "+d", "-d", "-c", "-b", "-a"]


@pytest.mark.parametrize("wrong", [Timeout, 5, None, print])
def test_what_is_no_policy_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="policies must be Policy objects, got"):
        Pipeline(Timeout(1), wrong)


async def test_whole_calls_are_reported(engine: Engine) -> None:
    recorder = EventRecorder()
    pipeline = Pipeline(Retry(2, random=lambda: 0.0), name="api", listeners=[recorder])
    await pipeline.call(FaultScript(Delay(1, DownError), Delay(2, "up")))
    error = KeyError()
    with pytest.raises(KeyError):
        await Pipeline(Timeout(9), name="api", listeners=[recorder]).call(FaultScript(Delay(1, error)))
    async with cancelled_after(1):
        await pipeline.call(FaultScript(HANG))
    scheduled, succeeded, failed = recorder.events
    assert scheduled.kind == "retry_scheduled"
    assert succeeded == CallSucceeded("api", "api", 3.0, 2)
    assert failed == CallFailed("api", "api", 1.0, 1, error)


async def test_listeners_hear_every_policy_until_they_stop(engine: Engine) -> None:
    inner = Timeout(1, name="inner")
    pipeline = Pipeline(Pipeline(inner, name="nested"), name="outer")
    recorder = EventRecorder()
    stop = pipeline.listen(recorder)
    pipeline.listen(recorder)  # twice is once
    with pytest.raises(TimedOutError):
        await pipeline.call(FaultScript(HANG))
    assert [(event.kind, event.policy) for event in recorder.events] == [
        ("call_timed_out", "inner"),
        ("call_failed", "nested"),
        ("call_failed", "outer"),
    ]
    stop()
    stop()
    recorder.clear()
    with pytest.raises(TimedOutError):
        await pipeline.call(FaultScript(HANG))
    assert recorder.events == []


async def test_a_listener_added_later_is_heard_from_then_on(engine: Engine) -> None:
    pipeline = Pipeline(Timeout(1))
    guarded = pipeline(FaultScript("a", "b"))
    await guarded()
    recorder = EventRecorder()
    pipeline.listen(recorder)
    await guarded()
    assert recorder.kinds() == ["call_succeeded"]


async def test_one_policy_in_several_pipelines_shares_its_state() -> None:
    limiter = RateLimiter("2/s", max_wait=0)
    first, second = Pipeline(limiter, Timeout(1)), Pipeline(Timeout(2), limiter)
    await first.call(FaultScript(1))
    await second.call(FaultScript(1))
    with pytest.raises(RateLimitedError):
        await first.call(FaultScript(1))


async def test_the_standard_order() -> None:
    fallback, bulkhead, retry = Fallback("spare"), Bulkhead(5), Retry()
    breaker, limiter = CircuitBreaker(), RateLimiter("10/s")
    pipeline = Pipeline.standard(
        fallback=fallback, bulkhead=bulkhead, retry=retry, breaker=breaker, limiter=limiter, name="standard"
    )
    whole, attempt = pipeline.policies[1], pipeline.policies[-1]
    assert pipeline.policies == (fallback, whole, bulkhead, retry, breaker, limiter, attempt)
    assert isinstance(whole, Timeout)
    assert isinstance(attempt, Timeout)
    assert (whole.name, whole.seconds, attempt.name, attempt.seconds) == ("Timeout", 10.0, "AttemptTimeout", 2.0)
    assert await pipeline.call(FaultScript(DownError, "up")) == "up"
    assert Pipeline.standard(timeout=None, attempt_timeout=None).policies == ()


def test_hazards_are_warned_of_when_built() -> None:
    shared = Timeout(5)
    hazardous: dict[str, tuple[Policy, ...]] = {
        "the inner timeout of 3 s never fires, because the outer one of 2 s": (Timeout(2), Timeout(3)),
        "a retry around a fallback never sees a failure": (Retry(), Fallback(1)),
        "nested retries multiply: 3 x 4 attempts at worst": (Retry(3), Timeout(1), Retry(4)),
        "a breaker around a retry sees one outcome for several attempts": (CircuitBreaker(), Retry()),
        "a rate limiter around a retry does not count the retries": (RateLimiter("1/s"), Retry()),
        "a breaker around a fallback never sees a failure": (CircuitBreaker(), Fallback(1)),
        "a cache around a fallback keeps its answers as long as good ones": (Cache(60), Fallback(1)),
        "a breaker around a cache takes hits for successes": (CircuitBreaker(), Cache(60)),
        "Timeout is listed twice": (shared, shared),
        r"the window of CircuitBreaker \(2 s\) is shorter than the shortest timeout \(5 s\)": (
            CircuitBreaker(period=2.0),
            Timeout(5),
        ),
        "nested retries multiply: 2 x 2": (Pipeline(Retry(2)), Pipeline(Pipeline(Retry(2)))),
    }
    for message, policies in hazardous.items():
        with pytest.warns(HazardWarning, match=message) as caught:
            Pipeline(*policies, name="risky")
        assert str(caught[0].message).startswith("risky: ")
        assert caught[0].filename == __file__


def test_sound_orders_are_not() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Pipeline(Timeout(10), Bulkhead(5), Retry(), CircuitBreaker(), RateLimiter("1/s"), Timeout(2))
        Pipeline(Fallback(1), Retry(), CircuitBreaker(period=60.0), Timeout(5))
        Pipeline(Fallback(1), Cache(60), Timeout(10), Retry(), CircuitBreaker(), Timeout(2))
        Pipeline(CircuitBreaker(period=2.0))
        Pipeline()


async def test_outcomes_as_values(engine: Engine) -> None:
    protected = engine(Timeout(1), Bulkhead(1))
    outcome = await protected.outcome(FaultScript("x"), 1, a=2)
    assert (outcome.ok, outcome.rejected, outcome.error, outcome.value) == (True, False, None, "x")
    assert repr(outcome) == "Outcome('x')"
    error = DownError("down")
    failed = await protected.outcome(FaultScript(error))
    assert (failed.ok, failed.rejected, failed.error) == (False, False, error)
    with pytest.raises(DownError) as caught:
        failed.value
    assert caught.value is error
    assert repr(failed) == "Outcome(error=DownError('down'))"
    async with protected.guard():
        refused = await protected.outcome(FaultScript("never"))
    assert refused.rejected
    reached: list[str] = []
    async with cancelled_after(0.5):
        await protected.outcome(FaultScript(HANG))
        reached.append("a cancellation is no outcome")
    assert reached == []


async def test_policies_are_made_once_and_used_from_several_tasks(engine: Engine) -> None:
    pipeline = engine(Timeout(5), Bulkhead(10, queue=100), Retry(2, random=lambda: 0.0), CircuitBreaker(), Timeout(2))
    results: list[Any] = []

    async def one(number: int) -> None:
        script = FaultScript(Delay(0.1, DownError), Delay(0.1, number)) if number % 10 == 0 else FaultScript(number)
        results.append(await pipeline.call(script))

    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(one, number)
    assert sorted(results) == list(range(50))


def test_a_pipeline_made_outside_works_in_several_runs() -> None:
    pipeline = Pipeline(
        Timeout(5), Bulkhead(2, queue=9), Retry(random=lambda: 0.0), CircuitBreaker(), RateLimiter("100/s"), Timeout(1)
    )
    scripts: list[FaultScript] = []

    @pipeline
    async def work() -> Any:
        return await scripts[-1]()

    async def main() -> Any:
        scripts.append(FaultScript(DownError, HANG, "third"))
        return await work()

    for backend in ("asyncio", "asyncio", "trio", "asyncio", "trio"):
        assert run(main, backend=backend) == "third"


async def test_guards_of_a_pipeline_around_a_generator(engine: Engine) -> None:
    log: list[str] = []

    @engine(Tracer("a", log), Tracer("b", log, wait=1.0))
    async def numbers() -> AsyncGenerator[int, None]:
        yield 1
        log.append("more")
        yield 2

    assert [number async for number in numbers()] == [1, 2]
    assert log == ["+a", "+b", "more", "-b None", "-a None"]


async def test_a_call_runs_in_the_task_and_context_of_its_caller(engine: Engine) -> None:
    protected = engine(Timeout(5), Bulkhead(1), Retry(2, random=lambda: 0.0), CircuitBreaker(), Timeout(2))
    seen: list[str] = []
    failures = iter([True, False])
    task = anyio.get_current_task()

    async def work() -> None:
        seen.append(WORD.get())
        WORD.set("from inside")
        assert anyio.get_current_task() == task
        if next(failures):
            raise DownError

    WORD.set("from outside")
    await protected.call(work)
    assert seen == ["from outside", "from inside"]
    assert WORD.get() == "from inside"
