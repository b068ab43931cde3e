"""Each algorithm by example: what waits how long, what remains, what a refund does."""

from __future__ import annotations

from typing import Any

import pytest

from resilience.machines.rate_limiter import (
    GCRA,
    FixedWindow,
    LeakyBucket,
    SlidingLog,
    SlidingWindow,
    TokenBucket,
)
from tests.support.rules import AnyRule

# (time, cost, expected wait); every step books what it asks for, at its own wait.
TABLES: list[tuple[AnyRule, list[tuple[float, float, float]]]] = [
    (GCRA(10, 1.0, 2), [(0, 1, 0), (0, 1, 0), (0, 1, 0.1), (0, 1, 0.2), (0.3, 2, 0.1), (9, 2, 0), (9, 1, 0.1)]),
    (TokenBucket(10, 1.0, 2), [(0, 1, 0), (0, 1, 0), (0, 1, 0.1), (0, 1, 0.2), (0.3, 2, 0.1), (9, 2, 0)]),
    # A clock set back costs a bucket no waiting while it has tokens; its time stands still.
    (TokenBucket(10, 1.0, 4), [(100, 1, 0), (50, 1, 0), (50, 2, 0), (50, 1, 0.1), (100, 1, 0.2)]),
    (FixedWindow(3, 10.0), [(2, 2, 0), (3, 2, 7), (4, 1, 6), (4, 1, 16), (9, 3, 21), (55, 3, 0)]),
    # Of 4 units the window before still counts 3 at 12.5 and 2 at 15, and the last of them is let off.
    (
        SlidingWindow(4, 10.0),
        [(3, 4, 0), (12.5, 1, 0), (12.5, 1, 0), (12.5, 1, 2.5), (16, 1, 1.5), (17.5, 4, 10)],
    ),
    (SlidingWindow(4, 10.0), [(3, 1, 0), (14, 3, 0), (38, 4, 0), (39, 4, 8.5)]),
    (SlidingLog(3, 10.0), [(1, 1, 0), (2, 2, 0), (3, 1, 8), (3, 1, 9), (3, 3, 19), (50, 3, 0)]),
    (LeakyBucket(10, 1.0), [(0, 1, 0), (0, 1, 0.1), (0, 5, 0.2), (0, 1, 0.7), (5, 10, 0), (5.5, 1, 0.5)]),
]


@pytest.mark.parametrize(("rule", "steps"), TABLES, ids=lambda each: getattr(each, "algorithm", ""))
def test_waits(rule: AnyRule, steps: list[tuple[float, float, float]]) -> None:
    state: Any = None
    for now, cost, expected in steps:
        wait = rule.wait(state, now, cost)
        assert wait == pytest.approx(expected), (now, cost)
        state = rule.take(state, now, cost, wait)


# (rule, [(time, cost)] booked at own wait, time, what remains then)
REMAINING: list[tuple[AnyRule, list[tuple[float, float]], float, float]] = [
    (GCRA(10, 1.0, 4), [(0, 3)], 0, 1),
    (GCRA(10, 1.0, 4), [(0, 3)], 0.1, 2),
    (GCRA(10, 1.0, 4), [(0, 3)], 5, 4),
    (GCRA(10, 1.0, 4), [(0, 4), (0, 2)], 0, 0),
    (TokenBucket(10, 1.0, 4), [(0, 3)], 0.1, 2),
    (TokenBucket(10, 1.0, 4), [(0, 3)], 5, 4),
    (TokenBucket(10, 1.0, 4), [(0, 4), (0, 2)], 0, 0),
    (FixedWindow(5, 1.0), [(0, 3)], 0.9, 2),
    (FixedWindow(5, 1.0), [(0, 3)], 1.0, 5),
    (FixedWindow(5, 1.0), [(0, 5)], 0.5, 0),
    (FixedWindow(5, 1.0), [(0, 3), (0, 3)], 0.5, 0),
    (SlidingWindow(5, 1.0), [(0, 3)], 0.9, 2),
    (SlidingWindow(5, 1.0), [(0, 4)], 1.5, 4),
    (SlidingWindow(5, 1.0), [(0, 4)], 2.0, 5),
    (SlidingWindow(5, 1.0), [(0, 3), (0, 3)], 0.5, 0),
    (SlidingWindow(5, 1.0), [(0, 5)], 0.5, 0),
    (SlidingLog(5, 1.0), [(0, 3)], 0.9, 2),
    (SlidingLog(5, 1.0), [(0, 3), (0.5, 1)], 1.0, 4),
    (SlidingLog(5, 1.0), [(0, 3)], 1.0, 5),
    (SlidingLog(5, 1.0), [(0, 5)], 0.5, 0),
    (SlidingLog(5, 1.0), [(0, 3), (0, 3)], 0.5, 0),
    (LeakyBucket(5, 1.0), [(0, 1)], 0.1, 0),
    (LeakyBucket(5, 1.0), [(0, 1)], 0.2, 5),
]


