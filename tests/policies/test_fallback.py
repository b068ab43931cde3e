from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from resilience import (
    CircuitOpenError,
    Classifier,
    Fallback,
    LastGood,
    Pipeline,
    Retry,
    TimedOutError,
    Timeout,
    Value,
    Verdict,
)
from resilience.events import FallbackUsed
from resilience.testing import HANG, Delay, EventRecorder, FaultScript
from tests.support.engine import Engine
from tests.support.failures import DownError, always, broken, is_bad, is_down
from tests.support.scopes import cancelled_after

WRONG_ON: dict[str, Any] = {"on": 5}
WRONG_RESULT: dict[str, Any] = {"on_result": 5}

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Fallback(), ValueError, "sources must hold at least one value or function"),
        (lambda: Fallback(1, **WRONG_ON), TypeError, "on must be exception types"),
        (lambda: Fallback(1, **WRONG_RESULT), TypeError, "on_result must be a predicate"),
        (lambda: LastGood(0), ValueError, "max_age must be greater than 0, got 0"),
        (lambda: LastGood(math.inf), ValueError, "max_age must be finite, got inf"),
        (lambda: LastGood(1, max_keys=0), ValueError, "max_keys must be at least 1, got 0"),
    ],
)
def test_bad_options_are_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


async def test_a_success_needs_no_fallback(engine: Engine) -> None:
    recorder = EventRecorder()
    assert await engine(Fallback("spare", listeners=[recorder])).call(FaultScript("up")) == "up"
    assert recorder.events == []


async def test_a_value(engine: Engine) -> None:
    recorder = EventRecorder()
    error = DownError()
    protected = engine(Fallback("spare", listeners=[recorder]))

    @protected
    async def fetch() -> str:
        raise error

    assert await fetch() == "spare"
    (used,) = recorder.of(FallbackUsed)
    assert (used.source, used.error, used.operation) == ("value", error, fetch.__qualname__)


async def test_none_is_a_value_and_a_callable_value_is_given_as_it_is(engine: Engine) -> None:
    assert await engine(Fallback(None)).call(FaultScript(DownError)) is None
    assert await engine(Fallback(Value(len))).call(FaultScript(DownError)) is len


async def test_functions_get_the_arguments(engine: Engine) -> None:
    recorder = EventRecorder()

    def spare(number: int, *, word: str) -> str:
        return f"{number} {word}"

    async def slow_spare(number: int, *, word: str) -> str:
        await anyio.sleep(1)
        return f"{word} {number}"

    assert await engine(Fallback(spare, listeners=[recorder])).call(FaultScript(DownError), 1, word="one") == "1 one"
    assert recorder.of(FallbackUsed)[0].source == "function"
    assert await engine(Fallback(slow_spare)).call(FaultScript(DownError), 1, word="one") == "one 1"


async def test_functions_may_get_the_error_first(engine: Engine) -> None:
    def spare(error: Exception | None, number: int) -> tuple[str, int]:
        return type(error).__name__, number

    protected = engine(Fallback(spare, with_error=True, on_result=is_bad))
    assert await protected.call(FaultScript(DownError), 1) == ("DownError", 1)
    assert await protected.call(FaultScript("bad"), 2) == ("NoneType", 2)


async def test_a_chain_goes_on_to_the_first_that_works(engine: Engine) -> None:
    recorder = EventRecorder()
    replica = FaultScript(DownError)
    cache = FaultScript("cached")
    assert (
        await engine(Fallback(replica, cache, "never", listeners=[recorder])).call(FaultScript(KeyError), 7) == "cached"
    )
    assert replica.calls == cache.calls == [((7,), {})]
    assert len(recorder.events) == 1


async def test_if_all_fail_the_original_error_is_raised_with_a_note(engine: Engine) -> None:
    error = DownError("first")
    with pytest.raises(DownError) as caught:
        await engine(Fallback(FaultScript(KeyError), FaultScript(OSError), name="spare")).call(FaultScript(error))
    assert caught.value is error
    assert error.__notes__ == ["spare: every fallback failed too"]


async def test_if_all_fail_the_original_value_is_returned_and_not_closed(engine: Engine) -> None:
    closed: list[int] = []

    class Response:
        async def aclose(self) -> None:
            closed.append(1)

    response = Response()
    protected = engine(Fallback(FaultScript(KeyError, "spare"), on_result=lambda value: value is response))
    assert await protected.call(FaultScript(response)) is response
    assert closed == []
    assert await protected.call(FaultScript(response)) == "spare"
    assert closed == [1]  # replaced


@pytest.mark.parametrize(
    "options",
    [
        {"on": DownError},
        {"on": (DownError, OSError)},
        {"on": is_down},
        {"on": Classifier(error=lambda error: Verdict.FAILURE if is_down(error) else Verdict.SUCCESS)},
    ],
    ids=["type", "types", "predicate", "classifier"],
)
async def test_only_what_counts_as_failed_is_answered(options: dict[str, Any], engine: Engine) -> None:
    protected = engine(Fallback("spare", **options))
    assert await protected.call(FaultScript(DownError)) == "spare"
    with pytest.raises(KeyError):
        await protected.call(FaultScript(KeyError))
    with pytest.raises(CircuitOpenError):
        await protected.call(FaultScript(CircuitOpenError("open")))


