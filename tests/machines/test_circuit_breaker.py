from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from resilience.machines.circuit_breaker import (
    Admission,
    BreakerMetrics,
    BreakerRule,
    BreakerState,
    CircuitBreakerMachine,
    Rejection,
    Transition,
)
from resilience.verdict import FAILURE, IGNORED, SUCCESS, Verdict

CLOSED, OPEN, HALF_OPEN, ISOLATED = BreakerState


def admitted(machine: CircuitBreakerMachine, now: float) -> Admission:
    answer = machine.admit(now)
    assert isinstance(answer, Admission)
    return answer


def rejected(machine: CircuitBreakerMachine, now: float) -> Rejection:
    answer = machine.admit(now)
    assert isinstance(answer, Rejection)
    return answer


def call(
    machine: CircuitBreakerMachine, now: float, verdict: Verdict, duration: float = 0.0, draw: float = 0.0
) -> tuple[Transition, ...]:
    return machine.record(now, admitted(machine, now), verdict, duration, draw)


def small(**options: Any) -> CircuitBreakerMachine:
    """Opens at the first failure, for 5 s; three probes with leases of 30 s."""
    defaults: dict[str, Any] = {"minimum_calls": 1}
    return CircuitBreakerMachine(BreakerRule(**(defaults | options)))


def opened(now: float = 0.0, draw: float = 0.0, **options: Any) -> CircuitBreakerMachine:
    machine = small(**options)
    call(machine, now, FAILURE, draw=draw)
    assert machine.state_at(now) is OPEN
    return machine


# Closed.


def test_closed_admissions_share_one_object() -> None:
    machine = small()
    assert admitted(machine, 0.0) is admitted(machine, 1.0) is machine.admission


def test_it_opens_when_the_rate_is_reached_and_not_before() -> None:
    machine = CircuitBreakerMachine(BreakerRule(failure_rate=0.5, minimum_calls=4, count=10))
    assert call(machine, 0.0, FAILURE) == ()
    assert call(machine, 0.0, FAILURE) == ()
    assert call(machine, 0.0, FAILURE) == (), "three calls are less than minimum_calls"
    assert call(machine, 7.0, SUCCESS) == (Transition(CLOSED, OPEN, 1, "failure_rate", 7.0, 5.0),)
    assert machine.admission is None


def test_a_rate_below_the_limit_keeps_it_closed() -> None:
    machine = CircuitBreakerMachine(BreakerRule(failure_rate=0.5, minimum_calls=4, count=100))
    for _ in range(200):
        assert call(machine, 0.0, SUCCESS) == call(machine, 0.0, SUCCESS) == call(machine, 0.0, FAILURE) == ()
    assert machine.state_at(0.0) is CLOSED


@pytest.mark.parametrize("percent", range(1, 101))
def test_rates_are_exact_at_the_limit(percent: int) -> None:
    machine = CircuitBreakerMachine(BreakerRule(failure_rate=percent / 100, minimum_calls=100, count=100))
    outcomes = [FAILURE] * percent + [SUCCESS] * (100 - percent)
    assert [bool(call(machine, 0.0, verdict)) for verdict in outcomes] == [False] * 99 + [True]
    machine = CircuitBreakerMachine(BreakerRule(failure_rate=percent / 100, minimum_calls=100, count=100))
    for verdict in [*outcomes[1:], SUCCESS]:
        assert not call(machine, 0.0, verdict)


def test_slow_calls_open_it_failed_or_not() -> None:
    machine = small(failure_rate=None, slow_rate=0.5, slow_call=1.0, minimum_calls=4)
    assert call(machine, 0.0, FAILURE, 1.0) == (), "exactly slow_call is not slow"
    assert call(machine, 0.0, FAILURE, 0.5) == ()
    assert call(machine, 0.0, FAILURE, 1.5) == ()
    assert call(machine, 3.0, SUCCESS, 1.5) == (Transition(CLOSED, OPEN, 1, "slow_rate", 3.0, 5.0),)


def test_old_failures_leave_a_time_window() -> None:
    machine = CircuitBreakerMachine(BreakerRule(period=10.0, buckets=5, minimum_calls=2))
    assert call(machine, 0.0, FAILURE) == ()
    assert call(machine, 11.0, FAILURE) == (), "one call in the last ten seconds"
    assert call(machine, 12.0, FAILURE) != ()


