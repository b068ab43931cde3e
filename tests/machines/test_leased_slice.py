"""The slice that a process holds: what calls are told, when the store is asked, what goes back."""

from __future__ import annotations

from typing import Any

import pytest

from resilience.machines.leased_slice import (
    AHEAD,
    INTERVAL,
    LIFETIME,
    MEMORY,
    PATIENCE,
    Ask,
    Gift,
    Slice,
    Verdict,
)

UNIT = 0.001


def decide(mine: Slice, now: float, cost: float, patience: float) -> tuple[Verdict, Any]:
    """What a call is told, without the lot."""
    return mine.decide(now, cost, patience)[:2]


def grant(
    mine: Slice, now: float, *, loose: float = 0.0, fresh: float = 0.0, wait: float = 0.0, others_wait: float = 0.0
) -> None:
    """Ask and be answered at once."""
    mine.ask(now)
    mine.granted(now, now, Gift(loose, LIFETIME, fresh, wait, others_wait))


def slice_of(loose: float = 0.0, fresh: float = 0.0, wait: float = 0.0, asked: int = 10) -> Slice:
    """A slice at 0.0 of a key that was asked for so many times, and what the store gave it, at once."""
    mine = Slice(UNIT, 0.0)
    for _ in range(asked):
        mine.decide(0.0, 1, 0.0)
    grant(mine, 0.0, loose=loose, fresh=fresh, wait=wait)
    return mine


def test_a_slice_is_for_what_is_asked_for_again_and_again() -> None:
    mine = Slice(UNIT, 0.0)
    mine.roll(1.0)
    assert not mine.active
    assert decide(mine, 1.0, 1, 0.0) == (Verdict.STRICT, 0)
    assert mine.active
    assert decide(mine, 1.0, 1, 0.0) == (Verdict.ASK, 0)
    assert decide(mine, 1.0, 3, 0.0) == (Verdict.STRICT, 0), "more than all that was asked for before"
    assert decide(mine, 1.0, 3, 0.0) == (Verdict.ASK, 0)
    mine.roll(1.1)
    assert decide(mine, 1.1, 7, 0.0) == (Verdict.ASK, 0)
    assert decide(mine, 1.1, 9, 0.0) == (Verdict.STRICT, 0)


def test_what_is_asked_for_is_what_was_asked_for_in_the_last_two_intervals() -> None:
    mine = Slice(UNIT, 0.0)
    for _ in range(10):
        mine.decide(0.0, 1, 0.0)
    assert mine.want == 20
    mine.roll(INTERVAL)
    assert mine.want == 20
    mine.decide(INTERVAL, 6, 0.0)
    mine.roll(2 * INTERVAL)
    assert mine.want == 16, "halfway from 10 to 6"
    assert mine.active
    mine.roll(3 * INTERVAL)
    assert mine.want == 0, "nothing when nothing is asked for"
    assert not mine.active


def test_a_late_timer_counts_for_the_time_that_passed() -> None:
    mine = Slice(UNIT, 0.0)
    mine.decide(0.0, 40, 0.0)
    mine.roll(4 * INTERVAL)
    assert mine.want == 20


def test_most_calls_take_from_the_slice_and_that_is_all() -> None:
    mine = slice_of(fresh=20)
    assert [mine.quick(0.0, 1) for _ in range(20)] == [True] * 19 + [False], "the last one is the time to ask for more"
    assert decide(mine, 0.0, 1, 0.0) == (Verdict.TAKEN, 0)
    assert mine.wanting(0.0)


def test_a_slice_is_not_used_after_its_end() -> None:
    mine = slice_of(fresh=20)
    assert mine.quick(LIFETIME - 1e-6, 1)
    assert not mine.quick(LIFETIME, 1)
    assert mine.held(LIFETIME) == 0