async def test_rejections_and_timeouts_are_answered(engine: Engine) -> None:
    assert await engine(Fallback("spare")).call(FaultScript(CircuitOpenError("open"))) == "spare"
    assert await engine(Fallback("spare"), Timeout(1)).call(FaultScript(HANG)) == "spare"


async def test_the_classifier_of_the_pipeline_judges_but_rejections_are_always_answered() -> None:
    classifier = Classifier(
        error=lambda error: Verdict.IGNORED,
        result=lambda value: Verdict.FAILURE if is_bad(value) else Verdict.SUCCESS,
    )
    pipeline = Pipeline(Fallback("spare"), classifier=classifier)
    assert await pipeline.call(FaultScript("bad")) == "spare"
    assert await pipeline.call(FaultScript("good")) == "good"
    assert await pipeline.call(FaultScript(CircuitOpenError("open"))) == "spare"
    with pytest.raises(DownError):
        await pipeline.call(FaultScript(DownError))


async def test_a_cancellation_is_never_answered(engine: Engine) -> None:
    answered: list[str] = []
    async with cancelled_after(1):
        answered.append(await engine(Fallback("spare")).call(FaultScript(HANG)))
    async with cancelled_after(1):
        answered.append(await engine(Fallback(FaultScript(HANG), "spare")).call(FaultScript(DownError)))
    assert answered == []


async def test_a_bad_value_is_closed_if_its_replacement_is_cancelled(engine: Engine) -> None:
    closed: list[int] = []

    class Response:
        def close(self) -> None:
            closed.append(1)

    async with cancelled_after(1):
        await engine(Fallback(FaultScript(HANG), on_result=always)).call(FaultScript(Response()))
    assert closed == [1]


async def test_a_broken_predicate_is_raised(engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError):
        await engine(Fallback("spare", on=broken)).call(FaultScript(DownError()))
    with pytest.raises(ZeroDivisionError):
        await engine(Fallback("spare", on_result=broken)).call(FaultScript("value"))


async def test_the_last_good_value_is_kept_for_a_while(engine: Engine) -> None:
    recorder = EventRecorder()
    protected = engine(Fallback(LastGood(60), "spare", on_result=is_bad, listeners=[recorder]))
    assert await protected.call(FaultScript(DownError)) == "spare"
    assert await protected.call(FaultScript("good")) == "good"
    await anyio.sleep(60)
    assert await protected.call(FaultScript(DownError)) == "good"
    assert await protected.call(FaultScript("bad")) == "good"  # a bad value is not kept
    await anyio.sleep(0.1)
    assert await protected.call(FaultScript(DownError)) == "spare"
    assert [event.source for event in recorder.of(FallbackUsed)] == ["value", "last_good", "last_good", "value"]


async def test_good_values_are_kept_by_key(engine: Engine) -> None:
    protected = engine(Fallback(LastGood(60)))
    await protected.bind(key="a").call(FaultScript("of a"))
    await protected.bind(key="b").call(FaultScript("of b"))
    assert await protected.bind(key="a").call(FaultScript(DownError)) == "of a"
    assert await protected.bind(key="b").call(FaultScript(DownError)) == "of b"
    with pytest.raises(DownError):
        await protected.bind(key="c").call(FaultScript(DownError))


async def test_few_keys_are_kept() -> None:
    last_good = LastGood(60, max_keys=4)
    for number in range(20):
        last_good.keep(str(number), number)
    assert last_good.find("19") == 19
    with pytest.raises(LookupError, match="no good value for '0' in the last 60 s"):
        last_good.find("0")


async def test_none_can_be_a_good_value(engine: Engine) -> None:
    protected = engine(Fallback(LastGood(60), "spare"))
    await protected.call(FaultScript(None))
    assert await protected.call(FaultScript(DownError)) is None


async def test_outside_of_everything_it_answers_for_all(engine: Engine) -> None:
    retry = Retry(2, random=lambda: 0.0)
    script = FaultScript(DownError, Delay(5))
    assert await engine(Fallback("spare"), Timeout(9), retry, Timeout(1)).call(script) == "spare"
    assert len(script.calls) == 2


async def test_a_fallback_may_be_protected_itself(engine: Engine) -> None:
    spare = Timeout(1)(FaultScript(HANG))
    with pytest.raises(DownError) as caught:
        await engine(Fallback(spare)).call(FaultScript(DownError))
    assert not isinstance(caught.value, TimedOutError)


def test_blocks_and_generators_are_refused() -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1

    decorate: Any = Fallback("spare")
    with pytest.raises(TypeError, match="Fallback cannot guard a block or an async generator"):
        decorate(numbers)
    with pytest.raises(TypeError, match="Fallback cannot guard"):
        Pipeline(Timeout(1), Fallback("spare")).guard()