def test_ignored_and_cancelled_calls_count_for_nothing_when_closed() -> None:
    machine = small()
    before = machine.metrics(0.0)
    assert call(machine, 0.0, IGNORED, 99.0) == ()
    assert machine.release(0.0, admitted(machine, 0.0)) == ()
    assert machine.metrics(0.0) == before


# Open.


def test_open_rejects_until_its_time_is_over() -> None:
    machine = opened(100.0)
    answer = rejected(machine, 101.0)
    assert (answer.state, answer.retry_after, answer.transitions) == (OPEN, 4.0, ())
    assert rejected(machine, 104.75).retry_after == 0.25
    assert machine.state_at(105.0) is HALF_OPEN
    probe = admitted(machine, 105.0)
    assert probe.transitions == (Transition(OPEN, HALF_OPEN, 2, "open_elapsed", 105.0),)
    assert (probe.generation, probe.expires) == (2, 135.0)


@pytest.mark.parametrize("draw", [0.0, 0.5, math.nextafter(1.0, 0.0)])
def test_jitter_lengthens_the_open_time_within_its_bound(draw: float) -> None:
    machine = opened(draw=draw, jitter=0.2)
    assert machine.metrics(0.0).retry_after == pytest.approx(5.0 * (1 + 0.2 * draw))
    assert isinstance(machine.admit(4.999), Rejection)
    assert isinstance(machine.admit(6.0), Admission)


def test_open_time_grows_to_its_maximum_and_begins_anew_after_closing() -> None:
    machine = opened(open_max=30.0)
    now, lengths = 0.0, list[float | None]()
    for _ in range(6):
        now += 1000.0
        call(machine, now, FAILURE)
        (transition,) = call(machine, now, FAILURE)
        lengths.append(transition.open_for)
    assert lengths == [10.0, 20.0, 30.0, 30.0, 30.0, 30.0]
    assert machine.metrics(now).opens == 7
    now += 1000.0
    call(machine, now, SUCCESS)
    (closed,) = call(machine, now, SUCCESS)
    assert closed == Transition(HALF_OPEN, CLOSED, 15, "probes_passed", now)
    assert call(machine, now, FAILURE) == (Transition(CLOSED, OPEN, 16, "failure_rate", now, 5.0),)


def test_growth_never_overflows() -> None:
    machine = opened(open_growth=1e300, open_max=1e308, probes=1)
    for n in range(1, 5):
        (transition,) = call(machine, machine_until(machine), FAILURE)
        assert transition.open_for is not None
        assert math.isfinite(transition.open_for), n


def machine_until(machine: CircuitBreakerMachine) -> float:
    retry_after = machine.metrics(0.0).retry_after
    assert retry_after is not None
    return retry_after


def test_outcomes_from_before_the_break_are_dropped() -> None:
    machine = small()
    early = [admitted(machine, 0.0) for _ in range(3)]
    call(machine, 0.0, FAILURE)
    assert machine.record(1.0, early[0], SUCCESS, 1.0, 0.0) == ()
    admitted(machine, 5.0)
    before = machine.metrics(5.0)
    assert machine.record(5.0, early[1], SUCCESS, 1.0, 0.0) == ()
    assert machine.record(5.0, early[2], FAILURE, 1.0, 0.0) == ()
    assert machine.release(5.0, early[2]) == ()
    assert machine.metrics(5.0) == before


# Half-open.


def test_half_open_admits_so_many_probes_and_no_more() -> None:
    machine = opened()
    probes = [admitted(machine, 5.0 + n) for n in range(3)]
    answer = rejected(machine, 10.0)
    assert (answer.state, answer.retry_after) == (HALF_OPEN, 5.0)
    machine.record(11.0, probes[0], SUCCESS, 1.0, 0.0)
    assert isinstance(machine.admit(11.0), Rejection), "three calls in all, not three at once"