def test_the_end_counts_from_when_the_question_was_sent() -> None:
    mine = Slice(UNIT, 0.0)
    mine.ask(0.0)
    mine.granted(0.0, 0.2, Gift(3, 0.25, 20, 0.05, 0.0))
    pooled, fresh = mine.lots.all
    assert fresh.ready == pytest.approx(0.25), "never before it is valid, whenever the store answered"
    assert fresh.until == pytest.approx(0.05 + LIFETIME), "never after its end, whenever the store answered"
    assert (pooled.ready, pooled.until) == pytest.approx((0.2, 0.25))


def test_nothing_that_is_held_is_prolonged_by_what_comes() -> None:
    mine = slice_of(fresh=20)
    assert mine.quick(0.0, 15)
    grant(mine, 0.1, fresh=20)
    assert mine.held(0.1) == 25
    assert not mine.quick(LIFETIME, 22)
    assert mine.held(LIFETIME) == 20
    assert mine.quick(LIFETIME, 19)
    assert mine.held(0.1 + LIFETIME) == 0


def test_what_ends_first_goes_first() -> None:
    mine = slice_of(fresh=20)
    grant(mine, 0.1, fresh=20)
    for _ in range(25):
        assert mine.quick(0.2, 1)
    assert mine.held(LIFETIME) == 15


def test_what_comes_from_the_pool_can_be_used_at_once() -> None:
    mine = slice_of(fresh=20, wait=0.1)
    assert decide(mine, 0.0, 1, 0.0)[0] is Verdict.REFUSED
    grant(mine, 0.0, loose=5)
    for _ in range(5):
        assert decide(mine, 0.0, 1, 0.0) == (Verdict.TAKEN, 0)
    assert decide(mine, 0.0, 1, 0.0)[0] is Verdict.REFUSED


def test_units_become_valid_one_after_the_other() -> None:
    mine = slice_of(fresh=20, wait=0.030)
    assert decide(mine, 0.0, 1, 0.0) == (Verdict.REFUSED, pytest.approx(0.011))
    assert decide(mine, 0.0105, 1, 0.0) == (Verdict.REFUSED, pytest.approx(0.0005))
    assert decide(mine, 0.0115, 1, 0.0) == (Verdict.TAKEN, 0.0)
    assert decide(mine, 0.0115, 3, 0.0) == (Verdict.REFUSED, pytest.approx(0.0025))
    assert decide(mine, 0.0145, 3, 0.0) == (Verdict.TAKEN, 0.0)
    assert mine.held(0.030) == 16
    assert mine.loose == 16


def test_calls_that_wait_take_their_units_ahead() -> None:
    mine = slice_of(fresh=20, wait=0.030)
    assert [mine.decide(0.0, 1, 1.0).wait for _ in range(3)] == pytest.approx([0.011, 0.012, 0.013])
    assert mine.decide(0.0, 10, 1.0).wait == pytest.approx(0.023)
    assert decide(mine, 0.0, 1, 0.02) == (Verdict.REFUSED, pytest.approx(0.024)), "not that patient"
    assert mine.held(0.0) == 7


def test_a_cost_over_both_parts_waits_for_the_last_unit() -> None:
    mine = slice_of(loose=5, fresh=20, wait=0.030)
    assert decide(mine, 0.0, 4, 0.0) == (Verdict.TAKEN, 0.0)
    assert decide(mine, 0.0, 3, 1.0) == (Verdict.TAKEN, pytest.approx(0.012))
    assert mine.loose == 0
    assert mine.held(0.0) == 18


def test_two_grants_are_valid_one_after_the_other() -> None:
    mine = slice_of(fresh=4, wait=0.010)
    grant(mine, 0.0, fresh=4, wait=0.010)
    waits = [mine.decide(0.0, 1, 1.0).wait for _ in range(8)]
    assert waits == pytest.approx([0.007, 0.008, 0.009, 0.010, 0.011, 0.012, 0.013, 0.014])


