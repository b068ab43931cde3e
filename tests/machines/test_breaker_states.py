from __future__ import annotations

from resilience.machines.breaker_records import Admission, BreakerState
from resilience.machines.breaker_states import Closed, FleetHalfOpen, FleetOpen, HalfOpen, Isolated, Open


def test_states_have_the_names_that_users_see() -> None:
    states = (Closed(Admission(0)), Open(5.0, 5.0, 1, 0.0), HalfOpen(5.0, 1, 0.0), Isolated())
    assert [state.name for state in states] == list(BreakerState)


def test_a_probe_that_has_told_its_outcome_is_no_longer_on_its_way() -> None:
    first, second = Admission(2, 30.0), Admission(2, 30.0)
    state = HalfOpen(5.0, 1, 0.0, (first, second))
    counted = state.counted(first, failure=True, slow=False)
    assert (counted.leases, counted.calls, counted.failures, counted.slow) == ((second,), 1, 1, 0)
    assert state.leases == (first, second), "states are immutable"
    assert state.without(second).leases == (first,)


def test_states_of_a_fleet_have_the_same_names() -> None:
    assert FleetOpen(5.0, 5.0, 1, 0.0).name is BreakerState.OPEN
    half_open = FleetHalfOpen(7.0, 30.0, 1, free=1, probes=2)
    assert half_open.name is BreakerState.HALF_OPEN
    assert half_open.wait(10.0) == 0.0, "there is a place"
    full = FleetHalfOpen(7.0, 30.0, 1, free=0, probes=3)
    assert (full.wait(10.0), full.wait(31.0)) == (20.0, 0.0)