@pytest.mark.parametrize(
    ("rate", "probes", "verdicts", "end"),
    [
        (0.5, 3, "SS", CLOSED),
        (0.5, 3, "SFS", CLOSED),
        (0.5, 3, "FF", OPEN),
        (0.5, 3, "FSF", OPEN),
        (0.5, 4, "SFF", OPEN),
        (0.5, 4, "SSS", CLOSED),
        (1.0, 3, "S", CLOSED),
        (1.0, 3, "FFF", OPEN),
        (1.0, 3, "FFS", CLOSED),
        (0.01, 3, "F", OPEN),
        (0.01, 3, "SSS", CLOSED),
        (0.5, 1, "S", CLOSED),
        (0.5, 1, "F", OPEN),
    ],
)
def test_the_verdict_comes_as_soon_as_it_is_certain(rate: float, probes: int, verdicts: str, end: BreakerState) -> None:
    machine = opened(failure_rate=rate, probes=probes)
    admissions = [admitted(machine, 5.0) for _ in range(probes)]
    states: list[BreakerState] = []
    for admission, letter in zip(admissions, verdicts, strict=False):
        machine.record(6.0, admission, SUCCESS if letter == "S" else FAILURE, 1.0, 0.0)
        states.append(machine.state_at(6.0))
    assert states == [HALF_OPEN] * (len(verdicts) - 1) + [end]


def test_slow_probes_open_it_again() -> None:
    machine = opened(slow_rate=0.5, slow_call=1.0)
    assert call(machine, 5.0, SUCCESS, 2.0) == ()
    assert call(machine, 5.0, SUCCESS, 2.0) == (Transition(HALF_OPEN, OPEN, 3, "slow_rate", 5.0, 10.0),)


def test_both_rates_must_be_out_of_reach_to_close() -> None:
    machine = opened(slow_rate=0.5, slow_call=1.0)
    assert call(machine, 5.0, SUCCESS, 2.0) == ()
    assert call(machine, 5.0, SUCCESS) == (), "the third might still be slow"
    assert call(machine, 5.0, SUCCESS) == (Transition(HALF_OPEN, CLOSED, 3, "probes_passed", 5.0),)


def test_a_cancelled_or_ignored_probe_frees_its_place_at_once_without_a_verdict() -> None:
    machine = opened(probes=1)
    for now in range(5, 25):
        assert machine.release(now, admitted(machine, now)) == ()
        assert call(machine, now, IGNORED) == ()
    metrics = machine.metrics(25.0)
    assert (metrics.state, metrics.calls, metrics.probes) == (HALF_OPEN, 0, 0)
    call(machine, 25.0, SUCCESS)
    assert machine.state_at(25.0) is CLOSED


def test_a_place_cannot_be_freed_twice() -> None:
    machine = opened(probes=2)
    first, _ = admitted(machine, 5.0), admitted(machine, 5.0)
    machine.release(5.0, first)
    machine.release(5.0, first)
    assert machine.record(5.0, first, FAILURE, 0.0, 0.0) == ()
    assert machine.metrics(5.0).probes == 1


def test_a_hung_probe_fails_when_its_lease_ends() -> None:
    machine = opened(probes=1, probe_lease=30.0)
    hung = admitted(machine, 5.0)
    assert machine.state_at(34.999) is HALF_OPEN
    assert machine.state_at(35.0) is OPEN
    assert machine.metrics(35.0).generation == 3
    answer = rejected(machine, 36.0)
    (transition,) = answer.transitions
    assert (transition.old, transition.new, transition.reason) == (HALF_OPEN, OPEN, "failure_rate")
    assert transition.at == 35.0, "when the lease ended, not when somebody noticed"
    assert transition.open_for is not None
    assert answer.retry_after == pytest.approx(35.0 + transition.open_for - 36.0)
    before = machine.metrics(36.0)
    assert machine.record(36.0, hung, SUCCESS, 31.0, 0.0) == ()
    assert machine.metrics(36.0) == before


def test_the_late_answer_of_an_expired_probe_is_what_notices_it() -> None:
    machine = opened(probes=1)
    hung = admitted(machine, 5.0)
    (transition,) = machine.record(35.0, hung, SUCCESS, 30.0, 0.0)
    assert (transition.new, transition.at) == (OPEN, 35.0)


def test_one_hung_probe_among_several_is_one_failure() -> None:
    machine = opened()
    admitted(machine, 5.0)
    other = admitted(machine, 20.0)
    assert machine.record(36.0, other, SUCCESS, 16.0, 0.0) == ()
    metrics = machine.metrics(36.0)
    assert (metrics.state, metrics.calls, metrics.failures, metrics.probes) == (HALF_OPEN, 2, 1, 0)
    call(machine, 36.0, SUCCESS)
    assert machine.state_at(36.0) is CLOSED


def test_a_probe_may_notice_that_another_has_opened_the_circuit() -> None:
    machine = opened(probes=2)
    admitted(machine, 5.0)
    other = admitted(machine, 20.0)
    (transition,) = machine.release(36.0, other)
    assert (transition.new, transition.at) == (OPEN, 35.0)


