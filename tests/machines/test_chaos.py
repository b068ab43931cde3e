from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.machines.chaos import ChaosRule, ChaosWindow, Disturbance, Exponential

draws = st.floats(0, 1, exclude_max=True)
WRONG: Any = "often"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((1.5, 1.0, 0), ValueError, r"rate must be at most 1, got 1\.5"),
        ((-0.1, 1.0, 0), ValueError, r"rate must be at least 0, got -0\.1"),
        ((WRONG, 1.0, 0), TypeError, "rate must be a number, got 'often'"),
        ((1.0, None, -1), ValueError, "faults must be at least 0, got -1"),
        ((1.0, None, 0), ValueError, "latency, or at least one fault, must be given"),
        ((1.0, -1.0, 0), ValueError, r"latency must be at least 0, got -1\.0"),
        ((1.0, WRONG, 0), TypeError, "latency must be a number, got 'often'"),
        ((1.0, (1.0, 2.0, 3.0), 0), ValueError, "latency must be a pair of two numbers"),
        ((1.0, (2.0, 1.0), 0), ValueError, r"latency must be at least 2\.0, got 1\.0"),
        ((1.0, (-1.0, 1.0), 0), ValueError, r"latency must be at least 0, got -1\.0"),
    ],
)
def test_bad_rules_are_refused(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ChaosRule(*arguments)


@given(rate=st.floats(0, 1), hit=draws, length=draws, choice=draws)
def test_a_share_of_calls_is_disturbed(rate: float, hit: float, length: float, choice: float) -> None:
    decided = ChaosRule(rate, (1.0, 3.0), 3).decide(hit, length, choice)
    assert (decided is not None) == (hit < rate)
    if decided is not None:
        assert 1.0 <= decided.latency <= 3.0
        assert decided.fault in (0, 1, 2)


def test_each_fault_is_as_likely() -> None:
    rule = ChaosRule(1.0, None, 4)
    assert [rule.decide(0.0, 0.0, (n + 0.5) / 8) for n in range(8)] == [Disturbance(0.0, n // 2) for n in range(8)]


def test_latencies() -> None:
    assert ChaosRule(1.0, 2, 0).decide(0.0, 0.5, 0.5) == Disturbance(2, None)
    assert ChaosRule(1.0, (1.0, 2.0), 0).decide(0.0, 0.5, 0.5) == Disturbance(1.5, None)
    assert ChaosRule(1.0, lambda draw: draw * 8, 0).decide(0.0, 0.5, 0.5) == Disturbance(4.0, None)
    assert ChaosRule(1.0, Exponential(3.0), 0).decide(0.0, 0.0, 0.5) == Disturbance(0.0, None)


def test_a_function_that_gives_no_latency_is_an_error() -> None:
    with pytest.raises(ValueError, match="latency must be at least 0, got -1"):
        ChaosRule(1.0, lambda draw: -1, 0).decide(0.0, 0.5, 0.5)


def test_exponential_latencies_have_their_mean_and_an_end() -> None:
    draws = [(n + 0.5) / 10_000 for n in range(10_000)]
    assert sum(map(Exponential(0.2), draws)) / len(draws) == pytest.approx(0.2, rel=0.01)
    assert Exponential(0.2)(1 - 2**-53) == 2.0
    assert Exponential(0.2, most=0.5)(0.999) == 0.5
    assert Exponential(1.0)(1 - 1 / math.e) == pytest.approx(1.0)


@pytest.mark.parametrize(("options", "message"), [({"mean": 0}, "mean must be"), ({"mean": 1, "most": 0}, "most must")])
def test_bad_exponentials_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Exponential(**options)


@pytest.mark.parametrize(
    ("between", "error", "message"),
    [
        (5, TypeError, "between must be a pair of seconds, got 5"),
        ((1, 2, 3), TypeError, "between must be a pair of seconds"),
        ((-1, 2), ValueError, "between must be at least 0, got -1"),
        ((2, 2), ValueError, "between must be greater than 2, got 2"),
    ],
)
def test_bad_windows_are_refused(between: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ChaosWindow(between)


def test_without_times_a_window_is_always_open() -> None:
    assert ChaosWindow(None).open(1e9)


def test_a_window_opens_and_closes() -> None:
    window = ChaosWindow((10, 20))
    assert [window.open(now) for now in (100.0, 109.9, 110.0, 119.9, 120.0)] == [False, False, True, True, False]
    window.begin(200.0)
    assert [window.open(now) for now in (200.0, 210.0, 220.0)] == [False, True, False]
