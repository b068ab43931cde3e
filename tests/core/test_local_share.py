"""What a process may admit without the store, and what it tells the store when that is back."""

from __future__ import annotations

import pytest

from resilience import GCRA, FixedWindow, clock
from resilience.limits._local_share import MOST_OWED, LocalShare


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    moment = [1000.0]
    monkeypatch.setattr(clock, "now", lambda: moment[0])
    return moment


def admitted(share: LocalShare, key: str, most: int = 100) -> int:
    """Take one unit after another, as the policy does, until the line refuses."""
    for count in range(most):
        if not share.line.try_take(key, (1,)):
            return count
        share.admitted(key, (1,))
    return most


def test_a_share_is_one_part_for_each_live_process(now: list[float]) -> None:
    share = LocalShare([GCRA(100, 1.0, 40)], None, 100)
    share.divide(4)
    assert admitted(share, "a") == 10
    now[0] += 0.2
    assert admitted(share, "a") == 5, "a quarter of a hundred a second"


def test_what_the_store_has_admitted_counts(now: list[float]) -> None:
    share = LocalShare([GCRA(100, 1.0, 40)], None, 100)
    share.divide(4)
    for _ in range(7):
        share.used("a", (1,))
    share.unused("a", (1,))
    assert admitted(share, "a") == 4, "an outage does not begin with another burst"
    assert admitted(share, "b") == 10


def test_a_fixed_share_stays(now: list[float]) -> None:
    share = LocalShare([GCRA(100, 1.0, 40)], 0.5, 100)
    share.divide(4)
    assert admitted(share, "") == 20


def test_processes_that_come_and_go_change_the_share_in_place(now: list[float]) -> None:
    share = LocalShare([GCRA(100, 1.0, 40)], None, 100)
    line = share.line
    share.divide(2)
    assert admitted(share, "a") == 20
    share.divide(4)
    assert share.line is line
    assert not share.line.try_take("a", (1,)), "what was used is used"
    now[0] += 10
    assert admitted(share, "a") == 10


def test_windows_that_would_mean_something_else_are_forgotten(now: list[float]) -> None:
    share = LocalShare([FixedWindow(10, 1.0)], None, 100)
    assert admitted(share, "a") == 10
    share.divide(2)
    now[0] += 2.0  # a window of two seconds now
    assert admitted(share, "a") == 10


def test_the_store_hears_what_was_admitted_without_it(now: list[float]) -> None:
    share = LocalShare([GCRA(100, 1.0, 40)], None, 100)
    share.divide(4)
    share.used("known", (1,))
    share.used("a", (3,))
    assert admitted(share, "a") == 7
    now[0] += 0.2  # five of the ten have come back since
    assert dict(share.owed(forgotten=False)) == {"a": pytest.approx((5,))}
    assert not dict(share.owed(forgotten=False)), "told once"


def test_a_store_that_has_lost_its_memory_hears_of_everything(now: list[float]) -> None:
    share = LocalShare([GCRA(100, 1.0, 40), GCRA(1000, 60.0, 1000)], None, 100)
    share.used("", (1, 5))
    share.used("a", (2, 0))
    owed = dict(share.owed(forgotten=True))
    assert owed == {"": pytest.approx((1, 5)), "a": pytest.approx((2, 0))}
    now[0] += 3600
    assert not dict(share.owed(forgotten=True)), "that is long ago"


def test_of_very_many_keys_the_latest_are_told(now: list[float]) -> None:
    share = LocalShare([GCRA(1, 60.0, 4)], None, 10 * MOST_OWED)
    for index in range(MOST_OWED + 10):
        share.used(str(index), (1,))
    told = [key for key, _ in share.owed(forgotten=True)]
    assert len(told) == MOST_OWED
    assert told[-1] == str(MOST_OWED + 9)


def test_costs_that_no_share_could_admit_are_cut(now: list[float]) -> None:
    share = LocalShare([GCRA(100, 1.0, 40)], None, 100)
    share.divide(4)
    assert share.fitting((30,)) == (10,)