def test_a_stale_outcome_does_not_even_notice_that_a_lease_has_ended() -> None:
    machine = small(probes=1)
    stale = admitted(machine, 0.0)
    call(machine, 0.0, FAILURE)
    admitted(machine, 5.0)
    assert machine.record(36.0, stale, SUCCESS, 36.0, 0.0) == machine.release(36.0, stale) == ()
    assert machine.generation == 2
    assert rejected(machine, 36.0).transitions[0].generation == 3


def test_a_hung_probe_and_the_open_time_after_it_can_both_be_over() -> None:
    machine = opened(probes=1)
    admitted(machine, 5.0)
    assert machine.state_at(1000.0) is HALF_OPEN
    probe = admitted(machine, 1000.0)
    assert [(t.old, t.new, t.generation, t.at) for t in probe.transitions] == [
        (HALF_OPEN, OPEN, 3, 35.0),
        (OPEN, HALF_OPEN, 4, 1000.0),
    ]


def test_a_hung_probe_is_slow_too() -> None:
    machine = small(failure_rate=None, slow_rate=0.5, slow_call=60.0, probes=1)
    call(machine, 0.0, SUCCESS, 61.0)
    admitted(machine, 5.0)
    (transition,) = rejected(machine, 35.0).transitions
    assert transition.reason == "slow_rate"


def test_jitter_of_an_opening_by_time_alone_is_the_same_for_readers_and_writers() -> None:
    for draw in (0.0, 0.3, 0.9):
        machine = opened(draw=draw, probes=1)
        admitted(machine, 6.0)
        read = machine.metrics(36.5)
        assert rejected(machine, 36.5).retry_after == read.retry_after
        assert machine.metrics(36.5) == read
        assert read.retry_after is not None
        assert 9.5 <= read.retry_after < 11.5


def test_leases_end_in_order_of_their_ends_even_if_the_clock_ran_backwards() -> None:
    machine = opened(probes=2, failure_rate=1.0)
    admitted(machine, 10.0)
    admitted(machine, 7.0)
    (transition,) = rejected(machine, 41.0).transitions
    assert transition.at == 40.0


# Ramping up.


def ramping(**options: Any) -> CircuitBreakerMachine:
    """Closed by its probe at 10.0, for 10 s on its way to admit all calls."""
    machine = opened(probes=1, ramp=10.0, **options)
    (closed,) = call(machine, 10.0, SUCCESS)
    assert (closed.new, machine.state_at(10.0), machine.admission) == (CLOSED, CLOSED, None)
    return machine


@pytest.mark.parametrize(("since", "share"), [(0.0, 0.1), (2.5, 0.325), (5.0, 0.55), (9.0, 0.91), (-3.0, 0.1)])
def test_a_ramp_admits_its_share_evenly(since: float, share: float) -> None:
    machine = ramping()
    assert machine.metrics(10.0 + since).share == pytest.approx(share)
    answers = [isinstance(machine.admit(10.0 + since), Admission) for _ in range(1000)]
    assert answers[0], "the first call goes"
    assert sum(answers) == pytest.approx(1000 * share, abs=1)
    for start in range(0, 1000, 100):
        assert sum(answers[start : start + 100]) == pytest.approx(100 * share, abs=1)


def test_refusals_of_a_ramp_say_when_to_come_back() -> None:
    machine = ramping()
    admitted(machine, 10.0)
    answer = rejected(machine, 10.0)
    assert (answer.state, answer.retry_after, answer.transitions) == (CLOSED, 1.0, ())
    machine = ramping()
    admitted(machine, 19.5)
    answers = [machine.admit(19.5) for _ in range(30)]
    assert {answer.retry_after for answer in answers if isinstance(answer, Rejection)} == {0.5}


def test_a_ramp_ends_and_its_calls_count_all_the_time() -> None:
    machine = ramping(failure_rate=0.6)
    early = admitted(machine, 10.0)
    machine.record(11.0, early, SUCCESS, 1.0, 0.0)
    assert machine.release(11.0, early) == ()
    late = admitted(machine, 20.0)
    assert machine.admission is late is early
    assert machine.metrics(20.0) == BreakerMetrics(CLOSED, 3, 1, 0, 0, 0.0, 0, 0, 1.0)
    machine.record(21.0, early, FAILURE, 1.0, 0.0)
    (transition,) = machine.record(22.0, late, FAILURE, 1.0, 0.0)
    assert transition.new is OPEN