@pytest.mark.parametrize(("rule", "booked", "now", "expected"), REMAINING)
def test_remaining(rule: AnyRule, booked: list[tuple[float, float]], now: float, expected: float) -> None:
    assert rule.remaining(None, now) == rule.capacity
    state: Any = None
    for at, cost in booked:
        state = rule.take(state, at, cost, rule.wait(state, at, cost))
    assert rule.remaining(state, now) == pytest.approx(expected)


# (rule, state, time, cost given back, new state)
REFUNDS: list[tuple[AnyRule, Any, float, float, Any]] = [
    (GCRA(10, 1.0), 5.5, 5.0, 2, pytest.approx(5.3)),
    (GCRA(10, 1.0), 5.5, 5.0, 9, None),
    (TokenBucket(10, 1.0), (3.0, 5.0), 5.1, 2, (5.0, 5.0)),
    (TokenBucket(10, 1.0), (3.0, 5.0), 4.0, 2, (5.0, 5.0)),
    (TokenBucket(10, 1.0), (3.0, 5.0), 5.1, 7, None),
    (FixedWindow(10, 1.0), (5, 3.0, 0.0), 5.5, 2, (5, 1.0, 0.0)),
    (FixedWindow(10, 1.0), (5, 3.0, 0.0), 5.5, 3, None),
    (FixedWindow(10, 1.0), (7, 3.0, 0.0), 5.5, 3, (6, 10.0, 0.0)),  # the window before counts as full
    (FixedWindow(10, 1.0), (7, 3.0, 7.5), 5.5, 3, (7, 0.0, 7.5)),  # drained until 7.5, which nobody gives back
    (SlidingWindow(10, 1.0), (5, 3.0, 4.0, 0.0), 5.5, 2, (5, 1.0, 4.0, 0.0)),
    (SlidingWindow(10, 1.0), (5, 3.0, 4.0, 0.0), 5.5, 5, (5, 0.0, 2.0, 0.0)),
    (SlidingWindow(10, 1.0), (5, 3.0, 4.0, 0.0), 5.5, 9, None),
    (SlidingWindow(10, 1.0), (7, 3.0, 4.0, 0.0), 5.5, 3, (6, 4.0, 10.0, 0.0)),
    (SlidingWindow(10, 1.0), (7, 3.0, 4.0, 7.5), 5.5, 4, (7, 0.0, 3.0, 7.5)),
    (SlidingLog(10, 1.0), (5.0, 1.0, 2.0, 1.5, 3.0), 1.7, 2, (3.0, 1.0, 2.0, 1.5, 1.0)),
    (SlidingLog(10, 1.0), (5.0, 1.0, 2.0, 1.5, 3.0), 1.7, 3, (2.0, 1.0, 2.0)),
    (SlidingLog(10, 1.0), (5.0, 1.0, 2.0, 1.5, 3.0), 1.7, 4, (1.0, 1.0, 1.0)),
    (SlidingLog(10, 1.0), (5.0, 1.0, 2.0, 1.5, 3.0), 1.7, 5, None),
    (SlidingLog(10, 1.0), (5.0, 1.0, 2.0, 9.0, 3.0), 1.7, 3, (2.0, 1.0, 2.0, 9.0, 0.0)),  # keeps its place
    (SlidingLog(10, 1.0), (3.0, 9.0, 3.0), 1.7, 3, (0.0, 9.0, 0.0)),
    (LeakyBucket(10, 1.0), 5.5, 5.0, 2, pytest.approx(5.3)),
    (LeakyBucket(10, 1.0), 5.5, 5.0, 9, None),
]


