"""Slices of a limit: what the ledger hands out, to whom, and that it never breaks its promise."""

from __future__ import annotations

import math
import random
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.machines.leased_ledger import POOL, Grant, Request, SliceLedger
from resilience.machines.rate_limiter import GCRA, SlidingLog, TokenBucket, decide
from tests.support.leased_world import excess
from tests.support.rules import BUCKETS, LONG

SURPLUS = 0.05


def ledger_of(*limits: tuple[float, float], surplus: float = SURPLUS, kind: Any = TokenBucket) -> SliceLedger:
    """Limits per second, with their bursts."""
    return SliceLedger([kind(limit, 1.0, burst) for limit, burst in limits], surplus)


def lease(ledger: SliceLedger, now: float, holder: str = "me", **said: Any) -> Grant:
    known = ledger.holdings.get(holder)
    said = {"serial": known.serial + 1 if known else 1, "left": 0, "returned": 0, "want": 40} | said
    grant = ledger.lease(now, Request(holder, lifetime=0.3, ahead=0.5, **said))
    assert grant is not None
    return grant


def level(ledger: SliceLedger, now: float) -> float:
    return ledger.rules[0].remaining(ledger.states[0], now)


def drained(ledger: SliceLedger, now: float) -> None:
    """Have everything taken without a slice."""
    for index, rule in enumerate(ledger.rules):
        ledger.states[index] = rule.take(None, now, rule.capacity, 0.0)


def booked_ahead(ledger: SliceLedger, now: float) -> None:
    """Have a whole burst booked for later, without a slice."""
    costs = [rule.capacity for rule in ledger.rules]
    ledger.states = list(decide(ledger.rules, ledger.states, now, costs, 1e9)[1])


def test_a_slice_is_debited_and_on_record() -> None:
    ledger = ledger_of((1000, 1000))
    assert lease(ledger, 0.0) == Grant(0, 0, 40, 0.0, 0.0, 0)
    assert level(ledger, 0.0) == 960
    assert ledger.holdings == {"me": (40, 0.3, 40, 1, 0.3)}


def test_a_full_bucket_is_leased_up_to_the_surplus() -> None:
    ledger = ledger_of((1000, 1000))
    assert lease(ledger, 0.0, want=1000).fresh == 50


def test_what_the_bucket_lacks_comes_on_top() -> None:
    ledger = ledger_of((1000, 1000))
    drained(ledger, 0.0)
    grant = lease(ledger, 0.0, want=400)
    # It ends 0.7 s after now, when 300 of the 1000 are still lacking: 50 + 1000 - 300 could be held.
    assert grant == pytest.approx((0, 0, 400, 0.4, 0.401, 0))


def test_nothing_is_booked_further_ahead_than_asked() -> None:
    ledger = ledger_of((1000, 5000))
    drained(ledger, 0.0)
    assert lease(ledger, 0.0, want=2000).fresh == 500
    assert lease(ledger, 0.0, holder="other").fresh == 0


def test_where_there_is_little_half_is_left_for_the_others() -> None:
    ledger = ledger_of((1000, 20))
    assert [lease(ledger, 0.0, holder=name).fresh for name in "abcd"] == [10, 5, 2, 0]


def test_several_limits_are_debited_alike_and_all_bind() -> None:
    ledger = ledger_of((1000, 1000), (600, 600))
    grant = lease(ledger, 0.0, want=100)
    assert grant.fresh == 30, "the surplus of the smaller"
    assert [rule.remaining(state, 0.0) for rule, state in zip(ledger.rules, ledger.states, strict=True)] == [970, 570]


def test_the_limit_that_binds_is_named() -> None:
    ledger = ledger_of((1000, 1000), (600, 600))
    drained(ledger, 0.0)
    assert lease(ledger, 0.0, want=1).binding == 1


