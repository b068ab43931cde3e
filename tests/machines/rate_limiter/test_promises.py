"""Properties of all rules: never above the promise, in order, never starved, refunds exact, no minting."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.rules import ALGORITHMS, LONG, AnyRule, make_rule, promise

EPSILON = 1e-6
many = settings(max_examples=1000 if LONG else 150, deadline=None)


class Step(NamedTuple):
    elapsed: float
    set_back: float
    share: float
    patience: float
    late: float


class Admission(NamedTuple):
    at: float
    units: float
    booked: float


rules = st.builds(
    make_rule,
    st.sampled_from(ALGORITHMS),
    st.sampled_from([1.0, 2.0, 3.0, 7.0, 10.0, 50.0]),
    st.sampled_from([0.1, 1.0, 1 / 3, 60.0]),
    st.sampled_from([1.0, 2.0, 5.0, 40.0]),
)
fractions = st.sampled_from([0.0, 0.0, 0.001, 0.01, 0.05, 0.3, 1.0, 1.7])
histories = st.lists(
    st.builds(
        Step,
        elapsed=fractions,
        set_back=st.sampled_from([0.0] * 8 + [0.1, 2.0]),
        share=st.sampled_from([0.0, 0.0, 0.1, 0.5, 1.0]),
        patience=st.sampled_from([0.0, 0.0, 0.5, 3.0, 1e9]),
        late=st.sampled_from([0.0] * 9 + [0.4]),
    ),
    min_size=1,
    max_size=60,
)


def cost_of(rule: AnyRule, step: Step) -> float:
    return max(1.0, int(rule.capacity * step.share))


def play(rule: AnyRule, history: list[Step], *, steady: bool = False) -> list[Admission]:
    """Return what was admitted when, in real time, while the clock is also set back now and then."""
    state: Any = None
    real, offset = 0.0, 1000.0
    admitted: list[Admission] = []
    for step in history:
        real += step.elapsed * rule.period
        offset -= 0.0 if steady else step.set_back * rule.period
        now, cost = real + offset, cost_of(rule, step)
        wait = rule.wait(state, now, cost)
        assert wait >= 0
        if wait <= step.patience * rule.period:
            wait += step.late * rule.period  # as when another limit binds
            state = rule.take(state, now, cost, wait)
            admitted.append(Admission(real + wait, cost, now + wait))
    return admitted


@many
@given(rules, histories)
def test_no_window_exceeds_the_promise(rule: AnyRule, history: list[Step]) -> None:
    if rule.algorithm in ("gcra", "token_bucket"):
        admitted = sorted(play(rule, history))
        rate = rule.limit / rule.period
        for first in range(len(admitted)):
            units = 0.0
            for each in admitted[first:]:
                units += each.units
                assert units <= rule.burst + rate * (each.at - admitted[first].at) + EPSILON


@many
@given(st.sampled_from(["fixed_window", "sliding_window"]), histories)
def test_no_aligned_window_exceeds_the_limit(algorithm: str, history: list[Step]) -> None:
    rule = make_rule(algorithm, 7, 1.0)
    counts: dict[int, float] = {}
    for each in play(rule, history, steady=True):
        window = int(each.booked / rule.period + 1e-9)
        counts[window] = counts.get(window, 0.0) + each.units
        assert counts[window] <= rule.limit
        if algorithm == "sliding_window":
            elapsed = max(0.0, each.booked / rule.period - window)
            assert counts.get(window - 1, 0.0) * (1 - elapsed) + counts[window] <= rule.limit + 1 + EPSILON


@many
@given(histories)
def test_no_period_of_the_log_exceeds_the_limit(history: list[Step]) -> None:
    rule = make_rule("sliding_log", 7, 1.0)
    admitted = play(rule, history)
    for last in admitted:
        recent = [each.units for each in admitted if last.at - rule.period + EPSILON < each.at <= last.at]
        assert sum(recent) <= rule.limit


@many
@given(histories)
def test_the_pacer_never_lets_two_go_together(history: list[Step]) -> None:
    rule = make_rule("leaky_bucket", 7, 1.0)
    admitted = play(rule, history)
    for before, after in itertools.pairwise(admitted):
        assert after.at - before.at >= before.units * rule.period / rule.limit - EPSILON


@many
@given(rules, histories)
def test_first_come_first_served(rule: AnyRule, history: list[Step]) -> None:
    # A delay by another limit keeps its order there; of this one alone only its own waits are in order.
    admitted = play(rule, [step._replace(late=0.0) for step in history])
    for before, after in itertools.pairwise(admitted):
        assert after.at >= before.at - EPSILON


@many
@given(rules, histories)
def test_whoever_waits_may_go_and_idle_keys_become_fresh(rule: AnyRule, history: list[Step]) -> None:
    state: Any = None
    now = 1000.0
    for step in history:
        now += step.elapsed * rule.period
        cost = cost_of(rule, step)
        wait = rule.wait(state, now, cost)
        assert rule.wait(state, now + wait, cost) <= EPSILON * rule.period
        if wait <= step.patience * rule.period:
            state = rule.take(state, now, cost, wait)
    fresh = rule.fresh_at(state) + EPSILON if state is not None else now
    assert rule.wait(state, fresh, rule.capacity) <= EPSILON * rule.period
    assert rule.remaining(state, fresh) == pytest.approx(rule.capacity)


@many
@given(rules, histories, st.sampled_from([0.0, 0.5, 1.0]))
def test_a_refunded_booking_leaves_no_trace_and_no_gift(rule: AnyRule, history: list[Step], share: float) -> None:
    state: Any = None
    now = 1000.0
    for step in history:
        now += step.elapsed * rule.period
        cost = cost_of(rule, step)
        wait = rule.wait(state, now, cost)
        if wait <= step.patience * rule.period:
            state = rule.take(state, now, cost, wait)
    cost = max(1.0, int(rule.capacity * share))
    wait = rule.wait(state, now, cost)
    refunded = rule.refund(rule.take(state, now, cost, wait), now, cost)
    assert rule.wait(refunded, now, cost) == pytest.approx(wait, abs=EPSILON)
    assert rule.remaining(refunded, now) <= rule.remaining(state, now) + EPSILON
    for other in (1.0, rule.capacity):
        assert rule.wait(refunded, now, other) >= rule.wait(state, now, other) - EPSILON


@many
@given(rules, histories)
def test_every_booking_has_a_position_of_its_own(rule: AnyRule, history: list[Step]) -> None:
    state: Any = None
    now = 1000.0
    for step in history:
        now += step.elapsed * rule.period
        cost = cost_of(rule, step)
        after = rule.take(state, now, cost, rule.wait(state, now, cost))
        assert state is None or rule.position(after) != rule.position(state)
        state = after


GRID = [
    (algorithm, limit, period, burst)
    for algorithm in ALGORITHMS
    for limit in (1.0, 2.0, 10.0, 100.0)
    for period in (0.1, 1.0, 60.0)
    for burst in sorted({1.0, limit / 4, limit, 10 * limit})
    if burst >= 1 and (burst == 1.0 or algorithm in ("gcra", "token_bucket"))
]


@pytest.mark.parametrize(("algorithm", "limit", "period", "burst"), GRID)
def test_overload_gets_the_promised_rate_and_no_more(algorithm: str, limit: float, period: float, burst: float) -> None:
    rule = make_rule(algorithm, limit, period, burst)
    periods = 12
    calls = int(20 * limit * periods)
    # A pacer cannot be kept busy by callers that do not wait: they miss the moment it becomes free.
    patience = period if algorithm == "leaky_bucket" else 0.0
    state: Any = None
    admitted = 0
    for call in range(calls):
        now = 1000.0 * period + call * period / limit / 20
        wait = rule.wait(state, now, 1)
        if wait <= patience:
            state = rule.take(state, now, 1, wait)
            admitted += 1
    assert admitted >= 0.95 * limit * periods
    assert admitted <= promise(rule, periods * period + patience) + EPSILON
