"""The fast path means what the hooks mean: the same random history, twice, leaves the same trace."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings

from resilience.testing.virtual_time import Backend
from tests.support.rules import LONG

from .play import run
from .scripts import Script, scripts

EXAMPLES = {"asyncio": 5000 if LONG else 300, "trio": 2000 if LONG else 100}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_both_paths_leave_the_same_trace(backend: Backend) -> None:
    fused: Counter[str] = Counter()
    plain: Counter[str] = Counter()

    @settings(
        max_examples=EXAMPLES[backend],
        deadline=None,
        derandomize=not LONG,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(scripts)
    def check(script: Script) -> None:
        expected = run(script, backend, False, plain)
        assert run(script, backend, True, fused) == expected

    check()
    print(plain, fused)
    assert plain["fast"] == 0
    assert fused["attempts"] == plain["attempts"]
    # Under trio only rows without a Timeout are fused, and two thirds of the rows have one.
    assert fused["fast"] > fused["attempts"] * (0.25 if backend == "asyncio" else 0.05), fused