@pytest.mark.parametrize(("limit", "processes"), [(20, 1), (100, 3), (1000, 26)])
def test_a_surplus_too_small_for_all_is_for_none(limit: float, processes: int) -> None:
    ledger = ledger_of((limit, limit))
    for index in range(processes):
        lease(ledger, 0.0, holder=f"{index}", want=2)
    before = level(ledger, 0.2)
    assert lease(ledger, 0.2, want=10, holder="late").fresh == 0
    assert level(ledger, 0.2) == before


def test_a_newcomer_gets_its_share_once_the_others_have_come_by() -> None:
    ledger = ledger_of((1000, 1000))
    assert lease(ledger, 0.0, holder="first", want=100).fresh == 50
    assert lease(ledger, 0.1, holder="second").fresh == 0
    assert lease(ledger, 0.2, holder="first", want=100).fresh == 25, "the newcomer's wish is on record"
    assert lease(ledger, 0.2, holder="second").fresh == 25


def test_those_who_want_little_leave_the_rest_to_others() -> None:
    ledger = ledger_of((1000, 1000))
    for name in "abc":
        assert lease(ledger, 0.0, holder=name, want=4).fresh == 4
    assert lease(ledger, 0.0, want=100).fresh == 38


def test_what_does_not_divide_evenly_is_for_none() -> None:
    ledger = ledger_of((1000, 1000))
    for name in "abc":
        lease(ledger, 0.0, holder=name, want=100)
    for name in "abc":  # 50 for 3
        assert lease(ledger, 0.3, holder=name, want=100).fresh == 16


def test_a_slice_that_ended_is_written_off() -> None:
    ledger = ledger_of((1000, 1000))
    lease(ledger, 0.0, holder="gone", want=50)
    assert lease(ledger, 0.29).fresh == 0
    assert lease(ledger, 0.31).fresh == 40
    assert "gone" not in ledger.holdings


def test_the_ledger_knows_when_the_first_and_the_last_unit_ends() -> None:
    ledger = ledger_of((1000, 1000))
    lease(ledger, 0.0, want=20)
    assert lease(ledger, 0.1, left=5, want=20).fresh == 15
    assert ledger.holdings["me"] == (20, 0.4, 20, 2, 0.3)
    assert lease(ledger, 0.2, left=20, want=20).fresh == 0
    assert ledger.holdings["me"] == (20, 0.4, 20, 3, 0.3)
    assert lease(ledger, 0.2, left=0, want=20).fresh == 20
    assert ledger.holdings["me"] == (20, 0.5, 20, 4, 0.5)
    assert lease(ledger, 0.2, left=20, want=20, holder="unknown").fresh == 0
    assert ledger.holdings["unknown"] == (20, 0.5, 20, 1, 0.2), "who says it holds something does"


def test_what_is_given_back_is_in_the_bucket_again() -> None:
    ledger = ledger_of((1000, 1000))
    lease(ledger, 0.0, want=20)
    assert lease(ledger, 0.0, left=4, returned=10, want=0) == Grant(0, 0, 0, 0.0, 0.0, 0)
    assert level(ledger, 0.0) == 990
    assert ledger.holdings["me"].units == 4
    lease(ledger, 0.0, returned=400, want=0)
    assert level(ledger, 0.0) == 994, "no more than was on record"
    assert not ledger.holdings
    lease(ledger, 0.0, returned=1, want=0)
    assert level(ledger, 0.0) == 994, "nor what was written off"


def test_what_is_given_back_while_bookings_lie_ahead_goes_to_the_next_who_asks() -> None:
    ledger = ledger_of((1000, 1000))
    drained(ledger, 0.0)
    assert lease(ledger, 0.0, want=20).fresh == 20
    lease(ledger, 0.01, holder="other", want=20)
    before = ledger.states
    lease(ledger, 0.02, left=0, returned=15, want=0)
    lease(ledger, 0.02, holder="other", returned=5, left=15, want=15)
    assert ledger.states == before
    assert ledger.holdings[POOL].units == 20
    assert lease(ledger, 0.03, holder="third", want=8) == pytest.approx((8, 0.29, 0, 0, 0.011, 0))
    assert ledger.holdings[POOL].units == 12
    grant = lease(ledger, 0.03, holder="fourth", want=30)
    assert grant == pytest.approx((12, 0.29, 18, 0.028, 0.029, 0))
    assert POOL not in ledger.holdings


