from __future__ import annotations

import math
from typing import Any

import pytest

from resilience.machines.breaker_records import BreakerRule
from resilience.machines.windows import CountWindow, TimeWindow


def test_the_rule_makes_the_window() -> None:
    default = BreakerRule()
    assert (default.count, default.period) == (100, None)
    window = BreakerRule(period=30.0, buckets=6, minimum_calls=1000).window()
    assert isinstance(window, TimeWindow)
    assert (window.period, window.buckets) == (30.0, 6)
    window = BreakerRule(count=50).window()
    assert isinstance(window, CountWindow)
    assert window.size == 50


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"failure_rate": 0}, ValueError, "failure_rate must be greater than 0, got 0"),
        ({"failure_rate": 1.1}, ValueError, "failure_rate must be at most 1, got 1.1"),
        ({"failure_rate": math.nan}, ValueError, "failure_rate must be finite, got nan"),
        ({"failure_rate": True}, TypeError, "failure_rate must be a number, got True"),
        ({"failure_rate": "0.5"}, TypeError, "failure_rate must be a number, got '0.5'"),
        (
            {"failure_rate": None},
            ValueError,
            "failure_rate or slow_rate must be given, got None for both",
        ),
        (
            {"slow_rate": 0.5},
            ValueError,
            "slow_rate and slow_call must be given together, got slow_rate=0.5 and slow_call=None",
        ),
        (
            {"slow_call": 1.0},
            ValueError,
            "slow_rate and slow_call must be given together, got slow_rate=None and slow_call=1.0",
        ),
        ({"slow_rate": 2, "slow_call": 1.0}, ValueError, "slow_rate must be at most 1, got 2"),
        ({"slow_rate": 0.5, "slow_call": 0}, ValueError, "slow_call must be greater than 0, got 0"),
        ({"minimum_calls": 0}, ValueError, "minimum_calls must be at least 1, got 0"),
        ({"minimum_calls": 2.0}, TypeError, "minimum_calls must be an integer, got 2.0"),
        (
            {"count": 10},
            ValueError,
            "minimum_calls must be at most count (10), or the circuit could never open, got 20",
        ),
        ({"count": 0}, ValueError, "count must be at least 1, got 0"),
        ({"count": 30.5}, TypeError, "count must be an integer, got 30.5"),
        (
            {"count": 100, "period": 30.0},
            ValueError,
            "only one of count and period can be given, got count=100 and period=30.0",
        ),
        ({"period": -1}, ValueError, "period must be greater than 0, got -1"),
        ({"buckets": 0}, ValueError, "buckets must be at least 1, got 0"),
        ({"open_for": 0}, ValueError, "open_for must be greater than 0, got 0"),
        ({"open_for": math.inf}, ValueError, "open_for must be finite, got inf"),
        ({"open_max": 4.0}, ValueError, "open_max must be at least 5.0, got 4.0"),
        ({"open_growth": 0.5}, ValueError, "open_growth must be at least 1, got 0.5"),
        ({"jitter": -0.1}, ValueError, "jitter must be at least 0, got -0.1"),
        ({"jitter": 1.5}, ValueError, "jitter must be at most 1, got 1.5"),
        ({"probes": 0}, ValueError, "probes must be at least 1, got 0"),
        ({"probe_lease": 0}, ValueError, "probe_lease must be greater than 0, got 0"),
        ({"ramp": -1}, ValueError, "ramp must be at least 0, got -1"),
        ({"ramp": math.inf}, ValueError, "ramp must be finite, got inf"),
        ({"shared": "all"}, ValueError, "shared must be one of 'any', 'quorum', 'local', got 'all'"),
        ({"quorum": 0}, ValueError, "quorum must be at least 1, got 0"),
        ({"quorum": 0.5}, TypeError, "quorum must be an integer, got 0.5"),
        (
            {"quorum": 2, "shared": "any"},
            ValueError,
            "quorum can only be given with shared='quorum', got shared='any'",
        ),
    ],
)
def test_bad_rules(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        BreakerRule(**options)
    assert str(caught.value) == message


def test_the_share_grows_along_the_ramp() -> None:
    rule = BreakerRule(ramp=10.0)
    assert [rule.share(elapsed) for elapsed in (-5.0, 0.0, 5.0, 10.0, 11.0)] == [0.1, 0.1, 0.55, 1.0, 1.0]
    assert BreakerRule().share(0.0) == 1.0
