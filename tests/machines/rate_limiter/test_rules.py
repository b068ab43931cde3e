"""What the rules have in common: construction, values, costs."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest

from resilience.machines.rate_limiter import GCRA, FixedWindow, LeakyBucket, TokenBucket, check_cost, check_costs
from resilience.machines.rate_limiter.rule import text
from tests.support.rules import ALGORITHMS, BUCKETS, WINDOWS, make_rule


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, -math.inf])
def test_impossible_numbers_are_refused_by_name(algorithm: str, value: float) -> None:
    with pytest.raises(ValueError, match="limit must be"):
        make_rule(algorithm, value, 1.0, 1.0)
    with pytest.raises(ValueError, match="period must be"):
        make_rule(algorithm, 10, value, 1.0)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("value", [True, "10", None, 1j])
def test_other_types_are_refused_by_name(algorithm: str, value: Any) -> None:
    with pytest.raises(TypeError, match="limit must be a number"):
        make_rule(algorithm, value, 1.0, 1.0)
    with pytest.raises(TypeError, match="period must be a number"):
        make_rule(algorithm, 10, value, 1.0)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_more_than_a_million_a_second_is_refused(algorithm: str) -> None:
    assert make_rule(algorithm, 1_000_000, 1.0).limit == 1_000_000
    with pytest.raises(ValueError, match="limit must be at most 1000000 per second"):
        make_rule(algorithm, 1_000_001, 1.0)


@pytest.mark.parametrize("bucket", BUCKETS)
def test_burst_is_at_least_one_and_defaults_to_the_limit(bucket: type[GCRA] | type[TokenBucket]) -> None:
    assert bucket(10, 1.0).burst == 10
    assert bucket(0.5, 1.0).burst == 1
    assert bucket(10, 1.0, 2.5).capacity == 2.5
    for burst in (0.5, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="burst must be"):
            bucket(10, 1.0, burst)
    with pytest.raises(TypeError, match="burst must be a number"):
        bucket(10, 1.0, True)


@pytest.mark.parametrize("window", WINDOWS)
def test_a_window_without_room_for_one_unit_is_refused(window: type[FixedWindow]) -> None:
    with pytest.raises(ValueError, match=r"limit must be at least 1 for a window, got 0\.5"):
        window(0.5, 1.0)


def test_a_slow_pacer_still_admits_one() -> None:
    assert LeakyBucket(0.5, 1.0).capacity == 1
    assert LeakyBucket(7, 1.0).capacity == 7


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_rules_are_immutable_values(algorithm: str) -> None:
    rule = make_rule(algorithm, 10, 2.0, 5)
    again = make_rule(algorithm, 10, 2.0, 5)
    assert rule == again
    assert hash(rule) == hash(again)
    assert pickle.loads(pickle.dumps(rule)) == rule
    assert rule != make_rule(algorithm, 11, 2.0, 5)
    other: object = (10, 2.0)
    assert rule != other
    assert repr(rule).startswith(f"{type(rule).__name__}(10, 2")
    with pytest.raises(AttributeError, match="immutable"):
        setattr(rule, "limit", 20)  # noqa: B010 - a plain assignment would not pass the type checker
    with pytest.raises(AttributeError, match="immutable"):
        delattr(rule, "limit")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_costs_are_positive_finite_and_fit(algorithm: str) -> None:
    rule = make_rule(algorithm, 10, 1.0, 10)
    for cost in (0.001, 1, 10, 10.0):
        assert check_cost(rule, cost) == cost
    for cost in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="cost must be"):
            check_cost(rule, cost)
    with pytest.raises(ValueError, match="cost must be at most 10, the most ever admitted, got 11"):
        check_cost(rule, 11)
    wrong: list[Any] = [True, "1", None]
    for each in wrong:
        with pytest.raises(TypeError, match="cost must be a number"):
            check_cost(rule, each)


class Units(float):
    """A number of a type of its own."""


def test_costs_may_be_of_a_numeric_subclass() -> None:
    assert check_cost(GCRA(10, 1.0), Units(3)) == 3


def test_numbers_survive_as_text() -> None:
    numbers = (0.1, 1 / 3, 1_795_358_349_864_858.25, 5)
    assert tuple(map(float, text(*numbers).split())) == numbers


def test_of_several_limits_some_may_take_no_part() -> None:
    rules = (GCRA(10, 1.0), GCRA(5, 1.0))
    for costs in ((1, 1), (0, 5), (0.0, 0.5), (10, 0)):
        check_costs(rules, costs)
    for wrong in ((0, 6), (-1, 1), (math.nan, 1)):
        with pytest.raises(ValueError, match="cost must be"):
            check_costs(rules, wrong)
    with pytest.raises(ValueError, match=r"cost must be greater than 0 for one limit at least, got 0, 0\.0"):
        check_costs(rules, (0, 0.0))
    with pytest.raises(TypeError, match="cost must be a number, got False"):
        check_costs(rules, (1, False))
    with pytest.raises(ValueError, match="argument"):
        check_costs(rules, (1,))