def test_what_lies_in_the_pool_counts_against_the_cap() -> None:
    ledger = ledger_of((1000, 100))
    drained(ledger, 0.0)
    assert lease(ledger, 0.0, want=50).fresh == 50
    lease(ledger, 0.01, returned=20, want=0)
    assert ledger.holdings[POOL].units == 20
    grant = lease(ledger, 0.01, holder="other", want=100)
    assert (grant.loose, grant.fresh) == (20, 30)


def test_the_pool_ends_when_what_is_in_it_was_to_end() -> None:
    ledger = ledger_of((1000, 400))
    drained(ledger, 0.0)
    assert lease(ledger, 0.0, want=200).fresh == 150
    lease(ledger, 0.1, returned=150, want=0)
    assert ledger.holdings[POOL] == pytest.approx((150, 0.45, 0, 0, 0.45))
    drained(ledger, 0.2)
    assert lease(ledger, 0.2, holder="second", want=20)[:2] == pytest.approx((20, 0.25))
    assert ledger.holdings["second"][:2] == pytest.approx((20, 0.45))
    assert lease(ledger, 0.3, holder="second", left=20, want=20)[0] == 0
    booked_ahead(ledger, 0.4)
    lease(ledger, 0.4, holder="second", returned=20, left=0, want=0)
    assert ledger.holdings[POOL] == pytest.approx((150, 0.45, 0, 0, 0.45))
    assert lease(ledger, 0.45, holder="third", want=20)[0] == 0


def test_what_may_have_ended_is_not_handed_on() -> None:
    ledger = ledger_of((1000, 1000))
    drained(ledger, 0.0)
    lease(ledger, 0.0, want=20)
    lease(ledger, 0.2, left=20, want=40)
    assert ledger.holdings["me"].first == pytest.approx(0.32)
    booked_ahead(ledger, 0.4)
    before = ledger.states
    lease(ledger, 0.4, left=20, returned=20, want=20)
    assert ledger.states == before
    assert POOL not in ledger.holdings


def test_a_late_request_changes_nothing() -> None:
    ledger = ledger_of((1000, 1000))
    lease(ledger, 0.0, serial=2)
    before = dict(ledger.holdings), list(ledger.states)
    assert ledger.lease(1.0, Request("me", 1, 0, 0, 10, 0.3, 0.5)) is None
    assert ledger.lease(1.0, Request("me", 2, 0, 0, 10, 0.3, 0.5)) is None
    assert (ledger.holdings, ledger.states) == before


def test_rules_without_a_bucket_are_refused() -> None:
    with pytest.raises(ValueError, match="algorithm must be one of gcra, token_bucket to be leased, got sliding_log"):
        SliceLedger([SlidingLog(10, 1.0)], SURPLUS)
    with pytest.raises(ValueError, match="surplus must be greater than 0"):
        SliceLedger([GCRA(10, 1.0)], 0.0)


class Lot(NamedTuple):
    units: float
    ready: float
    until: float


