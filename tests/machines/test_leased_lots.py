"""Lots of units: when they are valid, in which order they go, and that each ends by itself."""

from __future__ import annotations

import math

import pytest

from resilience.machines.leased_lots import Lots

UNIT = 0.001


def lots_of(*grants: tuple[float, float, float]) -> Lots:
    """Lots made at 0.0: units, when all of them are valid, and when they end."""
    lots = Lots(UNIT)
    for units, ready, until in grants:
        lots.append(0.0, units, ready, until)
    return lots


def test_there_is_nothing_at_first() -> None:
    assert Lots(UNIT).count(0.0) == (0, 0, math.inf)


@pytest.mark.parametrize(("now", "loose"), [(0.0, 0), (0.009, 0), (0.0115, 1.5), (0.020, 10), (0.030, 20), (1.0, 20)])
def test_units_become_valid_one_after_the_other(now: float, loose: float) -> None:
    lots = lots_of((20, 0.030, 2.0))
    count = lots.count(now)
    assert (count.held, count.loose) == pytest.approx((20, loose))
    assert count.until == (2.0 if loose else math.inf)


@pytest.mark.parametrize(("cost", "valid_at"), [(1, 0.011), (20, 0.030), (21, 0.041), (25, 0.045), (40, 0.060)])
def test_a_cost_is_valid_with_its_last_unit(cost: float, valid_at: float) -> None:
    assert lots_of((20, 0.030, 2.0), (20, 0.060, 2.0)).valid_at(cost) == pytest.approx(valid_at)


def test_lots_do_not_overlap() -> None:
    lots = lots_of((20, 0.030, 2.0), (20, 0.035, 2.0))
    assert lots.all[1].ready == pytest.approx(0.050), "the store books one after the other; answers may be faster"
    lots.append(0.5, 20, 0.5, 2.0)
    assert lots.all[2].ready == 0.5


def test_units_valid_at_once_go_before_those_to_come() -> None:
    lots = lots_of((20, 0.030, 2.0))
    lots.prepend(5, 0.0, 1.0)
    assert lots.count(0.0) == (25, 5, 1.0)
    assert lots.valid_at(5) <= 0.0
    assert lots.valid_at(6) == pytest.approx(0.011)


def test_each_lot_ends_by_itself() -> None:
    lots = lots_of((20, 0.0, 1.0), (20, 0.0, 2.0))
    assert lots.count(0.5) == (40, 40, 1.0)
    assert lots.count(1.0) == (20, 20, 2.0)
    assert lots.count(2.0) == (0, 0, math.inf)
    assert not lots.all


def test_units_are_taken_in_order_and_go_back_where_they_were_from() -> None:
    lots = lots_of((2, 0.0, 1.0), (20, 0.0, 2.0))
    first = lots.deduct(2)
    second = lots.deduct(3)
    assert [first, second] == lots.all
    assert lots.deduct(0) is None
    assert lots.put_back(first, 2)
    assert lots.deduct(4) is None, "from two lots"
    assert lots.count(0.0).held == 15
    assert not lots.put_back(None, 1)
    lots.count(1.0)
    assert not lots.put_back(first, 1), "it has ended"
