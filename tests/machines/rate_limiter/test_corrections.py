"""Charging without asking, draining, and taking over what somebody else has counted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.machines.rate_limiter import (
    GCRA,
    FixedWindow,
    LeakyBucket,
    SlidingLog,
    SlidingWindow,
    TokenBucket,
)
from tests.machines.rate_limiter.test_promises import Step, cost_of, histories, rules
from tests.support.rules import ALGORITHMS, LONG, AnyRule, make_rule

EPSILON = 1e-6
many = settings(max_examples=1000 if LONG else 150, deadline=None)


def near(*numbers: float) -> Any:
    return pytest.approx(numbers)


# (rule, state, time, amount, new state)
CHARGES: list[tuple[AnyRule, Any, float, float, Any]] = [
    (GCRA(10, 1.0), None, 5.0, 3, pytest.approx(5.3)),
    (GCRA(10, 1.0), 5.2, 5.0, 50, pytest.approx(10.2)),
    (TokenBucket(10, 1.0), None, 5.0, 3, near(7, 5)),
    (TokenBucket(10, 1.0), (2.0, 4.9), 5.0, 50, near(-47, 5)),
    (LeakyBucket(10, 1.0), 5.2, 5.0, 50, pytest.approx(10.2)),
    (FixedWindow(10, 1.0), None, 5.5, 3, (5, 3, 0)),
    (FixedWindow(10, 1.0), (5, 7.0, 0.0), 5.5, 3, (5, 10, 0)),
    (FixedWindow(10, 1.0), (5, 7.0, 0.0), 5.5, 4, (6, 1, 0)),
    (FixedWindow(10, 1.0), (5, 7.0, 5.8), 5.5, 2, (5, 9, 5.8)),
    (FixedWindow(10, 1.0), (5, 7.0, 5.8), 5.5, 33, (8, 10, 0)),
    (FixedWindow(10, 1.0), (8, 7.0, 0.0), 5.5, 14, (10, 1, 0)),
    (SlidingWindow(10, 1.0), (5, 7.0, 2.0, 0.0), 5.5, 3, (5, 10, 2, 0)),
    (SlidingWindow(10, 1.0), (5, 7.0, 2.0, 5.8), 5.5, 3, (5, 10, 2, 5.8)),
    (SlidingWindow(10, 1.0), (4, 7.0, 2.0, 0.0), 5.5, 33, (8, 3, 10, 0)),
    (SlidingLog(10, 1.0), None, 5.5, 3, (3, 5.5, 3)),
    (SlidingLog(10, 1.0), (7.0, 5.0, 7.0), 5.5, 3, (10, 5, 7, 5.5, 3)),
    (SlidingLog(10, 1.0), (7.0, 5.0, 7.0), 5.5, 4, (4, 6, 4)),
    (SlidingLog(10, 1.0), (7.0, 5.0, 7.0), 5.5, 23, (10, 7.5, 10)),
]


@pytest.mark.parametrize(("rule", "state", "now", "amount", "expected"), CHARGES)
def test_charge(rule: AnyRule, state: Any, now: float, amount: float, expected: Any) -> None:
    assert rule.charge(state, now, amount) == expected


# (rule, state, time, seconds, new state)
DRAINS: list[tuple[AnyRule, Any, float, float, Any]] = [
    (GCRA(10, 1.0, 4), None, 5.0, 0, pytest.approx(5.4)),
    (GCRA(10, 1.0, 4), 5.1, 5.0, 2, pytest.approx(7.4)),
    (GCRA(10, 1.0, 4), 9.0, 5.0, 2, 9.0),
    (TokenBucket(10, 1.0), None, 5.0, 2, near(-20, 5)),
    (TokenBucket(10, 1.0), (5.0, 5.5), 5.0, 0, near(0, 5.5)),
    (TokenBucket(10, 1.0), (-30.0, 5.0), 5.0, 2, (-30.0, 5.0)),
    (LeakyBucket(10, 1.0), None, 5.0, 0, pytest.approx(5.1)),
    (LeakyBucket(10, 1.0), 5.3, 5.0, 2, pytest.approx(7)),
    (LeakyBucket(10, 1.0), 9.0, 5.0, 2, 9.0),
    (FixedWindow(10, 1.0), None, 5.5, 0, (5, 10, 0)),
    (FixedWindow(10, 1.0), (5, 10.0, 0.0), 5.5, 0, (5, 10, 0)),
    (FixedWindow(10, 1.0), (5, 3.0, 0.0), 5.5, 0.25, (5, 3, 5.75)),
    (FixedWindow(10, 1.0), (5, 3.0, 0.0), 5.5, 2, (7, 0, 7.5)),
    (FixedWindow(10, 1.0), (7, 3.0, 7.75), 5.5, 2, (7, 3, 7.75)),
    (FixedWindow(10, 1.0), (8, 3.0, 0.0), 5.5, 2, (8, 3, 0)),
    (SlidingWindow(10, 1.0), None, 5.5, 0, (5, 10, 0, 0)),
    (SlidingWindow(10, 1.0), (5, 10.0, 1.0, 0.0), 5.5, 0, (5, 10, 1, 0)),
    (SlidingWindow(10, 1.0), (5, 3.0, 1.0, 0.0), 5.5, 0.25, (5, 3, 1, 5.75)),
    (SlidingWindow(10, 1.0), (5, 3.0, 1.0, 0.0), 5.5, 1, (6, 0, 3, 6.5)),
    (SlidingWindow(10, 1.0), (6, 3.0, 1.0, 6.75), 5.5, 1, (6, 3, 1, 6.75)),
    (SlidingWindow(10, 1.0), (8, 3.0, 1.0, 0.0), 5.5, 1, (8, 3, 1, 0)),
    (SlidingLog(10, 1.0), None, 5.5, 0, (10, 5.5, 10)),
    (SlidingLog(10, 1.0), None, 5.5, 2, (0, 7.5, 0)),
    (SlidingLog(10, 1.0), (4.0, 5.0, 4.0), 5.5, 0, (10, 5, 4, 5.5, 6)),
    (SlidingLog(10, 1.0), (10.0, 5.0, 10.0), 5.5, 0, (10, 5, 10)),
    (SlidingLog(10, 1.0), (4.0, 5.0, 4.0), 5.5, 0.25, (4, 5, 4, 5.75, 0)),
    (SlidingLog(10, 1.0), (4.0, 5.0, 4.0), 5.5, 2, (0, 7.5, 0)),
    (SlidingLog(10, 1.0), (4.0, 9.0, 4.0), 5.5, 2, (4, 9, 4)),
]


@pytest.mark.parametrize(("rule", "state", "now", "seconds", "expected"), DRAINS)
def test_drain(rule: AnyRule, state: Any, now: float, seconds: float, expected: Any) -> None:
    assert rule.drain(state, now, seconds) == expected


# (rule, state that was drained, time, cost, wait)
WAITS: list[tuple[AnyRule, Any, float, float, float]] = [
    (FixedWindow(10, 1.0), (5, 3.0, 5.75), 5.5, 7, 0.25),
    (FixedWindow(10, 1.0), (5, 3.0, 5.75), 5.5, 8, 0.5),
    (FixedWindow(10, 1.0), (5, 3.0, 5.75), 5.8, 7, 0),
    (FixedWindow(10, 1.0), (5, 3.0, 5.75), 6.5, 10, 0),
    (FixedWindow(10, 1.0), (7, 0.0, 7.5), 5.5, 1, 2),
    (SlidingWindow(10, 1.0), (5, 3.0, 0.0, 5.75), 5.5, 7, 0.25),
    (SlidingWindow(10, 1.0), (5, 3.0, 0.0, 5.75), 5.8, 7, 0),
    (SlidingWindow(10, 1.0), (5, 3.0, 10.0, 5.75), 5.5, 4, 0.25),
    (SlidingWindow(10, 1.0), (5, 3.0, 10.0, 5.75), 5.5, 7, 0.4),
    (SlidingWindow(10, 1.0), (7, 0.0, 0.0, 7.5), 5.5, 1, 2),
    (SlidingLog(10, 1.0), (4.0, 5.0, 4.0, 5.75, 0.0), 5.5, 6, 0.25),
    (SlidingLog(10, 1.0), (4.0, 5.0, 4.0, 5.75, 0.0), 5.5, 7, 0.5),
]


@pytest.mark.parametrize(("rule", "state", "now", "cost", "expected"), WAITS)
def test_what_fits_after_a_drain(rule: AnyRule, state: Any, now: float, cost: float, expected: float) -> None:
    wait = rule.wait(state, now, cost)
    assert wait == pytest.approx(expected)
    assert rule.wait(rule.take(state, now, cost, wait), now + wait, rule.capacity) > 0
    assert rule.remaining(state, now) == pytest.approx(0 if expected else cost)


# (rule, state, time, what remains there, new state)
OBSERVED: list[tuple[AnyRule, Any, float, float, Any]] = [
    (GCRA(10, 1.0), None, 5.0, 10, None),
    (GCRA(10, 1.0), None, 5.0, 4, pytest.approx(5.6)),
    (GCRA(10, 1.0), 5.8, 5.0, 4, 5.8),
    (TokenBucket(10, 1.0), None, 5.0, 10, None),
    (TokenBucket(10, 1.0), (8.0, 4.0), 5.0, 4, near(4, 5)),
    (TokenBucket(10, 1.0), (2.0, 5.0), 5.0, 4, (2.0, 5.0)),
    (LeakyBucket(10, 1.0), None, 5.0, 1, None),
    (LeakyBucket(10, 1.0), 5.3, 5.0, 1, 5.3),
    (FixedWindow(10, 1.0), None, 5.5, 10, None),
    (FixedWindow(10, 1.0), None, 5.5, 4, (5, 6, 0)),
    (FixedWindow(10, 1.0), (5, 3.0, 5.7), 5.5, 4, (5, 6, 5.7)),
    (FixedWindow(10, 1.0), (5, 8.0, 0.0), 5.5, 4, (5, 8.0, 0.0)),
    (FixedWindow(10, 1.0), (6, 1.0, 0.0), 5.5, 4, (6, 1.0, 0.0)),
    (SlidingWindow(10, 1.0), None, 5.5, 10, None),
    (SlidingWindow(10, 1.0), (5, 2.0, 5.0, 0.0), 5.5, 4, near(5, 4.5, 5, 0)),
    (SlidingWindow(10, 1.0), (5, 2.0, 5.0, 5.7), 5.5, 4, (5, 2.0, 5.0, 5.7)),
    (SlidingLog(10, 1.0), None, 5.5, 10, None),
    (SlidingLog(10, 1.0), (3.0, 5.0, 3.0), 5.5, 4, (6, 5, 3, 5.5, 3)),
    (SlidingLog(10, 1.0), (8.0, 5.0, 8.0), 5.5, 4, (8.0, 5.0, 8.0)),
]


@pytest.mark.parametrize(("rule", "state", "now", "remaining", "expected"), OBSERVED)
def test_observe(rule: AnyRule, state: Any, now: float, remaining: float, expected: Any) -> None:
    seen = rule.observe(state, now, remaining, 3.0)
    assert seen == expected
    if seen == state:
        assert seen is state, "nothing to write"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("reset_after", [0.0, 2.5])
def test_nothing_left_over_there_is_a_drain(algorithm: str, reset_after: float) -> None:
    rule = make_rule(algorithm, 10, 1.0)
    assert rule.observe(None, 5.5, 0.0, reset_after) == rule.drain(None, 5.5, reset_after)


def played(rule: AnyRule, history: list[Step]) -> tuple[Any, float]:
    """The state after a history, and the time then."""
    state: Any = None
    now = 1000.0
    for step in history:
        now += step.elapsed * rule.period
        cost = cost_of(rule, step)
        wait = rule.wait(state, now, cost)
        if wait <= step.patience * rule.period:
            state = rule.take(state, now, cost, wait)
    return state, now


def costs(rule: AnyRule) -> tuple[float, ...]:
    return 0.01, 1.0, rule.capacity


amounts = st.sampled_from([0.01, 0.5, 1.0, 3.0, 7.3, 20.0, 333.0])
seconds = st.sampled_from([0.0, 0.001, 0.1, 0.5, 1.0, 2.7, 100.0])


@many
@given(rules, histories, amounts)
def test_a_charge_is_due_at_once_and_paid_back_at_the_rate(rule: AnyRule, history: list[Step], amount: float) -> None:
    state, now = played(rule, history)
    before, debt = rule.wait(state, now, 1.0), amount * rule.period / rule.limit
    state, was = rule.charge(state, now, amount), state
    assert rule.remaining(state, now) <= max(0.0, rule.remaining(was, now) - amount) + EPSILON
    for cost in costs(rule):
        assert rule.wait(state, now, cost) >= rule.wait(was, now, cost) - EPSILON
    # One period for what is rounded up to a window, and one for the room that a booking for later leaves.
    assert rule.wait(state, now, 1.0) <= before + debt + 2 * rule.period + EPSILON
    assert rule.wait(state, now, 1.0) >= debt - rule.period * max(2.0, rule.burst / rule.limit) - EPSILON
    later = max(now, rule.fresh_at(state)) + EPSILON
    assert rule.remaining(state, later) == pytest.approx(rule.capacity), "it is paid back for good"


@many
@given(rules, histories, st.lists(amounts, min_size=1, max_size=20))
def test_many_charges_are_not_forgotten(rule: AnyRule, history: list[Step], several: list[float]) -> None:
    state, now = played(rule, history)
    for amount in several:
        state = rule.charge(state, now, amount)
    debt = sum(several) * rule.period / rule.limit
    assert rule.wait(state, now, 1.0) >= debt - rule.period * max(2.0, rule.burst / rule.limit) - EPSILON


@many
@given(rules, histories, seconds, st.sampled_from([0.0, 0.3, 0.999]), st.sampled_from([0.0, 2.0]))
def test_a_drained_limit_gives_nothing_until_then(
    rule: AnyRule, history: list[Step], periods: float, share: float, set_back: float
) -> None:
    state, now = played(rule, history)
    drained = rule.drain(state, now, periods * rule.period)
    moment = now + share * periods * rule.period - set_back * rule.period
    assert rule.remaining(drained, min(now, moment)) == pytest.approx(0.0, abs=EPSILON)
    for cost in costs(rule):
        due = (1.0 - share) * periods * rule.period  # a bucket's time stands still while the clock is set back
        grace = 0.001 * rule.period / rule.limit  # a thousandth of a unit is let off, whatever the bucket
        assert rule.wait(drained, moment, cost) >= due - grace - EPSILON
        assert rule.wait(drained, now, cost) >= rule.wait(state, now, cost) - EPSILON
    # Then it goes on: a bucket fills from empty, a window has the room that it had.
    before, longest = rule.wait(state, now, 1.0), periods * rule.period
    refill = 2 * rule.period if periods == 0.0 else rule.period / rule.limit
    assert rule.wait(drained, now, 1.0) <= max(before, longest) + max(refill, before) + EPSILON
    assert rule.drain(drained, now, periods * rule.period) == drained


@many
@given(rules, histories, st.sampled_from([0.0, 0.5, 1.0, 3.0, 9.5, 40.0, 1e9]), seconds)
def test_observing_only_lowers(rule: AnyRule, history: list[Step], remaining: float, reset_after: float) -> None:
    state, now = played(rule, history)
    left = rule.remaining(state, now)
    seen = rule.observe(state, now, remaining, reset_after)
    for cost in costs(rule):
        assert rule.wait(seen, now, cost) >= rule.wait(state, now, cost) - EPSILON
    if rule.algorithm != "leaky_bucket" or remaining == 0.0:
        assert rule.remaining(seen, now) == pytest.approx(min(left, remaining), abs=EPSILON)
    again = rule.observe(seen, now, remaining, reset_after)
    assert rule.remaining(again, now) == pytest.approx(rule.remaining(seen, now), abs=EPSILON)
    assert rule.wait(again, now, 1.0) == pytest.approx(rule.wait(seen, now, 1.0), abs=EPSILON)


@many
@given(rules, histories, amounts)
def test_a_charge_given_back_is_no_gift(rule: AnyRule, history: list[Step], amount: float) -> None:
    state, now = played(rule, history)
    back = rule.refund(rule.charge(state, now, amount), now, amount)
    for cost in costs(rule):
        assert rule.wait(back, now, cost) >= rule.wait(state, now, cost) - EPSILON


@many
@given(rules, histories, st.sampled_from([0.1, 1.0, 30.0]))
def test_undoing_a_booking_that_another_limit_put_far_ahead(rule: AnyRule, history: list[Step], delay: float) -> None:
    state, now = played(rule, history)
    wait = rule.wait(state, now, 1.0) + delay * rule.period
    booked = rule.take(state, now, 1.0, wait)
    undone = rule.undo(booked, state, now + 0.5 * wait, 1.0)
    if rule.algorithm == "sliding_log":  # which keeps the place in line, since what was too old for it is gone
        assert rule.wait(undone, now, 1.0) <= rule.wait(booked, now, 1.0) + EPSILON
        assert undone is None or undone[0] <= (booked[0] - 1.0) + EPSILON
    else:
        assert undone is state