class Hoarder:
    """A process that does its worst: keeps what it can, uses it at the last moment, or never, or gives it back."""

    def __init__(self, ledger: SliceLedger, name: str, chance: random.Random) -> None:
        self.ledger = ledger
        self.name = name
        self.chance = chance
        self.lots: list[Lot] = []
        self.serial = 0
        self.used: list[tuple[float, float]] = []

    def take(self, now: float, share: float) -> float:
        """Take a share of what is valid out of each lot, in whole units but for all of it."""
        interval = min(rule.period / rule.limit for rule in self.ledger.rules)
        taken = 0.0
        lots: list[Lot] = []
        for lot in self.lots:
            if now < lot.until:
                valid = max(0.0, min(lot.units, lot.units - (lot.ready - now) / interval))
                units = valid if share == 1.0 else float(int(valid * share))
                taken += units
                lots.append(lot._replace(units=lot.units - units))
        self.lots = [lot for lot in lots if lot.units > 0]
        return taken

    def use(self, now: float, share: float) -> None:
        units = self.take(now, share)
        if units:
            self.used.append((now, units))

    def ask(self, now: float) -> None:
        returned = float(int(self.take(now, self.chance.choice([0.0, 0.0, 0.0, 0.5, 1.0]))))
        self.serial += 1
        lifetime, ahead = self.chance.choice([0.05, 0.3, 2.0]), self.chance.choice([0.0, 0.1, 1.0])
        want = self.chance.choice([0, 3, 10, 100, 1000, 10_000])
        left = float(math.ceil(sum(lot.units for lot in self.lots)))
        request = Request(self.name, self.serial, left, returned, want, lifetime, ahead)
        grant = self.ledger.lease(now, request)
        if self.chance.random() < 0.1 or grant is None:  # the answer is lost
            return
        if grant.loose:
            self.lots.append(Lot(grant.loose, now, now + grant.lease))
        if grant.fresh:
            self.lots.append(Lot(grant.fresh, now + grant.wait, now + grant.wait + lifetime))


def some_time_later(chance: random.Random, now: float, hoarders: list[Hoarder]) -> float:
    """A little later, much later, or just before or after something ends."""
    moments = [lot.until for each in hoarders for lot in each.lots if lot.until > now] or [now]
    return max(
        now,
        chance.choice(
            [
                now,
                now + chance.expovariate(1000),
                now + chance.expovariate(20),
                chance.choice(moments) - 1e-9,
                chance.choice(moments) + 1e-9,
            ]
        ),
    )


@pytest.mark.parametrize("kind", BUCKETS)
@settings(max_examples=2000 if LONG else 80, deadline=None, derandomize=not LONG)
@given(
    st.integers(0, 2**32),
    st.sampled_from(
        [
            ((1000.0, 1000.0),),
            ((1000.0, 30.0),),
            ((1000.0, 8000.0),),
            ((60.0, 100.0),),
            ((1000.0, 500.0), (700.0, 2000.0)),
        ]
    ),
    st.sampled_from([0.05, 0.3, 1.0]),
    st.integers(1, 5),
)
def test_no_way_of_using_slices_breaks_the_promise(
    kind: Any, seed: int, limits: tuple[tuple[float, float], ...], surplus: float, holders: int
) -> None:
    chance = random.Random(seed)
    ledger = ledger_of(*limits, surplus=surplus, kind=kind)
    hoarders = [Hoarder(ledger, f"{index}", chance) for index in range(holders)]
    strict: list[tuple[float, float]] = []
    now = 1000.0
    largest = min(burst for _, burst in limits)
    for _ in range(300):
        now = some_time_later(chance, now, hoarders)
        one = chance.choice(hoarders)
        deed = chance.random()
        if deed < 0.5:
            one.ask(now)
        elif deed < 0.7:
            one.use(now, chance.choice([0.3, 1.0]))
        elif deed < 0.75:
            for each in hoarders:
                each.use(now, 1.0)
        elif deed < 0.9:
            cost = chance.choice([1.0, 1.0, min(largest, 20.0), largest])
            patience = chance.choice([0.0, 0.0, 0.2, 5.0])
            decision, states = decide(ledger.rules, ledger.states, now, (cost,) * len(limits), patience)
            ledger.states = list(states)
            if decision.allowed:
                strict.append((now + decision.wait, cost))
    used = [*strict, *(each for hoarder in hoarders for each in hoarder.used)]
    rounding = 0.01  # the thousandth of GCRA, and sums of floats
    for rate, burst in limits:
        assert excess(used, rate) <= burst + surplus * rate + rounding
