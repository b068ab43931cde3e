from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from resilience.machines.balancing import OutlierRule, Pool, Ticket, chooser
from tests.support.rules import LONG

from .support import picks, pool, send


def test_an_empty_pool_has_nothing_to_pick() -> None:
    assert Pool(chooser("two_choices")).pick(0.0, (0.5, 0.5)) is None


def test_replacing_keeps_what_is_known_of_those_that_stay() -> None:
    made = pool(2)
    a, b = made.endpoints.values()
    ticket = made.begin(b, 0.0)
    added, removed = made.replace({"c": 1.0, "a": 3.0}, 5.0)
    assert [each.name for each in added] == ["c"]
    assert removed == [b]
    assert list(made.endpoints) == ["c", "a"]
    assert made.endpoints["a"] is a
    assert (a.weight, a.retired, b.retired, b.in_flight) == (3.0, False, True, 1)
    made.end(ticket, 6.0, False)
    assert b.in_flight == 0
    made.replace({"b": 1.0}, 7.0)
    assert made.endpoints["b"] is not b


def test_those_to_avoid_are_avoided_while_there_are_others() -> None:
    made = pool(3)
    assert set(picks(made, 9, avoid={"a"})) == {"b", "c"}
    assert set(picks(made, 9, avoid={"a", "b", "c"})) == {"a", "b", "c"}


def test_unhealthy_ones_are_left_out() -> None:
    made = pool(3)
    made.endpoints["b"].healthy = False
    assert set(picks(made, 9)) == {"a", "c"}


@pytest.mark.parametrize(("sick", "panic"), [("", False), ("a", False), ("ab", False), ("abc", True), ("abcd", True)])
def test_below_half_health_is_ignored(sick: str, panic: bool) -> None:
    made = pool(4)
    for name in sick:
        made.endpoints[name].healthy = False
    assert set(picks(made, 8)) == (set("abcd") if panic else set("abcd") - set(sick))
    assert made.panicking is panic


def test_without_panic_nobody_healthy_means_nobody() -> None:
    made = pool(2, panic=0)
    for endpoint in made.endpoints.values():
        endpoint.healthy = False
    assert picks(made, 2) == "--"


def test_a_newcomer_starts_slowly_and_the_first_do_not() -> None:
    made = pool(4, slow_start=10.0)
    assert Counter(picks(made, 400)) == dict.fromkeys("abcd", 100)
    made.replace(dict.fromkeys("abcde", 1.0), 100.0)
    parts = [Counter(picks(made, 1000, now=now))["e"] for now in (100.0, 105.0, 110.0)]
    assert parts[0] < 30
    assert 80 < parts[1] < 120
    assert parts[2] == 200


def test_slow_start_moves_keys_one_way() -> None:
    made = pool(3, "consistent_hash", slow_start=10.0)
    made.replace(dict.fromkeys("abcd", 1.0), 100.0)
    moments = (100.0, 103.0, 106.0, 110.0)
    homes = [[made.pick(now, (0.5, 0.5), str(key)) for key in range(300)] for now in moments]
    counts = [sum(each is made.endpoints["d"] for each in home) for home in homes]
    assert counts == sorted(counts)
    assert counts[0] < 20 < 60 < counts[-1]
    for before, after in pairwise(homes):
        assert all(x is y or y is made.endpoints["d"] for x, y in zip(before, after, strict=True))


def test_when_all_start_slowly_nobody_is_left_out() -> None:
    made = pool(2, slow_start=10.0)
    made.replace({"x": 1.0}, 100.0)
    assert picks(made, 5, now=100.0) == "xxxxx"


def test_a_restored_one_starts_slowly() -> None:
    made = pool(5, slow_start=10.0, outliers=OutlierRule())
    for _ in range(5):
        send(made, "a", False)
    assert send(made, "a", True, 40.0) == "restored"
    assert made.endpoints["a"].warming_since == 40.0