@pytest.mark.parametrize(("rule", "state", "now", "cost", "expected"), REFUNDS)
def test_refund(rule: AnyRule, state: Any, now: float, cost: float, expected: Any) -> None:
    assert rule.refund(state, now, cost) == expected
    assert rule.refund(None, now, cost) is None


def test_a_booking_that_another_limit_delays_is_booked_for_that_moment() -> None:
    # Both buckets are full again at 10.0, when the permit is valid, and hold one unit less from then on.
    gcra, bucket = GCRA(10, 1.0, 2), TokenBucket(10, 1.0, 2)
    assert gcra.wait(gcra.take(None, 0.0, 1, 10.0), 10.0, 2) == pytest.approx(0.1)
    assert bucket.wait(bucket.take(None, 0.0, 1, 10.0), 10.0, 2) == pytest.approx(0.1)


@pytest.mark.parametrize("rule", [FixedWindow(1, 1.0), SlidingWindow(1, 1.0)])
def test_a_moment_rounded_to_just_before_its_window_counts_in_the_window(rule: AnyRule) -> None:
    state = rule.take(None, 0.5, 1, 0.0)
    early = 0.5 - 1e-15
    assert rule.take(state, 0.5, 1, early)[:2] == (1, 1)


def test_a_log_that_fractions_would_fill_grows_no_further() -> None:
    log = SlidingLog(3, 10.0)
    state: Any = None
    for step in range(29):
        state = log.take(state, step * 0.1, 0.1, 0.0)
    assert len(state) == 1 + 2 * 3
    assert state[0] == pytest.approx(2.9)
    assert log.wait(state, 3.0, 1) > 0, "the newest entry took the others in"


def test_calls_of_one_moment_share_an_entry() -> None:
    log = SlidingLog(10, 10.0)
    state = log.take(log.take(log.take(None, 1.0, 2, 0.0), 1.0, 3, 0.0), 2.0, 1, 0.0)
    assert state == (6.0, 1.0, 5.0, 2.0, 1.0)


@pytest.mark.parametrize("rule", [GCRA(10, 1.0, 1), LeakyBucket(10, 1.0)])
def test_a_moment_rounded_to_just_before_the_booked_one_moves_nothing_back(rule: AnyRule) -> None:
    assert rule.take(5.5, 5.0, 1, 0.5 - 1e-12) == 5.6


# (rule, state, fresh at, position)
MARKS: list[tuple[AnyRule, Any, float, Any]] = [
    (GCRA(10, 1.0), 5.5, 5.5, 5.5),
    (TokenBucket(10, 1.0), (3.0, 5.0), 5.7, (3.0, 5.0)),
    (FixedWindow(10, 2.0), (5, 3.0, 0.0), 12.0, (5, 3.0, 0.0)),
    (SlidingWindow(10, 2.0), (5, 3.0, 4.0, 0.0), 14.0, (5, 3.0, 4.0, 0.0)),
    (SlidingLog(10, 2.0), (3.0, 5.0, 1.0, 6.0, 2.0), 8.0, (6.0, 2.0)),
    (LeakyBucket(10, 1.0), 5.5, 5.5, 5.5),
]


@pytest.mark.parametrize(("rule", "state", "fresh_at", "position"), MARKS)
def test_when_a_key_is_fresh_again_and_what_marks_a_booking(
    rule: AnyRule, state: Any, fresh_at: float, position: Any
) -> None:
    assert rule.fresh_at(state) == pytest.approx(fresh_at)
    assert rule.position(state) == position
