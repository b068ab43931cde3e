from __future__ import annotations

from typing import Any

import pytest

from resilience.machines.breaker_records import (
    Admission,
    BreakerMetrics,
    BreakerRule,
    BreakerState,
    Pending,
    Rejection,
    Transition,
)
from resilience.machines.fleet_breaker import FleetView
from resilience.machines.shared_circuit import AT_ONCE, LATER, SOON, Probe, Report, SharedCircuit
from resilience.verdict import FAILURE, IGNORED, SUCCESS, Verdict

CLOSED, OPEN, HALF_OPEN, ISOLATED = BreakerState
LIFETIME = 30.0


class Owner:
    """Notes what a circuit has to say."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def report(self, circuit: SharedCircuit, urgency: int) -> None:
        self.said.append(("report", urgency))

    def conclude(self, circuit: SharedCircuit, probe: Probe, failure: bool, slow: bool) -> None:
        self.said.append(("conclude", probe.name, failure, slow))

    def release(self, circuit: SharedCircuit, probe: Probe) -> None:
        self.said.append(("release", probe.name))

    def order(self, circuit: SharedCircuit, state: BreakerState) -> None:
        self.said.append(("order", state))

    def heard(self) -> list[tuple[Any, ...]]:
        said, self.said = self.said, []
        return said


class Circuit(SharedCircuit):
    """Opens by itself at the second failure, for 5 s sharp."""

    __slots__ = ("heard",)

    def __init__(self, since: float = 0.0, informed: bool = True, **options: Any) -> None:
        owner = Owner()
        defaults: dict[str, Any] = {"minimum_calls": 2, "count": 8, "jitter": 0.0}
        super().__init__(BreakerRule(**(defaults | options)), owner, LIFETIME, since, informed)
        self.heard = owner.heard

    def call(self, now: float, verdict: Verdict = SUCCESS, duration: float = 0.0) -> tuple[Transition, ...]:
        answer = self.admit(now)
        assert isinstance(answer, Admission)
        return self.record(now, answer, verdict, duration, 0.0)

    def told(self, now: float, state: BreakerState, version: float, until: float = 0.0, **more: Any) -> Any:
        return self.learn(now, FleetView(state, more.pop("generation", version), version, until=until, **more))

    def rejected(self, now: float) -> tuple[BreakerState, float | None]:
        answer = self.admit(now)
        assert isinstance(answer, Rejection)
        assert not isinstance(answer, Pending)
        return answer.state, answer.retry_after

    def asks(self, now: float) -> bool:
        """Whether only the store can tell."""
        return isinstance(self.admit(now), Pending)


def kinds(transitions: tuple[Transition, ...]) -> list[tuple[BreakerState, BreakerState, int]]:
    assert {each.reason for each in transitions} <= {"fleet"}
    return [(each.old, each.new, each.generation) for each in transitions]


# Alone, it is a circuit like any other.


def test_it_opens_by_itself_and_tells_at_once() -> None:
    circuit = Circuit()
    circuit.call(1.0, FAILURE)
    assert circuit.heard() == [("report", SOON)]
    (opened,) = circuit.call(1.0, FAILURE)
    assert (opened.new, opened.reason) == (OPEN, "failure_rate")
    assert circuit.heard() == [("report", AT_ONCE)]
    assert circuit.take_report(1.0) == Report(0.0, 2, 2, 0)
    assert circuit.rejected(2.0) == (OPEN, 4.0)
    for _ in range(2):
        circuit.call(6.0)
    assert circuit.state_at(6.0) is CLOSED
    assert ("report", AT_ONCE) in circuit.heard()
    assert circuit.take_report(6.0) == Report(0.0, 0, 0, 0), "its window is a new one"


# What it tells.


def test_calls_without_an_outcome_are_not_told() -> None:
    circuit = Circuit()
    admission = circuit.admit(1.0)
    assert isinstance(admission, Admission)
    assert circuit.release(1.0, admission) == ()
    assert circuit.heard() == []


def test_reports_are_announced_once_until_they_are_taken() -> None:
    circuit = Circuit(minimum_calls=8)
    for _ in range(3):
        circuit.call(1.0)
    assert circuit.heard() == [("report", SOON)], "the fleet does not know of this process yet"
    assert circuit.take_report(1.0) == Report(0.0, 3, 0, 0)
    circuit.call(2.0)
    assert circuit.heard() == [("report", LATER)]
    circuit.call(2.0, FAILURE)
    circuit.call(2.0, FAILURE)
    assert circuit.heard() == [("report", SOON)]
    assert circuit.take_report(2.0) == Report(0.0, 6, 2, 0)
    circuit.call(3.0)
    assert circuit.heard() == [("report", LATER)]


def test_slow_calls_are_told_soon() -> None:
    circuit = Circuit(minimum_calls=8, slow_rate=1.0, slow_call=1.0)
    circuit.call(1.0)
    circuit.take_report(1.0)
    circuit.heard()
    circuit.call(1.0, duration=2.0)
    assert circuit.heard() == [("report", SOON)]
    assert circuit.take_report(1.0) == Report(0.0, 2, 0, 1)


def test_what_the_fleet_knows_already_is_told_again_before_it_is_forgotten() -> None:
    circuit = Circuit()
    for _ in range(8):
        circuit.call(1.0)
    assert circuit.take_report(1.0) == Report(0.0, 8, 0, 0)
    circuit.call(2.0)
    assert circuit.take_report(10.9) is None
    assert circuit.take_report(11.0) == Report(0.0, 8, 0, 0)


def test_there_is_nothing_to_tell_of_no_calls() -> None:
    assert Circuit().take_report(1000.0) is None


def test_what_did_not_arrive_is_told_again() -> None:
    circuit = Circuit()
    circuit.call(1.0)
    circuit.take_report(1.0)
    circuit.untold()
    assert circuit.take_report(1.0) == Report(0.0, 1, 0, 0)


def test_no_success_is_skipped() -> None:
    circuit = Circuit()
    for _ in range(20):
        circuit.call(1.0)
    assert circuit.window.calm
    assert circuit.calm is None


def test_a_glance_notices_successes_that_only_moved_the_hand_of_the_window() -> None:
    circuit = Circuit()
    for _ in range(8):
        circuit.call(1.0)
    circuit.glance()
    circuit.take_report(1.0)
    circuit.heard()
    circuit.glance()
    assert circuit.heard() == []
    circuit.window.add(2.0, False, False)
    circuit.glance()
    assert circuit.heard() == [("report", LATER)]
    circuit.window.add(2.0, False, False)
    circuit.glance()
    assert circuit.heard() == [], "already announced"
    timed = Circuit(count=None, period=10.0)
    timed.call(1.0)
    timed.heard()
    timed.glance()
    assert timed.heard() == []


# What the fleet tells.


def test_open_for_the_fleet() -> None:
    circuit = Circuit()
    stale = circuit.admit(1.0)
    assert isinstance(stale, Admission)
    (opened,) = circuit.told(1.0, OPEN, 500.0, until=6.0, opens=2)
    assert (opened.old, opened.new, opened.reason, opened.open_for) == (CLOSED, OPEN, "fleet", 5.0)
    assert opened.generation == circuit.generation == 500
    assert circuit.rejected(2.0) == (OPEN, 4.0)
    assert circuit.open_until == 6.0
    assert circuit.metrics(2.0) == BreakerMetrics(OPEN, 500, 0, 0, 0, 4.0, 2, 0)
    assert circuit.record(2.0, stale, FAILURE, 1.0, 0.0) == ()
    assert circuit.take_report(2.0) is None, "the windows of an open circuit are nobody's business"
    assert circuit.asks(6.0)
    assert circuit.state_at(6.0) is HALF_OPEN


def test_probes_of_the_fleet() -> None:
    circuit = Circuit()
    circuit.told(1.0, OPEN, 500.0, until=6.0)
    assert kinds(circuit.told(6.0, HALF_OPEN, 501.0, opens=1, free=2)) == [(OPEN, HALF_OPEN, 501)]
    assert circuit.asks(6.0)
    assert circuit.told(6.0, HALF_OPEN, 502.0, until=36.0, generation=501.0, opens=1, probes=2) == ()
    assert circuit.metrics(7.0) == BreakerMetrics(HALF_OPEN, 501, 0, 0, 0, 29.0, 1, 2)
    assert circuit.rejected(7.0) == (HALF_OPEN, 29.0)
    assert circuit.lease_ends == 36.0
    assert circuit.asks(36.0), "somebody has to look"
    assert kinds(circuit.told(40.0, HALF_OPEN, 510.0, free=1)) == [(HALF_OPEN, HALF_OPEN, 510)], "another episode"
    assert kinds(circuit.told(41.0, CLOSED, 511.0, until=41.0)) == [(HALF_OPEN, CLOSED, 511)]
    assert circuit.lease_ends == float("inf")
    assert circuit.since == 511.0
    circuit.call(42.0)
    assert circuit.take_report(42.0) == Report(511.0, 1, 0, 0)


def test_what_probes_say_goes_to_the_fleet() -> None:
    circuit = Circuit(slow_rate=0.5, slow_call=1.0)
    circuit.told(6.0, HALF_OPEN, 501.0, free=2)
    probe = circuit.granted(6.0, "p")
    assert (probe.expires, probe.generation) == (36.0, 501)
    for verdict, duration in ((SUCCESS, 0.0), (FAILURE, 0.0), (SUCCESS, 2.0), (IGNORED, 0.0)):
        assert circuit.record(7.0, probe, verdict, duration, 0.0) == ()
    assert circuit.release(7.0, probe) == ()
    assert circuit.heard() == [
        ("conclude", "p", False, False),
        ("conclude", "p", True, False),
        ("conclude", "p", False, True),
        ("release", "p"),
        ("release", "p"),
    ]
    assert circuit.state_at(7.0) is HALF_OPEN


def test_old_news_change_nothing() -> None:
    circuit = Circuit()
    circuit.told(1.0, OPEN, 500.0, until=6.0)
    circuit.told(6.0, CLOSED, 502.0)
    circuit.call(7.0)
    assert circuit.told(7.0, OPEN, 500.0, until=6.0) == ()
    assert circuit.told(7.0, CLOSED, 502.0) == ()
    assert circuit.state_at(7.0) is CLOSED
    assert circuit.window.calls == 1


def test_a_circuit_that_is_known_to_be_closed_keeps_its_window() -> None:
    circuit = Circuit(since=600.0)
    circuit.call(1.0)
    assert circuit.told(1.0, CLOSED, 502.0) == ()
    assert circuit.window.calls == 1
    assert circuit.told(1.0, CLOSED, 700.0) == (), "it has opened and closed meanwhile, which is no transition here"
    assert circuit.window.calls == 0
    assert circuit.since == 700.0


def test_the_fleet_overrules_what_it_decided_by_itself() -> None:
    circuit = Circuit()
    circuit.call(1.0, FAILURE)
    circuit.call(1.0, FAILURE)
    assert kinds(circuit.told(1.5, OPEN, 500.0, until=9.0)) == [(OPEN, OPEN, 500)]
    assert circuit.rejected(2.0) == (OPEN, 7.0)
    circuit.told(9.0, CLOSED, 501.0)
    circuit.call(9.0, FAILURE)
    circuit.call(9.0, FAILURE)
    assert kinds(circuit.told(9.5, CLOSED, 502.0)) == [(OPEN, CLOSED, 503)], "generations only grow"


def test_a_stale_report_means_a_new_window() -> None:
    circuit = Circuit()
    circuit.call(1.0)
    assert circuit.missed(2.0, 500.0) == ()
    assert (circuit.window.calls, circuit.since) == (0, 500.0)
    circuit.call(2.0)
    assert circuit.missed(2.0, 500.0) == ()
    assert circuit.window.calls == 1
    circuit.told(3.0, OPEN, 600.0, until=9.0)
    assert circuit.missed(3.0, 600.0) == ()
    assert circuit.state_at(3.0) is OPEN


def test_who_asks_may_hear_that_it_is_closed() -> None:
    circuit = Circuit()
    circuit.told(1.0, OPEN, 500.0, until=6.0)
    assert kinds(circuit.closed(6.0, 700.0)) == [(OPEN, CLOSED, 700)]
    circuit.call(6.0)
    assert circuit.closed(6.0, 800.0) == ()
    assert circuit.window.calls == 1


def test_who_is_refused_a_probe_waits() -> None:
    circuit = Circuit()
    circuit.told(1.0, OPEN, 500.0, until=6.0)
    assert circuit.asks(6.0)
    assert circuit.refused(6.0, 0.5).retry_after == 0.5
    assert circuit.rejected(6.25) == (OPEN, 0.25)
    assert circuit.open_until == 6.5
    circuit.told(7.0, HALF_OPEN, 501.0, free=2)
    assert circuit.refused(7.0, 2.0).state is HALF_OPEN
    assert circuit.rejected(8.0) == (HALF_OPEN, 1.0)
    circuit.told(8.0, CLOSED, 502.0)
    assert circuit.refused(8.0, 1.0).state is CLOSED
    circuit.call(8.0)


def test_a_ramp_began_when_the_fleet_closed() -> None:
    circuit = Circuit(ramp=10.0)
    circuit.told(1.0, OPEN, 500.0, until=6.0)
    circuit.told(20.0, CLOSED, 501.0, until=15.0)
    assert circuit.metrics(20.0).share == pytest.approx(0.55)
    answers = [isinstance(circuit.admit(20.0), Admission) for _ in range(100)]
    assert sum(answers) == pytest.approx(55, abs=1)
    circuit.call(25.0)
    assert circuit.admission is not None


# Before the first news, and while there are none.


def test_without_news_only_the_store_can_tell() -> None:
    circuit = Circuit(informed=False)
    assert circuit.asks(1.0)
    assert circuit.told(1.0, CLOSED, 500.0) == ()
    assert circuit.asks(1.0), "there may be more to hear"
    assert circuit.recover(1.0) == ()
    circuit.call(1.0)
    circuit.disconnect()
    assert circuit.admission is None
    assert circuit.asks(2.0)
    circuit.reset(2.0)
    assert circuit.asks(2.0)
    circuit.recover(3.0)
    circuit.call(3.0)


def test_alone_it_goes_on_by_itself_and_keeps_open_what_was_open() -> None:
    circuit = Circuit(informed=False)
    circuit.told(1.0, OPEN, 500.0, until=6.0, opens=3)
    answer = circuit.alone(2.0)
    assert isinstance(answer, Rejection)
    assert (answer.state, answer.retry_after) == (OPEN, 4.0)
    probe = circuit.alone(6.0)
    assert isinstance(probe, Admission)
    assert not isinstance(probe, Probe)
    circuit.record(7.0, probe, SUCCESS, 1.0, 0.0)
    circuit.call(7.0)
    assert circuit.state_at(7.0) is CLOSED
    assert isinstance(circuit.alone(7.0), Admission)


def test_alone_it_probes_by_itself_what_the_fleet_was_probing() -> None:
    circuit = Circuit()
    circuit.told(1.0, HALF_OPEN, 500.0, until=31.0, probes=3)
    assert circuit.rejected(2.0) == (HALF_OPEN, 29.0)
    assert isinstance(circuit.alone(2.0), Admission)
    assert circuit.metrics(2.0).probes == 1


def test_the_fleet_has_the_last_word_again() -> None:
    circuit = Circuit()
    circuit.told(1.0, OPEN, 500.0, until=6.0)
    circuit.alone(6.0)
    for _ in range(2):
        circuit.call(6.0)
    assert circuit.state_at(6.0) is CLOSED
    assert kinds(circuit.recover(7.0)) == [(CLOSED, OPEN, 503)], "two changes of its own lie between"
    assert circuit.asks(7.0)
    assert circuit.recover(7.0) == ()
    assert kinds(circuit.told(7.0, HALF_OPEN, 501.0, free=3)) == [(OPEN, HALF_OPEN, 504)]
    assert circuit.told(7.0, HALF_OPEN, 502.0, generation=501.0, free=2, probes=1) == ()


# By hand.


def test_isolated_and_reset_by_hand() -> None:
    circuit = Circuit()
    assert len(circuit.isolate(1.0)) == 1
    assert circuit.isolate(1.0) == ()
    assert circuit.heard() == [("order", ISOLATED)]
    assert circuit.rejected(1e9) == (ISOLATED, None)
    assert circuit.told(2.0, ISOLATED, 500.0) == (), "the echo of what was done here"
    assert circuit.take_report(2.0) is None
    assert isinstance(circuit.alone(2.0), Rejection)
    assert len(circuit.reset(3.0)) == 1
    assert circuit.heard() == [("order", CLOSED)]
    circuit.call(3.0)
    assert circuit.told(4.0, CLOSED, 501.0) == ()
    circuit.call(4.0)


def test_isolated_by_somebody_else() -> None:
    circuit = Circuit()
    assert kinds(circuit.told(2.0, ISOLATED, 500.0)) == [(CLOSED, ISOLATED, 500)]
    assert circuit.heard() == []
    assert circuit.rejected(1e9) == (ISOLATED, None)