def test_latency_is_that_of_the_request_or_as_measured() -> None:
    made = pool(1)
    send(made, "a", True, 0.0, took=2.0)
    assert made.endpoints["a"].latency(2.0, 10.0) == 2.0
    ticket = made.begin(made.endpoints["a"], 2.0)
    made.end(ticket, 100.0, True, measured=made.answered(ticket, 5.0))
    assert made.endpoints["a"].latency(100.0, 10.0) == 3.0


def test_a_cancelled_request_says_nothing_of_latency() -> None:
    made = pool(1)
    send(made, "a", None, took=2.0)
    assert not made.endpoints["a"].known


def test_failing_fast_is_not_fast() -> None:
    made = pool(2)
    send(made, "a", True, 0.0, took=0.1)
    send(made, "b", False, 0.1, took=0.001)
    assert made.endpoints["b"].latency(0.101, 10.0) == pytest.approx(0.1, rel=0.01)  # as slow as the other
    send(made, "a", False, 0.2, took=0.001)
    assert made.endpoints["a"].latency(0.201, 10.0) == pytest.approx(0.1, rel=0.03)
    send(made, "a", False, 0.2, took=4.0)
    assert made.endpoints["a"].latency(4.2, 10.0) == 4.0


def test_an_end_counts_once_and_a_retired_endpoint_is_not_judged() -> None:
    made = pool(2, outliers=OutlierRule(failures=1))
    ticket = made.begin(made.endpoints["a"], 0.0)
    made.end(ticket, 1.0, True)
    assert made.end(ticket, 1.0, False) is None
    ticket = made.begin(made.endpoints["a"], 1.0)
    made.replace({"b": 1.0}, 1.0)
    assert made.end(ticket, 2.0, False) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"panic": 1.1}, "panic must be at most 1"),
        ({"slow_start": -1}, "slow_start must be at least 0"),
        ({"decay": 0}, "decay must be greater than 0"),
    ],
)
def test_wrong_options_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pool(1, **options)


fractions = st.floats(0, 1, exclude_max=True)


class AnyTraffic(RuleBasedStateMachine):
    """Whatever happens: load is exact, somebody is there to pick, not too many are ejected."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.pool = pool(4, "two_choices", outliers=OutlierRule(failures=2, share=0.5), slow_start=5.0)
        self.tickets: list[Ticket] = []

    @rule(
        first=fractions, second=fractions, key=st.sampled_from([None, "x", "y"]), avoid=st.sets(st.sampled_from("abcd"))
    )
    def request(self, first: float, second: float, key: str | None, avoid: set[str]) -> None:
        endpoint = self.pool.pick(self.now, (first, second), key, avoid)
        assert endpoint is not None
        assert not endpoint.retired
        self.tickets.append(self.pool.begin(endpoint, self.now))

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), success=st.sampled_from([True, False, False, None]))
    def answer(self, data: st.DataObject, success: bool | None) -> None:
        ticket = self.tickets.pop(data.draw(st.integers(0, len(self.tickets) - 1)))
        self.pool.end(ticket, self.now, success)
        assert self.pool.end(ticket, self.now, success) is None

    @rule(seconds=st.sampled_from([0.1, 5.0, 30.0, 200.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(names=st.sets(st.sampled_from("abcdef"), min_size=1))
    def replace(self, names: set[str]) -> None:
        self.pool.replace(dict.fromkeys(sorted(names), 1.0), self.now)

    @rule(name=st.sampled_from("abcdef"), healthy=st.booleans())
    def check(self, name: str, healthy: bool) -> None:
        if name in self.pool.endpoints:
            self.pool.endpoints[name].healthy = healthy

    @invariant()
    def load_is_exact(self) -> None:
        for endpoint in self.pool.endpoints.values():
            assert endpoint.in_flight == sum(ticket.endpoint is endpoint for ticket in self.tickets)
            assert endpoint.probe is None or endpoint.ejected_until is not None


TestAnyTraffic = AnyTraffic.TestCase
TestAnyTraffic.settings = settings(max_examples=300 if LONG else 30, stateful_step_count=40, deadline=None)