def test_more_is_asked_for_shortly_before_it_runs_out() -> None:
    mine = slice_of(fresh=20)
    mine.roll(INTERVAL)
    assert not mine.wanting(INTERVAL)
    while mine.quick(INTERVAL, 1):
        pass
    assert 0 < mine.held(INTERVAL) <= 1, "what is used up while the answer travels"
    assert decide(mine, INTERVAL, 1, 0.0) == (Verdict.TAKEN, 0.0)
    assert mine.wanting(INTERVAL)
    assert mine.ask(INTERVAL) == Ask(0, 0, 40, AHEAD)
    assert not mine.wanting(INTERVAL), "one question at a time"
    assert decide(mine, INTERVAL, 1, 0.0) == (Verdict.ASK, 0), "that call waits for the answer"


def test_an_empty_limit_is_remembered() -> None:
    mine = Slice(UNIT, 0.0)
    mine.decide(0.0, 10, 0.0)
    grant(mine, 0.0, others_wait=0.05)
    assert mine.again(0.0, 10, 0.0).wait == pytest.approx(0.05)
    assert decide(mine, 0.049, 1, 0.0) == (Verdict.REFUSED, pytest.approx(0.001))
    assert decide(mine, 0.049, 0.5, 0.0) == (Verdict.STRICT, 0), "what is smaller than what was asked may be there"
    assert decide(mine, 0.049, 1, 1.0) == (Verdict.STRICT, 0), "and who can wait may book"
    assert decide(mine, 0.05, 1, 0.0) == (Verdict.STRICT, 0)


def test_a_refusal_by_the_store_is_remembered_but_not_for_ever() -> None:
    mine = Slice(UNIT, 0.0)
    mine.refused(0.0, 3, 3600.0)
    assert decide(mine, 0.0, 3, 0.0) == (Verdict.REFUSED, MEMORY)
    assert decide(mine, MEMORY, 3, 0.0) == (Verdict.ASK, 0)


def test_without_slices_the_questions_become_rare() -> None:
    mine = Slice(UNIT, 0.0)
    now = 0.0
    asked: list[float] = []
    while now < 4.0:
        mine.decide(now, 1, 0.0)
        mine.decide(now, 1, 0.0)
        if mine.wanting(now):
            asked.append(now)
            grant(mine, now)
        now += 0.01
    assert asked == pytest.approx([0.0, 0.1, 0.3, 0.7, 1.5, 2.5, 3.5], abs=0.05)


def test_a_question_without_an_answer_is_asked_again_and_the_slice_lasts() -> None:
    mine = slice_of(fresh=20)
    mine.roll(INTERVAL)
    assert decide(mine, INTERVAL, 19.9, 0.0) == (Verdict.TAKEN, 0)
    left = mine.held(INTERVAL)
    assert mine.wanting(INTERVAL)
    mine.ask(INTERVAL)
    mine.failed(INTERVAL)
    assert mine.held(INTERVAL) == left
    assert not mine.wanting(INTERVAL)
    assert mine.wanting(2 * INTERVAL)


def test_more_than_twice_what_is_wanted_goes_back() -> None:
    mine = slice_of(fresh=20)
    mine.roll(INTERVAL)
    assert mine.excess(INTERVAL) == 0
    for now in (0.15, 0.25):
        mine.decide(now, 1, 0.0)
        mine.roll(now)
    assert mine.want == 6
    assert mine.excess(0.25) == 12
    assert mine.ask(0.25) == Ask(6, 12, 6, AHEAD)
    assert mine.held(0.25) == 6, "given up before it is known to have arrived"


def test_all_goes_back_when_nothing_is_asked_for() -> None:
    mine = slice_of(fresh=20, wait=0.150)
    mine.roll(0.1)
    mine.roll(0.1445)
    assert mine.ask(0.1445) == Ask(6, 14, 0, AHEAD), "but for what is not valid yet"


