"""A fleet with slices in virtual time: never above the bound, hardly below the rate, and seldom at the store."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.machines.rate_limiter import GCRA, TokenBucket
from tests.support.leased_world import World, excess
from tests.support.rules import BUCKETS, LONG

SURPLUS = 0.05


@pytest.mark.parametrize("kind", BUCKETS)
@pytest.mark.parametrize("burst", [400.0, 1000.0, 10_000.0])
def test_three_times_overload(kind: Any, burst: float) -> None:
    world = World([kind(1000, 1.0, burst)], SURPLUS, processes=8, seed=1)
    world.run(5.0, load=3.0)
    used = sum(units for _, units in world.used)
    assert used >= 0.97 * min(burst + 5000, 15_000)
    assert excess(world.used, 1000) <= burst + 50 + 0.01
    assert world.asked + world.strictly <= 0.15 * used
    shares = [process.used for process in world.fleet]
    assert max(shares) <= 1.25 * min(shares), "equal demand, equal shares"


@pytest.mark.parametrize("burst", [20.0, 400.0, 10_000.0])
def test_at_30_percent_everybody_is_let_through(burst: float) -> None:
    world = World([GCRA(1000, 1.0, burst)], SURPLUS, processes=8, seed=1)
    world.run(5.0, load=0.3)
    used = sum(units for _, units in world.used)
    assert used >= 0.97 * 1500
    assert world.asked + world.strictly <= 0.3 * used


def test_calls_that_wait_are_served_from_slices_too() -> None:
    world = World([GCRA(1000, 1.0, 400)], SURPLUS, processes=8, seed=1)
    start = world.now
    world.run(5.0, load=3.0, patience=0.5)
    assert sum(units for moment, units in world.used if moment <= start + 5.0) >= 0.99 * 5400
    assert excess(world.used, 1000) <= 400 + 50 + 0.01
    assert max(moment for moment, _ in world.used) <= start + 5.51, "nobody waits longer than it wanted to"
    assert world.asked + world.strictly <= 0.15 * len(world.used)


def test_a_limit_too_small_for_slices_is_strict() -> None:
    world = World([GCRA(10, 1.0)], SURPLUS, processes=8, seed=1)
    world.run(5.0, load=3.0)
    assert sum(units for _, units in world.used) >= 0.95 * 60
    assert excess(world.used, 10) <= 10 + 0.01
    assert not any(holding.units for holding in world.ledger.holdings.values())


def test_whoever_has_the_calls_has_the_slices() -> None:
    world = World([GCRA(1000, 1.0)], SURPLUS, processes=4, seed=1)
    world.run(3.0, load=0.8, shares=(9, 1, 0, 0))
    assert [process.used for process in world.fleet] == pytest.approx([2160, 240, 0, 0], rel=0.02)
    world.run(3.0, load=0.8, shares=(0, 0, 1, 9))
    assert [process.used for process in world.fleet] == pytest.approx([2160, 240, 240, 2160], rel=0.02)
    assert world.asked + world.strictly <= 0.2 * 4800


def test_bursts_of_calls_in_turn_lose_little_of_a_busy_limit() -> None:
    world = World([GCRA(1000, 1.0, 500)], SURPLUS, processes=4, seed=1)
    start = world.now
    for turn in range(40):
        world.run(0.25, load=2.0, shares=[float(index == turn % 4) for index in range(4)])
    used = sum(units for moment, units in world.used if moment <= start + 10.0)
    assert used >= 0.9 * 10_500


def test_idle_slices_are_given_back() -> None:
    world = World([TokenBucket(1000, 1.0, 1000)], SURPLUS, processes=4, seed=1)
    world.run(1.0, load=0.5)
    assert sum(holding.units for holding in world.ledger.holdings.values()) >= 20
    world.run(0.25, load=0.0)
    assert sum(process.slice.held(world.now) for process in world.fleet) <= 4
    world.run(1.0, load=0.0)
    assert not any(process.slice.active for process in world.fleet)


loads = st.lists(
    st.tuples(
        st.sampled_from([0.05, 0.2, 0.5]),
        st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0, 20.0]),
        st.sampled_from([0.0, 0.0, 0.3, 3.0]),
        st.sampled_from([1.0, 1.0, 0.3, 7.0]),
        st.lists(st.sampled_from([0.0, 1.0, 10.0]), min_size=4, max_size=4).filter(any),
    ),
    min_size=2,
    max_size=8,
)


@settings(max_examples=200 if LONG else 15, deadline=None, derandomize=not LONG)
@given(
    st.integers(0, 2**32),
    loads,
    st.sampled_from([(1000.0, 1000.0), (1000.0, 30.0), (200.0, 2000.0)]),
    st.sampled_from([0.05, 0.5]),
    st.sampled_from([0.002, 0.04]),
    st.booleans(),
)
def test_whatever_is_asked_the_bound_holds(
    seed: int,
    phases: list[tuple[float, float, float, float, list[float]]],
    limit: tuple[float, float],
    surplus: float,
    slowest: float,
    smooth: bool,
) -> None:
    rate, burst = limit
    trouble = {} if smooth else {"lost": 0.2, "cancelled": 0.3}
    world = World([GCRA(rate, 1.0, burst)], surplus, processes=4, seed=seed, slowest=slowest, **trouble)
    for seconds, load, patience, cost, shares in phases:
        world.run(seconds, load, patience, shares, cost)
    # Answers travel: what was decided one after the other may go that much closer together.
    assert excess(world.used, rate) <= burst + surplus * rate + rate * slowest + 0.01
