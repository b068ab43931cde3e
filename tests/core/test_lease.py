from __future__ import annotations

from typing import Any

import anyio
import pytest

from resilience import Bulkhead, BulkheadFullError, Call, CircuitBreaker, Lease, Operation, TimedOutError, Timeout
from resilience.call import close_result, leave_all
from resilience.testing import FaultScript
from tests.support.engine import Engine

pytestmark = pytest.mark.anyio


def streamed(lease: Lease, *lines: Any) -> Call:
    return Call(Operation("stream"), FaultScript(*lines), lease=lease)


async def test_guards_stay_until_the_lease_is_closed(engine: Engine) -> None:
    bulkhead, breaker = Bulkhead(1), CircuitBreaker()
    protected = engine(bulkhead, breaker)
    lease = Lease()
    assert await protected.run(streamed(lease, "headers")) == "headers"
    assert bulkhead.in_use() == 1
    assert breaker.metrics().calls == 0
    with pytest.raises(BulkheadFullError):
        await protected.call(FaultScript("never"))
    lease.close()
    lease.close()  # again does nothing
    assert bulkhead.in_use() == 0
    assert (breaker.metrics().calls, breaker.metrics().failures) == (1, 0)


async def test_what_breaks_the_result_is_the_verdict(engine: Engine) -> None:
    breaker = CircuitBreaker()
    lease = Lease()
    await engine(breaker).run(streamed(lease, "headers"))
    lease.close(ConnectionResetError())
    assert breaker.metrics().failures == 1


async def test_a_call_that_fails_holds_nothing(engine: Engine) -> None:
    bulkhead = Bulkhead(1)
    lease = Lease()
    with pytest.raises(KeyError):
        await engine(bulkhead).run(streamed(lease, KeyError))
    assert bulkhead.in_use() == 0
    lease.close()


async def test_the_deadline_goes_on_in_the_steps(engine: Engine) -> None:
    lease = Lease()
    await engine(Timeout(5.0, name="long"), Timeout(2.0, name="short")).run(streamed(lease, "headers"))
    await anyio.sleep(1.5)  # between steps nothing is cancelled
    assert await lease.step(FaultScript("part")) == "part"
    with pytest.raises(TimedOutError) as caught:
        await lease.step(anyio.sleep_forever)
    assert caught.value.policy == "short"
    assert anyio.current_time() == 2.0
    lease.close(caught.value)


@pytest.mark.filterwarnings("ignore::resilience.HazardWarning")
async def test_of_several_deadlines_the_earliest_counts(engine: Engine) -> None:
    lease = Lease()
    await engine(Timeout(1.0, name="outer"), Timeout(2.0, name="inner")).run(streamed(lease, "headers"))
    with pytest.raises(TimedOutError) as caught:
        await lease.step(anyio.sleep_forever)
    assert caught.value.policy == "outer"
    with pytest.raises(KeyError):
        await lease.step(FaultScript(KeyError))


@pytest.mark.parametrize(("whole", "attempt", "failures"), [(2.0, 5.0, 0), (5.0, 2.0, 1)])
@pytest.mark.filterwarnings("ignore::resilience.HazardWarning")
async def test_a_timeout_further_out_is_no_failure_of_the_dependency(
    engine: Engine, whole: float, attempt: float, failures: int
) -> None:
    breaker, lease = CircuitBreaker(), Lease()
    protected = engine(Timeout(whole, name="whole"), breaker, Timeout(attempt, name="attempt"))
    await protected.run(streamed(lease, "headers"))
    with pytest.raises(TimedOutError) as caught:
        await lease.step(anyio.sleep_forever)
    lease.close(caught.value)
    assert (breaker.metrics().calls, breaker.metrics().failures) == (failures, failures)


async def test_steps_without_a_deadline_are_just_awaited() -> None:
    assert await Lease().step(FaultScript("part")) == "part"


async def test_every_guard_leaves_even_if_one_raises() -> None:
    left: list[str] = []

    class Broken(Bulkhead):
        def leave(self, call: Call, token: Any, result: Any, error: BaseException | None) -> None:
            left.append(f"{self.name} {type(error).__name__}")
            super().leave(call, token, result, error)
            raise OSError(self.name)

    call = Call(Operation("op"), FaultScript(1))
    guards = [Broken(1, name="inner"), Broken(1, name="outer")]
    held = [(guard, call, guard.enter(call), None) for guard in guards]
    remaining = leave_all(held, KeyError())
    assert left == ["inner KeyError", "outer OSError"]
    assert str(remaining) == "outer"


async def test_closing_a_result_never_raises() -> None:
    closed: list[str] = []

    class Both:
        def close(self) -> None:
            closed.append("close")

        async def aclose(self) -> None:
            closed.append("aclose")

    class Broken:
        def close(self) -> None:
            raise OSError

    class Odd:
        close = "not callable"

    for result in (Both(), Broken(), Odd(), None, 5):
        await close_result(result)
    assert closed == ["aclose"]
