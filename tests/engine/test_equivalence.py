"""The fast path means what the hooks mean: the same random history, twice, leaves the same trace."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from resilience import BreakerMetrics, BreakerState, CircuitBreaker, CircuitOpenError
from resilience.engine import build
from resilience.testing import VirtualClock
from resilience.testing.virtual_time import Backend
from tests.support.rules import LONG

from .play import run
from .scripts import Attempt, Caller, PolicySpec, Script, scripts
from .world import on_fast_path

EXAMPLES = {"asyncio": 5000 if LONG else 300, "trio": 2000 if LONG else 100}
PARTS = 4 if LONG else 1
"""So many tests share the examples, each with others: the workers of a long run get equal parts."""


_RETRY = {"backoff": "full", "base": 1, "on": None, "on_result": None, "budget": "own"}
_LIMITER = {
    **{"algorithm": "gcra", "limit": 1, "period": 64, "burst": 8, "second": False},
    **{"cost": "cost", "max_wait": None, "mode": "enforce", "keyed": False},
}
_BULKHEAD = {"limit": 1, "queue": 1, "max_wait": None, "weight": 1, "mode": "enforce", "keyed": False}


def _caller(*steps: tuple[str, int]) -> Caller:
    return Caller(0, "function", "", 1, (Attempt(steps, "good"),), None)


MEETING = Script(
    (
        PolicySpec("Retry", _RETRY | {"attempts": 2}),
        PolicySpec("RateLimiter", _LIMITER),
        PolicySpec("Timeout", {"seconds": 1}),
        PolicySpec("Retry", _RETRY | {"attempts": 1, "on_result": "broken"}),
        PolicySpec("Bulkhead", _BULKHEAD),
    ),
    (_caller(("sleep", 64)), _caller()),
    (),
    False,
    "default",
)
"""One caller's deadline lets another in; both fail, and would come back together and run into one deadline."""


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_both_paths_leave_the_same_trace(backend: Backend, part: int) -> None:
    fused: Counter[str] = Counter()
    plain: Counter[str] = Counter()

    @settings(
        max_examples=EXAMPLES[backend] // PARTS,
        deadline=None,
        derandomize=not LONG,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(scripts)
    @example(MEETING)
    def check(script: Script) -> None:
        expected = run(script, backend, False, plain)
        assert run(script, backend, True, fused) == expected

    check()
    assert plain["fast"] == 0
    assert fused["attempts"] == plain["attempts"]
    # Under trio only rows without a Timeout are fused, and two thirds of the rows have one.
    assert fused["fast"] > fused["attempts"] * (0.25 if backend == "asyncio" else 0.05), fused


def counted(size: int, rate: float, outcomes: list[bool], fused: bool) -> list[BreakerMetrics]:
    """What a breaker counts after each of a row of calls."""
    breaker = CircuitBreaker(count=size, minimum_calls=size, failure_rate=rate, random=lambda: 0.0)
    seen: list[BreakerMetrics] = []
    virtual = VirtualClock()

    async def work(good: bool) -> None:
        assert on_fast_path() == (fused and breaker.state() is BreakerState.CLOSED)
        if not good:
            raise ConnectionError

    async def main() -> None:
        guarded = breaker(work)
        for good in outcomes:
            try:
                await guarded(good)
            except (ConnectionError, CircuitOpenError):
                virtual.advance(1.0)
            seen.append(breaker.metrics())

    before, build.fused = build.fused, fused
    try:
        with virtual.installed():
            virtual.run(main)
    finally:
        build.fused = before
    return seen


@settings(max_examples=EXAMPLES["asyncio"] // 2, deadline=None, derandomize=not LONG)
@given(st.integers(1, 6), st.sampled_from([0.4, 0.7, 1.0]), st.lists(st.booleans(), max_size=40))
def test_a_window_counts_the_same_on_both_paths(size: int, rate: float, outcomes: list[bool]) -> None:
    assert counted(size, rate, outcomes, True) == counted(size, rate, outcomes, False)