def test_a_ramp_that_fails_opens_again() -> None:
    machine = ramping()
    (transition,) = call(machine, 10.0, FAILURE)
    assert (transition.old, transition.new) == (CLOSED, OPEN)
    assert isinstance(machine.admit(12.0), Rejection)


def test_reset_by_hand_admits_all_at_once() -> None:
    machine = ramping()
    assert machine.reset(11.0) == ()
    assert [machine.admit(11.0) for _ in range(5)] == [machine.admission] * 5


# By hand.


def test_isolated_until_reset() -> None:
    machine = small()
    early = admitted(machine, 0.0)
    assert machine.isolate(1.0) == (Transition(CLOSED, ISOLATED, 1, "isolated", 1.0),)
    assert machine.isolate(2.0) == ()
    answer = rejected(machine, 1e9)
    assert (answer.state, answer.retry_after, answer.transitions) == (ISOLATED, None, ())
    assert machine.record(3.0, early, SUCCESS, 0.0, 0.0) == ()
    assert machine.metrics(3.0) == BreakerMetrics(ISOLATED, 1, 0, 0, 0, None, 0, 0)
    assert machine.reset(4.0) == (Transition(ISOLATED, CLOSED, 2, "reset", 4.0),)
    assert isinstance(machine.admit(4.0), Admission)


def test_reset_of_a_closed_circuit_forgets_without_a_transition() -> None:
    machine = small(minimum_calls=2)
    early = admitted(machine, 0.0)
    call(machine, 0.0, FAILURE)
    assert machine.reset(1.0) == ()
    assert machine.metrics(1.0).calls == 0
    assert machine.record(2.0, early, FAILURE, 0.0, 0.0) == (), "what began before the reset is forgotten too"
    assert machine.metrics(2.0).calls == 0


def test_reset_of_an_open_circuit_closes_it() -> None:
    machine = opened()
    assert machine.reset(1.0) == (Transition(OPEN, CLOSED, 2, "reset", 1.0),)
    assert machine.metrics(1.0) == BreakerMetrics(CLOSED, 2, 0, 0, 0, 0.0, 0, 0)


@pytest.mark.parametrize("operation", ["isolate", "reset"])
def test_what_time_brought_about_is_told_before_what_the_hand_did(operation: str) -> None:
    machine = opened(probes=1)
    admitted(machine, 5.0)
    transitions = getattr(machine, operation)(36.0)
    assert transitions[0].reason == "failure_rate"
    assert [(t.old, t.generation) for t in transitions] == [(HALF_OPEN, 3), (OPEN, 4)]


# Metrics.


def test_metrics_tell_what_admit_would_do() -> None:
    machine = opened(slow_rate=0.9, slow_call=1.0, minimum_calls=1)
    assert machine.metrics(1.0) == BreakerMetrics(OPEN, 1, 0, 0, 0, 4.0, 1, 0)
    assert machine.metrics(5.0) == BreakerMetrics(HALF_OPEN, 2, 0, 0, 0, 0.0, 1, 0)
    assert machine.generation == 1, "reading changed it"
    probes = [admitted(machine, 5.0) for _ in range(3)]
    assert machine.metrics(6.0) == BreakerMetrics(HALF_OPEN, 2, 0, 0, 0, 5.0, 1, 3)
    machine.record(6.0, probes[0], FAILURE, 2.0, 0.0)
    assert machine.metrics(6.0) == BreakerMetrics(HALF_OPEN, 2, 1, 1, 1, 5.0, 1, 2)
    assert machine.metrics(33.0).retry_after == 2.0


rules = st.builds(
    BreakerRule,
    failure_rate=st.sampled_from([0.2, 0.5, 1.0]),
    slow_rate=st.just(0.5),
    slow_call=st.just(1.0),
    minimum_calls=st.integers(1, 3),
    count=st.just(4),
    probes=st.integers(1, 4),
    probe_lease=st.sampled_from([1.0, 10.0]),
)


