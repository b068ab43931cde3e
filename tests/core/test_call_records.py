"""What a call brings along itself counts, whichever path it takes through a pipeline."""

from __future__ import annotations

from typing import Any

import pytest

from resilience import (
    Backoff,
    Bulkhead,
    Call,
    CircuitBreaker,
    CircuitOpenError,
    Classifier,
    Operation,
    Pipeline,
    Policy,
    RateLimitedError,
    RateLimiter,
    Retry,
    Verdict,
)

pytestmark = pytest.mark.anyio


def alone(policy: Policy) -> Policy:
    return policy


async def work() -> str:
    return "done"


@pytest.mark.parametrize("around", [Pipeline, alone])
async def test_a_key_picks_the_partition(around: Any) -> None:
    breaker = CircuitBreaker()
    policy: Policy = around(breaker)
    breaker.isolate("eu")
    assert await policy.call(work) == "done"
    assert await policy.bind(key="us").call(work) == "done"
    with pytest.raises(CircuitOpenError):
        await policy.bind(key="eu").call(work)
    assert (breaker.metrics().calls, breaker.metrics("us").calls) == (1, 1)
    breaker.isolate()
    assert await policy.bind(key="us").call(work) == "done"
    with pytest.raises(CircuitOpenError):
        await policy.call(work)


async def test_permits_are_counted_per_key() -> None:
    bulkhead = Bulkhead(1)

    async def look() -> tuple[int, int]:
        return bulkhead.in_use(), bulkhead.in_use("eu")

    assert await Pipeline(bulkhead).bind(key="eu").call(look) == (0, 1)


@pytest.mark.parametrize("around", [Pipeline, alone])
async def test_a_cost_is_charged(around: Any) -> None:
    policy: Policy = around(RateLimiter("10/hour", max_wait=0))
    await policy.call(work)
    await policy.bind(cost=8.5).call(work)
    with pytest.raises(RateLimitedError):
        await policy.call(work)


async def test_results_are_judged_by_the_classifier_of_the_call() -> None:
    breaker = CircuitBreaker()
    retry = Retry(2, backoff=Backoff.none())
    failing = Classifier(result=lambda result: Verdict.FAILURE)
    call = Call(Operation("mine", classifier=failing), work)
    assert await Pipeline(retry, breaker).run(call) == "done"
    assert (call.attempt, breaker.metrics().failures) == (2, 2)
