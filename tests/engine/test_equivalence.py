"""The fast path means what the hooks mean: the same random history, twice, leaves the same trace."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resilience import BreakerMetrics, BreakerState, CircuitBreaker, CircuitOpenError
from resilience.engine import build
from resilience.testing import VirtualClock
from resilience.testing.virtual_time import Backend
from tests.support.rules import LONG

from .play import run
from .scripts import Script, scripts
from .world import on_fast_path

EXAMPLES = {"asyncio": 1000 if LONG else 300, "trio": 400 if LONG else 100}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_both_paths_leave_the_same_trace(backend: Backend) -> None:
    fused: Counter[str] = Counter()
    plain: Counter[str] = Counter()

    @settings(
        max_examples=EXAMPLES[backend],
        deadline=None,
        # Two tasks whose timers fall on one instant run in no particular order, which some scripts cannot avoid:
        # always the same scripts, so that a difference is a difference between the paths.
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(scripts)
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