class Histories(RuleBasedStateMachine):
    """Random histories: probes never exceed their number, nothing wedges, stale outcomes and readers are inert."""

    @initialize(breaker_rule=rules)
    def build(self, breaker_rule: BreakerRule) -> None:
        self.rule = breaker_rule
        self.machine = CircuitBreakerMachine(breaker_rule)
        self.now = 0.0
        self.calls: list[Admission] = []
        self.state = CLOSED
        self.generation = 0
        # Probes admitted in the present half-open generation, less those given back.
        self.spent = 0

    def follow(self, transitions: tuple[Transition, ...]) -> None:
        """What is announced is a gapless chain that ends in the state the machine is in."""
        for transition in transitions:
            assert (transition.old, transition.generation) == (self.state, self.generation + 1)
            assert (transition.open_for is not None) == (transition.new is OPEN)
            if transition.open_for is not None:
                assert 5.0 <= transition.open_for <= 300.0 * 1.2
            assert transition.at <= self.now
            self.state, self.generation = transition.new, transition.generation
            self.spent = 0

    def is_live_probe(self, admission: Admission) -> bool:
        current = self.state is HALF_OPEN and admission.generation == self.generation
        return current and admission.expires > self.now

    @rule(step=st.sampled_from([0.0, 0.5, 1.0, 5.0, 12.0, 400.0]))
    def wait(self, step: float) -> None:
        self.now += step

    @rule()
    def admit(self) -> None:
        foreseen = self.machine.metrics(self.now)
        answer = self.machine.admit(self.now)
        shared = answer is self.machine.admission
        self.follow(() if shared else answer.transitions)
        assert self.state is foreseen.state
        assert self.generation == foreseen.generation
        if isinstance(answer, Admission):
            assert foreseen.retry_after == 0.0
            assert answer.generation == self.generation
            assert shared == (self.state is CLOSED)
            self.calls.append(answer)
            if self.state is HALF_OPEN:
                self.spent += 1
                assert self.spent <= self.rule.probes
                assert sum(map(self.is_live_probe, self.calls)) <= self.rule.probes
        else:
            assert answer.state is self.state
            assert answer.retry_after == foreseen.retry_after
            assert answer.retry_after is None or answer.retry_after > 0

    @precondition(lambda self: self.calls)
    @rule(
        data=st.data(),
        verdict=st.sampled_from(Verdict),
        duration=st.sampled_from([0.1, 2.0]),
        draw=st.floats(0.0, 0.999),
    )
    def finish(self, data: st.DataObject, verdict: Verdict, duration: float, draw: float) -> None:
        admission = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        live = self.is_live_probe(admission)
        before = self.machine.metrics(self.now)
        transitions = self.machine.record(self.now, admission, verdict, duration, draw)
        after = self.machine.metrics(self.now)
        if admission.generation != before.generation:
            assert after == before, "a stale outcome changed something"
        if verdict is IGNORED:
            assert (after.calls, after.failures, after.slow) == (before.calls, before.failures, before.slow)
            self.spent -= live
        self.follow(transitions)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        admission = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        live = self.is_live_probe(admission)
        before = self.machine.metrics(self.now)
        transitions = self.machine.release(self.now, admission)
        after = self.machine.metrics(self.now)
        assert (after.calls, after.failures, after.slow, after.state) == (
            before.calls,
            before.failures,
            before.slow,
            before.state,
        )
        assert after.probes == before.probes - live
        self.spent -= live
        self.follow(transitions)

    @rule(isolate=st.booleans(), really=st.integers(0, 9))
    def by_hand(self, isolate: bool, really: int) -> None:
        if really:
            return
        self.follow(self.machine.isolate(self.now) if isolate else self.machine.reset(self.now))
        # Resetting a closed circuit begins a generation without a transition.
        self.generation = self.machine.generation
        assert self.state is (ISOLATED if isolate else CLOSED)

    @invariant()
    def reading_changes_nothing(self) -> None:
        before = self.machine.metrics(self.now)
        assert self.machine.metrics(self.now + 1000.0).generation >= before.generation
        assert self.machine.state_at(self.now) is before.state
        assert self.machine.metrics(self.now) == before
        assert self.machine.generation == self.generation

    def teardown(self) -> None:
        """However it was left, with every call hung: it comes back by itself, and closes when all is well."""
        if not hasattr(self, "machine"):
            return
        if self.state is ISOLATED:
            self.machine.reset(self.now)
        # Several times, because a success may be the call with which failures of the past are judged.
        for _ in range(self.rule.minimum_calls + 1):
            self.now += self.rule.probe_lease + 400.0
            for _ in range(self.rule.probes):
                answer = self.machine.admit(self.now)
                if isinstance(answer, Admission):
                    self.machine.record(self.now, answer, SUCCESS, 0.1, 0.0)
        assert self.machine.state_at(self.now) is CLOSED


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
