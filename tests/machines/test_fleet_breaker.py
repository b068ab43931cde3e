from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from resilience.machines.breaker_records import BreakerRule, BreakerState
from resilience.machines.fleet_breaker import Answer, FleetBreaker, FleetView, Versions, Vote

CLOSED, OPEN, HALF_OPEN, ISOLATED = BreakerState


def fleet(lifetime: float = 30.0, **options: Any) -> FleetBreaker:
    """Opens for 5 s when half of 10 calls have failed; three probes with leases of 30 s."""
    defaults: dict[str, Any] = {"minimum_calls": 10, "jitter": 0.0}
    return FleetBreaker(BreakerRule(**(defaults | options)), Versions(), lifetime)


def report(breaker: FleetBreaker, now: float, process: str, calls: int, failures: int, slow: int = 0) -> None:
    """One that is not stale."""
    assert breaker.report(now, process, breaker.generation, calls, failures, slow, 0.0) is None


def opened(now: float = 100.0, **options: Any) -> FleetBreaker:
    breaker = fleet(**options)
    report(breaker, now, "a", 10, 10)
    assert breaker.state is OPEN
    return breaker


# Closed.


def test_it_opens_when_the_pooled_rate_is_reached_and_not_before() -> None:
    breaker = fleet()
    report(breaker, 100.0, "a", 9, 9)
    assert breaker.state is CLOSED, "nine calls are less than minimum_calls"
    report(breaker, 101.0, "b", 20, 3)
    assert breaker.state is CLOSED, "12 of 29"
    report(breaker, 102.0, "b", 20, 11)
    assert breaker.view == FleetView(OPEN, 102.0, 102.0, opens=1, until=107.0)


def test_a_report_replaces_the_one_before() -> None:
    breaker = fleet()
    for now in range(100, 110):
        report(breaker, float(now), "a", 9, 9)
    assert breaker.votes == {"a": Vote(9, 9, 0, 139.0)}


def test_successes_alone_are_not_judged() -> None:
    breaker = fleet(minimum_calls=10)
    report(breaker, 100.0, "a", 9, 9)
    report(breaker, 100.0, "b", 1, 0)
    assert breaker.state is CLOSED, "whoever fails next will see it"
    report(breaker, 100.0, "a", 9, 9)
    assert breaker.state is CLOSED, "one of two processes"


def test_reports_count_for_their_lifetime() -> None:
    breaker = fleet(lifetime=30.0, shared="any")
    report(breaker, 100.0, "good", 90, 0)
    report(breaker, 129.0, "bad", 10, 10)
    assert breaker.state is CLOSED
    report(breaker, 130.0, "bad", 10, 10)
    assert breaker.state is OPEN


def test_slow_calls_open_it() -> None:
    breaker = fleet(slow_rate=0.5, slow_call=1.0)
    report(breaker, 100.0, "a", 10, 0, 5)
    assert breaker.state is OPEN


@pytest.mark.parametrize(
    ("options", "votes", "opens"),
    [
        ({}, [(100, 100)], True),
        ({}, [(0, 0), (100, 100)], True),  # one that made no calls has no say
        ({}, [(1, 0), (100, 100)], False),
        ({}, [(1, 1), (100, 100)], True),
        ({}, [(1, 0), (1, 1), (100, 100)], True),
        ({}, [(1, 0)] * 9 + [(1000, 1000)], False),
        ({}, [(1, 0)] * 5 + [(100, 100)] * 5, False),
        ({}, [(1, 0)] * 4 + [(100, 100)] * 6, True),
        ({}, [(1000, 0), (100, 100), (100, 100)], False),  # a majority of processes, not of calls
        ({"quorum": 2}, [(100, 100)], False),
        ({"quorum": 2}, [(1, 0)] * 8 + [(100, 100)] * 2, True),
        ({"shared": "any"}, [(1, 0)] * 9 + [(1000, 1000)], True),
        ({"shared": "any"}, [(1, 0)] * 9 + [(9, 9)], True),
        ({"shared": "local"}, [(100, 100)] * 10, False),
    ],
)
def test_enough_processes_have_to_say_so(options: Any, votes: list[tuple[int, int]], opens: bool) -> None:
    breaker = fleet(**options)
    for number, (calls, failures) in enumerate(votes):
        report(breaker, 100.0, str(number), calls, failures)
        if breaker.state is OPEN:
            break
    assert (breaker.state is OPEN) == opens


def test_stale_reports_change_nothing() -> None:
    breaker = opened()
    assert breaker.report(101.0, "b", 0.0, 100, 100, 0, 0.0) == 100.0, "open"
    breaker.reset(102.0)
    assert breaker.report(103.0, "b", 101.9, 100, 100, 0, 0.0) == 102.0, "calls from before it closed"
    assert not breaker.votes
    report(breaker, 103.0, "b", 10, 0)


