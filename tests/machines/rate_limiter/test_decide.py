"""Several limits at once: all of them or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.machines.rate_limiter import GCRA, FixedWindow, decide, decide_one, peek
from tests.support.rules import ALGORITHMS, AnyRule, make_rule

if TYPE_CHECKING:
    from collections.abc import Sequence

BOTH: Sequence[AnyRule] = (GCRA(10, 1.0, 10), GCRA(20, 60.0, 20))


def test_the_longest_wait_counts_and_names_its_limit() -> None:
    states: Sequence[Any] = (None, None)
    decision, states = decide(BOTH, states, 0.0, (5, 19), 0.0)
    assert decision.allowed
    assert decision.binding == 0
    assert decision.remaining == pytest.approx((5, 1))
    decision, later = decide(BOTH, states, 0.0, (1, 2), 0.0)
    assert not decision.allowed
    assert decision.wait == pytest.approx(3.0)
    assert decision.binding == 1
    assert later is states, "a refusal changes nothing"


def test_all_limits_book_the_same_moment() -> None:
    _, states = decide(BOTH, (None, None), 0.0, (10, 20), 0.0)
    decision, states = decide(BOTH, states, 0.0, (1, 1), 5.0)
    assert decision.allowed
    assert decision.wait == pytest.approx(3.0)
    assert BOTH[0].wait(states[0], 3.0, 10) == pytest.approx(0.1), "booked at 3.0, when it is full again"
    decision, _ = decide(BOTH, states, 0.0, (1, 1), 100.0)
    assert decision.wait == pytest.approx(6.0), "behind the one before"


def test_peek_books_nothing_and_never_changes_its_answer() -> None:
    _, states = decide(BOTH, (None, None), 0.0, (10, 5), 0.0)
    seen = peek(BOTH, states, 0.0, (1, 1))
    assert seen == peek(BOTH, states, 0.0, (1, 1))
    assert not seen.allowed
    assert seen.wait == pytest.approx(0.1)
    assert seen.remaining == pytest.approx((0, 15))
    assert peek(BOTH, (None, None), 0.0, (1, 1)).allowed


def test_a_limit_whose_cost_is_zero_takes_no_part() -> None:
    _, states = decide(BOTH, (None, None), 0.0, (10, 0), 0.0)
    assert states[1] is None
    assert not peek(BOTH, states, 0.0, (1, 1)).allowed
    decision, later = decide(BOTH, states, 0.0, (0, 20), 0.0)
    assert decision.allowed, "the limit that is used up is not asked"
    assert later[0] is states[0]
    assert peek(BOTH, later, 0.0, (0, 1)).binding == 1


def test_every_limit_needs_a_cost() -> None:
    with pytest.raises(ValueError, match="shorter"):
        decide(BOTH, (None, None), 0.0, (1,), 0.0)


@given(
    st.sampled_from(ALGORITHMS),
    st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 3), st.sampled_from([0.0, 0.3, 5.0])), max_size=30),
)
def test_one_limit_means_the_same_either_way(algorithm: str, steps: list[tuple[float, int, float]]) -> None:
    rule = make_rule(algorithm, 3, 1.0)
    one: Any = None
    several: Sequence[Any] = (None,)
    now = 100.0
    for elapsed, cost, patience in steps:
        now += elapsed
        first, one = decide_one(rule, one, now, cost, patience)
        second, several = decide((rule,), several, now, (cost,), patience)
        assert first == second
        assert [one] == list(several)


def test_bookings_of_a_refused_call_cost_nothing() -> None:
    rules: Sequence[AnyRule] = (FixedWindow(2, 1.0), FixedWindow(3, 10.0))
    states: Sequence[Any] = (None, None)
    admitted = 0
    for call in range(1000):
        decision, states = decide(rules, states, 20.0 + call / 1000 * 3, (1, 1), 0.0)
        admitted += decision.allowed
    assert admitted == 3