def test_giving_back_is_no_refusal() -> None:
    mine = slice_of(fresh=20)
    mine.roll(INTERVAL)
    mine.roll(2 * INTERVAL)
    assert mine.ask(2 * INTERVAL) == Ask(0, 20, 0, AHEAD)
    mine.granted(2 * INTERVAL, 2 * INTERVAL, Gift(0, 0, 0, 0, 0.5))
    mine.decide(2 * INTERVAL, 1, 0.0)
    assert decide(mine, 2 * INTERVAL, 1, 0.0) == (Verdict.ASK, 0)


def test_what_is_left_is_told_in_whole_units() -> None:
    mine = slice_of(fresh=20)
    mine.quick(0.0, 17.5)
    assert mine.ask(0.0).left == 3


def test_units_of_a_cancelled_call_go_back_into_their_lot() -> None:
    mine = slice_of(fresh=20, wait=0.030)
    grant(mine, 0.0, fresh=20, wait=0.050)
    first = mine.decide(0.0, 1, 1.0)
    second = mine.decide(0.0, 1, 1.0)
    assert (first.wait, second.wait) == pytest.approx((0.011, 0.012))
    assert mine.give_back(0.0, 1, first.lot)
    assert mine.decide(0.0, 1, 1.0).wait == pytest.approx(0.012), "not before the one that it stands for"
    assert mine.held(0.0) == 38
    assert mine.lots.all[1].units == 20


def test_a_call_that_took_from_two_lots_gives_nothing_back() -> None:
    mine = slice_of(fresh=20)
    grant(mine, 0.0, fresh=20)
    call = mine.decide(0.0, 30, 0.0)
    assert call.verdict is Verdict.TAKEN
    assert not mine.give_back(0.0, 30, call.lot)
    assert mine.held(0.0) == 10


def test_units_go_back_only_as_long_as_the_store_has_them_on_record() -> None:
    mine = slice_of(fresh=20)
    [lot] = mine.lots.all
    assert not mine.give_back(0.0, 1, lot), "all of them are there"
    mine.quick(0.0, 5)
    mine.ask(0.0)
    assert not mine.give_back(0.0, 1, lot), "the store may have heard of 15"
    mine.granted(0.0, 0.0, Gift(0, 0, 10, 0, 0))
    mine.quick(0.0, 2)
    assert mine.give_back(0.0, 2, lot)
    assert not mine.give_back(0.0, 1, lot)
    mine.quick(0.0, 5)
    assert not mine.give_back(0.0, 1, None)
    assert not mine.give_back(LIFETIME, 1, lot), "its end has come"


def test_the_patience_of_calls_is_how_far_ahead_a_slice_is_booked() -> None:
    mine = Slice(UNIT, 0.0)
    mine.decide(0.0, 1, 2.0)
    mine.decide(0.0, 1, 0.5)
    assert mine.ask(0.0).ahead == AHEAD + 2.0
    mine.failed(0.0)
    mine.roll(0.1)
    mine.decide(0.1, 1, 1e9)
    assert mine.ask(0.1).ahead == AHEAD + PATIENCE
    mine.failed(0.1)
    mine.roll(0.2)
    mine.roll(0.3)
    assert mine.ask(0.3).ahead == AHEAD


def test_sums_of_fractions_are_let_off() -> None:
    mine = slice_of(fresh=3)
    taken = [mine.quick(0.0, 0.1) or mine.decide(0.0, 0.1, 0.0).verdict is Verdict.TAKEN for _ in range(30)]
    assert all(taken)
    assert mine.held(0.0) == 0


def test_costs_next_to_nothing_are_not_for_nothing() -> None:
    mine = slice_of(fresh=3)
    assert decide(mine, 0.0, 3, 0.0) == (Verdict.TAKEN, 0)
    assert decide(mine, 0.0, 1e-9, 0.0)[0] is not Verdict.TAKEN


def test_a_dropped_slice_is_not_used() -> None:
    mine = slice_of(loose=5, fresh=20)
    lot = mine.lots.all[0]
    mine.quick(0.0, 3)
    mine.drop()
    assert mine.held(0.0) == 0
    assert not mine.give_back(0.0, 1, lot)
