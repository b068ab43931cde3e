from __future__ import annotations

import math
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience._validate import check_integer, check_number
from resilience.machines.windows import CountWindow, RollingSum, TimeWindow

outcomes = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60)
# Sixteenths are exact in binary, so that the model may compare times without rounding.
steps = st.integers(0, 400).map(lambda n: n / 16)


@settings(deadline=None)
@given(size=st.integers(1, 12), calls=outcomes)
def test_count_window_is_the_last_n_calls(size: int, calls: list[tuple[bool, bool]]) -> None:
    window = CountWindow(size)
    model: deque[tuple[bool, bool]] = deque(maxlen=size)
    for failure, slow in calls:
        window.add(0.0, failure, slow)
        model.append((failure, slow))
        expected = (len(model), sum(f for f, _ in model), sum(s for _, s in model))
        assert window.totals(0.0) == expected
        assert (window.calls, window.failures, window.slow) == expected


@settings(deadline=None)
@given(
    buckets=st.integers(1, 6),
    start=st.integers(-1000, 1000),
    history=st.lists(st.tuples(steps, st.booleans(), st.booleans(), steps), max_size=40),
)
def test_time_window_is_the_buckets_of_the_last_period(
    buckets: int, start: int, history: list[tuple[float, bool, bool, float]]
) -> None:
    width = 2.0
    window = TimeWindow(width * buckets, buckets)
    model: list[tuple[int, bool, bool]] = []
    now = float(start)

    def expected(at: float) -> tuple[int, int, int]:
        oldest = math.floor(at / width) - buckets
        live = [(f, s) for bucket, f, s in model if bucket > oldest]
        return len(live), sum(f for f, _ in live), sum(s for _, s in live)

    for step, failure, slow, ahead in history:
        now += step
        window.add(now, failure, slow)
        model.append((math.floor(now / width), failure, slow))
        assert (window.calls, window.failures, window.slow) == expected(now)
        assert window.totals(now + ahead) == expected(now + ahead)
        assert window.totals(now) == expected(now), "reading ahead changed something"


def test_time_window_stands_still_while_the_clock_is_behind() -> None:
    window = TimeWindow(10.0, 5)
    window.add(100.0, failure=True, slow=False)
    window.add(3.0, failure=True, slow=True)
    assert window.totals(100.0) == (2, 2, 1)
    assert window.totals(2.0) == (2, 2, 1)
    window.add(104.0, failure=False, slow=False)
    assert window.totals(104.0) == (3, 2, 1)
    assert window.totals(110.0) == (1, 0, 0), "what came in late was counted in the bucket of 100"


def test_time_window_forgets_everything_after_a_long_pause() -> None:
    window = TimeWindow(30.0)
    for second in range(30):
        window.add(float(second), failure=True, slow=True)
    assert window.totals(29.0) == (30, 30, 30)
    assert window.totals(1e9) == (0, 0, 0)
    window.add(1e9, failure=False, slow=True)
    assert window.totals(1e9) == (1, 0, 1)


@settings(deadline=None)
@given(st.floats(1e-3, 1e4), st.integers(1, 20), st.lists(st.floats(0, 1e6), min_size=1, max_size=20))
def test_time_window_survives_any_rounding_of_its_bucket_width(period: float, buckets: int, times: list[float]) -> None:
    window = TimeWindow(period, buckets)
    for now in sorted(times):
        window.add(now, failure=True, slow=False)
        calls, failures, slow = window.totals(now)
        assert 1 <= calls == failures
        assert slow == 0
    assert window.totals(max(times) + 2 * period) == (0, 0, 0)


@pytest.mark.parametrize("window", [CountWindow(3), TimeWindow(10.0)], ids=["count", "time"])
def test_clear_forgets(window: CountWindow | TimeWindow) -> None:
    for _ in range(5):
        window.add(1.0, failure=True, slow=True)
    window.clear()
    assert window.totals(1.0) == (0, 0, 0)
    window.add(1.0, failure=False, slow=True)
    assert window.totals(1.0) == (1, 0, 1)


def test_rolling_sum_drops_what_is_older_than_the_period() -> None:
    rolling = RollingSum(10.0, 5)
    assert rolling.total(0.0) == 0
    rolling.add(1.0, 2.0)
    rolling.add(1.9, 3.0)
    rolling.add(9.0, 4.0)
    assert [rolling.total(t) for t in (1.9, 9.9, 10.0, 17.9, 18.0)] == [9.0, 9.0, 4.0, 4.0, 0]
    rolling.add(11.0, 1.0)
    assert rolling.total(11.0) == 5.0, "the slot of 1.0 is used anew"


def test_rolling_sum_takes_back_only_what_is_still_in_it() -> None:
    rolling = RollingSum(10.0, 5)
    rolling.add(1.0, 3.0)
    rolling.withdraw(1.5, 1.0)
    assert rolling.total(2.0) == 2.0
    rolling.add(11.0, 4.0)
    rolling.withdraw(1.0, 2.0)
    assert rolling.total(11.0) == 4.0
    rolling.withdraw(11.0, 9.0)
    assert rolling.total(11.0) == 0.0


def test_rolling_sum_stands_still_while_the_clock_is_behind() -> None:
    rolling = RollingSum(10.0, 5)
    rolling.add(100.0, 1.0)
    rolling.add(5.0, 1.0)
    assert rolling.total(5.0) == rolling.total(100.0) == 2.0


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, "size must be at least 1, got 0"),
        (-3, ValueError, "size must be at least 1, got -3"),
        (1.0, TypeError, "size must be an integer, got 1.0"),
        (True, TypeError, "size must be an integer, got True"),
        ("5", TypeError, "size must be an integer, got '5'"),
        (None, TypeError, "size must be an integer, got None"),
    ],
)
def test_integers_are_checked(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        CountWindow(value)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, "period must be greater than 0, got 0"),
        (-0.5, ValueError, "period must be greater than 0, got -0.5"),
        (math.nan, ValueError, "period must be finite, got nan"),
        (math.inf, ValueError, "period must be finite, got inf"),
        (True, TypeError, "period must be a number, got True"),
        ("1", TypeError, "period must be a number, got '1'"),
    ],
)
@pytest.mark.parametrize("make", [TimeWindow, RollingSum])
def test_numbers_are_checked(make: Any, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        make(value)
    assert str(caught.value) == message


def test_buckets_are_checked() -> None:
    with pytest.raises(ValueError, match="buckets must be at least 1, got 0"):
        TimeWindow(1.0, 0)
    with pytest.raises(ValueError, match="buckets must be at least 1, got 0"):
        RollingSum(1.0, 0)


def test_bounds_are_inclusive_where_they_say_so() -> None:
    check_integer("n", 2, 2)
    check_number("x", 1, least=1, most=1)
    with pytest.raises(ValueError, match=r"x must be at least 1, got 0\.5"):
        check_number("x", 0.5, least=1)
    with pytest.raises(ValueError, match=r"x must be at most 1, got 1\.5"):
        check_number("x", 1.5, most=1)


def test_a_moment_that_rounding_puts_back_into_the_bucket_before_it_is_counted_there() -> None:
    # Ten buckets of 0.1: the fifth ends at 5 * 0.1 == 0.5, yet 0.5 // 0.1 == 4.
    window, rolling = TimeWindow(1.0), RollingSum(1.0)
    for now in (0.45, 0.5):
        window.add(now, failure=True, slow=False)
        rolling.add(now, 1.0)
    assert (window.totals(0.5), rolling.total(0.5)) == ((2, 2, 0), 2.0)
    assert (window.totals(1.45), rolling.total(1.45)) == ((0, 0, 0), 0)
