from __future__ import annotations

import pytest

from resilience.machines.rate_limiter import GCRA


@pytest.mark.parametrize("now", [0.0, 1.0, 12345.678, 1e5 + 1 / 3])
@pytest.mark.parametrize("limit", [3, 7, 10, 100, 1000])
def test_a_whole_burst_goes_at_once_whatever_the_rounding(limit: int, now: float) -> None:
    rule, state = GCRA(limit, 1.0), None
    for _ in range(limit):
        assert rule.wait(state, now, 1) == 0.0
        state = rule.take(state, now, 1, 0.0)
    assert rule.wait(state, now, 1) > 0.9 / limit
