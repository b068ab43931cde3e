"""Reserve, then settle: whatever is lost, repeated or late, each id is charged once, and right."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.machines.rate_limiter import GCRA, FixedWindow, TokenBucket
from resilience.machines.rate_limiter.reserve import Record, reserve, settle
from tests.support.rules import ALGORITHMS, LONG, AnyRule, make_rule

if TYPE_CHECKING:
    from collections.abc import Sequence

RULES: Sequence[AnyRule] = (TokenBucket(10, 1.0), TokenBucket(100, 1.0))
FRESH: Sequence[Any] = (None, None)
COUNTING = [algorithm for algorithm in ALGORITHMS if algorithm != "leaky_bucket"]
"""A pacer lets one go at once, and does not count what is left."""


def test_an_estimate_is_charged_and_then_what_it_really_was() -> None:
    decision, states, record = reserve(RULES, FRESH, None, 5.0, (1, 60), 0.0)
    assert decision.remaining == (9, 40)
    settled, states, record = settle(RULES, states, record, 5.0, (None, 45.0))
    assert settled
    assert states == [(9, 5), (55, 5)]
    assert record == Record((1, 45), 5.0, 0, (), settled=True)
    again, states, same = settle(RULES, states, record, 6.0, (0.0, 0.0))
    assert (again, same) == (False, record)


def test_a_repeated_reservation_has_the_same_moment() -> None:
    _, states, first = reserve(RULES, FRESH, None, 5.0, (10, 1), 0.0)
    decision, states, record = reserve(RULES, states, None, 5.0, (2, 1), 1.0)
    assert decision.wait == pytest.approx(0.2)
    later, after, same = reserve(RULES, states, record, 5.15, (9, 9), 0.0)
    assert later.allowed
    assert later.wait == pytest.approx(0.05)
    assert (after, same) == (states, record)
    assert reserve(RULES, states, record, 6.0, (9, 9), 0.0)[0].wait == 0.0
    assert first is not None


def test_the_limit_that_bound_is_remembered_while_it_binds() -> None:
    _, states, _ = reserve(RULES, FRESH, None, 5.0, (1, 100), 0.0)
    _, states, record = reserve(RULES, states, None, 5.0, (1, 50), 1.0)
    assert reserve(RULES, states, record, 5.2, (1, 1), 0.0)[0].binding == 1
    assert reserve(RULES, states, record, 5.7, (1, 1), 0.0)[0].binding == 0


def test_a_refused_reservation_leaves_no_record() -> None:
    _, states, _ = reserve(RULES, FRESH, None, 5.0, (10, 1), 0.0)
    decision, after, record = reserve(RULES, states, None, 5.0, (1, 1), 0.05)
    assert (decision.allowed, record) == (False, None)
    assert after is states


def test_an_early_permit_is_given_back_only_where_it_was_the_last() -> None:
    _, states, _ = reserve(RULES, FRESH, None, 5.0, (10, 100), 0.0)
    _, states, record = reserve(RULES, states, None, 5.0, (5, 50), 9.0)
    _, states, _ = reserve(RULES, states, None, 5.0, (0, 10), 9.0)
    settled, states, record = settle(RULES, states, record, 5.1, (0.0, 20.0))
    assert settled
    assert record is not None
    assert record.costs == (0.0, 50), "somebody is booked behind it at the second limit"
    assert states == [(0, 5), (-60, 5)]
    _, states, record = reserve(RULES, FRESH, None, 5.0, (5, 50), 0.0)
    _, states, _ = reserve(RULES, states, None, 5.0, (1, 10), 0.0)
    assert settle(RULES, states, record, 5.0, (0.0, 0.0))[1][0] == (9, 5.0), "valid already, whatever came after"


def test_what_is_not_known_is_charged_in_full_unless_it_must_have_been_reserved() -> None:
    settled, states, record = settle(RULES, FRESH, None, 5.0, (None, 30.0))
    assert settled
    assert states[0] is None
    assert states[1] == (70, 5.0)
    decision, after, same = reserve(RULES, states, record, 5.0, (1, 60), 0.0)
    assert decision.allowed
    assert (after, same) == (states, record)
    assert settle(RULES, FRESH, None, 5.0, (1.0, 1.0), known=True) == (False, FRESH, None)


class Ids:
    """What is told of each id, and what it comes to."""

    def __init__(self, random: Random) -> None:
        self.reserved = {id: random.randint(1, 5) for id in range(8)}
        self.actual = {id: random.randint(0, 9) for id in range(8)}
        self.messages = [(kind, id) for id in range(8) for kind in ("reserve", "settle") for _ in range(3)]
        self.messages = [each for each in self.messages if random.random() < 0.6]
        random.shuffle(self.messages)

    def charged(self) -> int:
        told = set(self.messages)
        return sum(
            self.actual[id] if ("settle", id) in told else self.reserved[id] if ("reserve", id) in told else 0
            for id in range(8)
        )


@settings(max_examples=1000 if LONG else 150, deadline=None)
@given(st.sampled_from(COUNTING), st.integers(0, 2**32))
def test_lost_repeated_and_reordered_messages_charge_what_the_model_says(algorithm: str, seed: int) -> None:
    ids = Ids(Random(seed))
    rule = make_rule(algorithm, 1000, 1e9)
    state: Any = None
    records: dict[int, Record | None] = dict.fromkeys(range(8))
    for kind, id in ids.messages:
        if kind == "reserve":
            costs = (ids.reserved[id],)
            decision, (state,), records[id] = reserve((rule,), (state,), records[id], 7.0, costs, 0.0)
            assert decision.allowed
        else:
            _, (state,), records[id] = settle((rule,), (state,), records[id], 7.0, (float(ids.actual[id]),))
    assert rule.limit - rule.remaining(state, 7.0) == pytest.approx(ids.charged(), abs=1e-3)


def test_a_window_keeps_a_debt_that_a_settlement_made() -> None:
    rules: list[Any] = [FixedWindow(10, 1.0), GCRA(10, 1.0)]
    _, states, record = reserve(rules, FRESH, None, 5.5, (1, 1), 0.0)
    _, states, _ = settle(rules, states, record, 5.5, (25.0, 25.0))
    assert states == [(7, 5.0, 0.0), pytest.approx(8.0)]