def test_versions_grow_even_if_the_clock_runs_backwards() -> None:
    versions = Versions()
    assert [versions.next(now) for now in (100.0, 100.0, 50.0, 200.0)] == [100.0, 101.0, 102.0, 200.0]


# Open.


def test_probes_are_leased_once_the_time_has_come() -> None:
    breaker = opened(100.0)
    assert breaker.ask(104.0, "p", 0.0) == Answer("wait", 1.0)
    assert breaker.ask(105.0, "p", 0.0) == Answer("probe", 105.0)
    assert breaker.view == FleetView(HALF_OPEN, 105.0, 106.0, opens=1, until=135.0, free=2, probes=1)
    assert breaker.ask(106.0, "p", 0.0) == Answer("probe", 105.0), "asked again"
    assert breaker.ask(106.0, "q", 0.0).kind == breaker.ask(107.0, "r", 0.0).kind == "probe"
    assert breaker.ask(107.0, "s", 0.0) == Answer("wait", 5.0)
    assert breaker.ask(133.0, "s", 0.0) == Answer("wait", 2.0)
    assert (breaker.view.free, breaker.view.probes) == (0, 3)


def test_jitter_and_growth() -> None:
    breaker = opened(100.0, jitter=0.2, open_max=8.0, probes=1)
    assert breaker.moment == 105.0
    breaker.ask(105.0, "p", 0.5)
    breaker.conclude(106.0, "p", failure=True, slow=False, draw=0.5)
    assert (breaker.view.state, breaker.view.until, breaker.view.opens) == (OPEN, 106.0 + 8.0 * 1.1, 2)


# Half-open.


def test_the_verdict_comes_as_soon_as_it_is_certain() -> None:
    breaker = opened()
    for probe in "pqr":
        breaker.ask(105.0, probe, 0.0)
    breaker.conclude(106.0, "p", failure=False, slow=False, draw=0.0)
    assert breaker.view == FleetView(HALF_OPEN, 105.0, 109.0, opens=1, until=135.0, probes=2)
    breaker.conclude(107.0, "p", failure=True, slow=True, draw=0.0)
    breaker.conclude(107.0, "q", failure=False, slow=False, draw=0.0)
    assert breaker.view == FleetView(CLOSED, 110.0, 110.0, until=107.0)
    breaker.conclude(108.0, "r", failure=True, slow=True, draw=0.0)
    assert breaker.view.version == 110.0
    assert breaker.ask(109.0, "s", 0.0) == Answer("closed")


def test_a_cancelled_probe_gives_back_its_place() -> None:
    breaker = opened(probes=1)
    breaker.ask(105.0, "p", 0.0)
    assert breaker.ask(105.0, "q", 0.0).kind == "wait"
    breaker.release(106.0, "p", 0.0)
    assert (breaker.view.free, breaker.view.probes, breaker.view.until) == (1, 0, 0.0)
    breaker.release(106.0, "p", 0.0)
    assert breaker.ask(106.0, "q", 0.0).kind == "probe"
    assert breaker.leases == {"q": 136.0}


def test_probes_that_hang_fail_when_their_leases_end() -> None:
    breaker = opened()
    breaker.ask(105.0, "p", 0.0)
    breaker.ask(110.0, "q", 0.0)
    breaker.look(135.0, 0.0)
    assert (breaker.failures, breaker.view.probes, breaker.view.free) == (1, 1, 1)
    breaker.look(136.0, 0.0)
    assert breaker.view.version == 109.0 + 26.0, "nothing new"
    breaker.look(150.0, 0.0)
    assert (breaker.view.state, breaker.view.until) == (OPEN, 150.0), "ten seconds from when the second ended"
    assert breaker.ask(150.0, "r", 0.0).kind == "probe"


def test_a_lease_that_ended_is_counted_before_its_late_answer() -> None:
    breaker = opened(probes=1)
    breaker.ask(105.0, "p", 0.0)
    breaker.conclude(135.0, "p", failure=False, slow=False, draw=0.0)
    assert breaker.view.state is OPEN


def test_a_clock_that_steps_back_begins_an_open_time_anew_at_most() -> None:
    breaker = opened(1000.0)
    assert breaker.ask(900.0, "p", 0.0) == Answer("wait", 5.0)
    assert breaker.view == FleetView(OPEN, 1000.0, 1001.0, opens=1, until=905.0)
    assert breaker.ask(904.0, "p", 0.0) == Answer("wait", 1.0)
    assert breaker.ask(905.0, "p", 0.0).kind == "probe"


