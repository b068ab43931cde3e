from __future__ import annotations

import pytest

from resilience.cli.demo.plan import CONCURRENCY, LOAD, PHASES, RATE, SERVICE, Plan

CAPACITY = CONCURRENCY / SERVICE


def test_phases_follow_each_other_without_a_gap_and_fill_the_time() -> None:
    spans = Plan(40.0).spans()
    assert [phase.name for phase, _, _ in spans] == ["healthy", "rush", "slow", "failing", "dead", "recovering"]
    assert [begin for _, begin, _ in spans] == [0.0, *(end for _, _, end in spans[:-1])]
    assert spans[-1][2] == pytest.approx(40.0)


@pytest.mark.parametrize(
    ("at", "name"),
    [
        (-1.0, "healthy"),
        (0.0, "healthy"),
        (5.9, "healthy"),
        (6.0, "rush"),
        (27.9, "dead"),
        (28.0, "recovering"),
        (99.0, "recovering"),
    ],
)
def test_the_phase_of_a_moment(at: float, name: str) -> None:
    assert Plan(40.0).phase_at(at).name == name


def test_the_span_of_a_phase() -> None:
    assert Plan(40.0).span("slow") == pytest.approx((12.0, 18.0))


def test_the_normal_load_is_below_the_limit_and_the_rush_above_it() -> None:
    plan = Plan(40.0)
    assert plan.load_at(1.0) == LOAD < RATE < CAPACITY
    assert plan.load_at(7.0) > CAPACITY


def test_a_slow_upstream_takes_longer() -> None:
    plan = Plan(40.0)
    assert plan.service_at(1.0) == SERVICE
    assert plan.service_at(13.0) == 4 * SERVICE


def test_an_upstream_that_returns_is_cold_and_warms_up() -> None:
    plan = Plan(40.0)
    times = [plan.service_at(at) for at in (28.0, 31.0, 34.0, 37.0, 39.0)]
    assert times == sorted(times, reverse=True)
    assert times[0] == pytest.approx(10 * SERVICE)
    assert times[-1] == times[-2] == pytest.approx(SERVICE)


def test_exactly_one_phase_has_nobody_listening() -> None:
    assert [phase.name for phase in PHASES if phase.dead] == ["dead"]