def test_a_clock_that_steps_back_begins_a_lease_anew_at_most() -> None:
    breaker = opened(1000.0, probes=1)
    breaker.ask(1005.0, "p", 0.0)
    breaker.look(500.0, 0.0)
    assert (breaker.view.state, breaker.view.until) == (HALF_OPEN, 530.0)
    breaker.look(530.0, 0.0)
    assert breaker.view.state is OPEN


def test_whoever_asks_brings_the_rule() -> None:
    breaker = opened(probes=5)
    for probe in "pqr":
        breaker.ask(105.0, probe, 0.0)
    breaker.conclude(106.0, "p", failure=True, slow=False, draw=0.0)
    breaker.conclude(106.0, "q", failure=False, slow=False, draw=0.0)
    breaker.conclude(106.0, "r", failure=False, slow=False, draw=0.0)
    assert breaker.state is HALF_OPEN, "three of five are not enough"
    breaker.rule = BreakerRule(probes=3)
    assert breaker.ask(107.0, "s", 0.0) == Answer("closed"), "they are of three"


def test_whoever_asks_for_a_probe_knows_that_it_was_open() -> None:
    breaker = fleet()
    assert breaker.ask(100.0, "p", 0.0) == Answer("probe", 100.0)
    assert (breaker.view.state, breaker.view.opens, breaker.nominal) == (HALF_OPEN, 1, 5.0)


# By hand.


def test_isolated_until_reset() -> None:
    breaker = opened()
    breaker.isolate(101.0)
    assert breaker.view == FleetView(ISOLATED, 101.0, 101.0, until=101.0)
    breaker.isolate(102.0)
    assert breaker.view.version == 101.0
    assert breaker.ask(1e9, "p", 0.0) == Answer("isolated")
    breaker.reset(103.0)
    assert breaker.view == FleetView(CLOSED, 103.0, 103.0, until=103.0)
    breaker.reset(104.0)
    assert breaker.generation == 104.0


class Histories(RuleBasedStateMachine):
    """Never more probes than configured, nothing wedges, versions only grow."""

    @initialize(probes=st.integers(1, 4), rate=st.sampled_from([0.2, 0.5, 1.0]))
    def build(self, probes: int, rate: float) -> None:
        self.breaker = fleet(probes=probes, failure_rate=rate, probe_lease=10.0, minimum_calls=2)
        self.now = 100.0
        self.spent: set[str] = set()
        self.version = self.episode = 0.0

    @rule(step=st.sampled_from([0.0, 0.1, 1.0, 6.0, 11.0, -3.0]))
    def wait(self, step: float) -> None:
        self.now += step

    @rule(process=st.sampled_from("abc"), calls=st.integers(0, 5), share=st.sampled_from([0.0, 0.5, 1.0]))
    def tell(self, process: str, calls: int, share: float) -> None:
        self.breaker.report(self.now, process, self.breaker.generation, calls, int(calls * share), 0, 0.3)

    @rule(probe=st.sampled_from("pqrstu"))
    def ask(self, probe: str) -> None:
        answer = self.breaker.ask(self.now, probe, 0.3)
        if answer.kind == "probe":
            if answer.value != self.episode:
                self.episode, self.spent = answer.value, set()
            self.spent.add(probe)
        elif answer.kind == "wait":
            assert answer.value > 0

    @rule(probe=st.sampled_from("pqrstu"), failure=st.booleans())
    def conclude(self, probe: str, failure: bool) -> None:
        self.breaker.conclude(self.now, probe, failure, False, 0.3)

    @rule(probe=st.sampled_from("pqrstu"))
    def release(self, probe: str) -> None:
        self.breaker.release(self.now, probe, 0.3)
        self.spent.discard(probe)

    @invariant()
    def probes_are_as_many_as_configured(self) -> None:
        if not hasattr(self, "breaker"):
            return
        breaker = self.breaker
        assert breaker.calls + len(breaker.leases) <= breaker.rule.probes
        assert breaker.view.version >= self.version
        self.version = breaker.view.version
        if breaker.state is HALF_OPEN and breaker.generation == self.episode:
            assert set(breaker.leases) <= self.spent

    def teardown(self) -> None:
        """However it was left, with every prober dead: it closes once all is well."""
        if not hasattr(self, "breaker"):
            return
        self.now += 10.0
        for turn in range(3):
            self.now += 700.0
            for number in range(self.breaker.rule.probes):
                if self.breaker.ask(self.now, f"last{turn}{number}", 0.0).kind == "probe":
                    self.breaker.conclude(self.now, f"last{turn}{number}", failure=False, slow=False, draw=0.0)
        assert self.breaker.state is CLOSED


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
