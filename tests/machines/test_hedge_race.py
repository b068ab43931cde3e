from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.machines.hedge_race import HedgeRace

WRONG: Any = 1.5


def running(attempts: int, at_most: int = 2) -> HedgeRace:
    race = HedgeRace(at_most)
    assert [race.start() for _ in range(attempts)] == list(range(attempts))
    return race


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="at_most must be at least 1, got 0"):
        HedgeRace(0)
    with pytest.raises(TypeError, match=r"at_most must be an integer, got 1\.5"):
        HedgeRace(WRONG)


def test_so_many_may_start_beside_the_first() -> None:
    race = running(3)
    assert race.full
    assert race.start() is None
    assert (race.started, race.live, race.winner) == (3, 3, None)


def test_the_first_success_wins() -> None:
    race = running(2)
    assert race.succeeded(1)
    assert not race.succeeded(0)
    assert (race.winner, race.live) == (1, 0)


def test_a_failure_does_not_end_it_while_another_attempt_is_under_way() -> None:
    race = running(2)
    assert not race.failed()
    assert race.winner is None
    assert race.succeeded(1)
    assert race.winner == 1


def test_if_all_fail_it_falls_to_the_first() -> None:
    race = running(3)
    assert [race.failed() for _ in range(3)] == [False, False, True]
    assert race.winner == 0
    assert race.full


def test_a_failure_after_the_end_changes_nothing() -> None:
    race = running(2)
    race.succeeded(0)
    assert not race.failed()
    assert race.winner == 0


def test_nobody_starts_after_the_end_or_when_it_is_closed() -> None:
    race = running(1)
    race.succeeded(0)
    assert race.start() is None
    race = running(1)
    race.close()
    assert race.start() is None
    assert race.winner is None


@given(at_most=st.integers(1, 4), steps=st.lists(st.sampled_from(["start", "succeed", "fail"]), max_size=20))
def test_it_is_decided_once_by_the_first_success_or_the_last_failure(at_most: int, steps: list[str]) -> None:
    race = HedgeRace(at_most)
    live: list[int] = []
    winner: int | None = None
    for step in steps:
        if step == "start":
            number = race.start()
            if number is not None:
                assert winner is None
                live.append(number)
        elif live:
            attempt = live.pop()
            decided = race.succeeded(attempt) if step == "succeed" else race.failed()
            assert decided == (winner is None and (step == "succeed" or not live))
            if decided:
                winner = attempt if step == "succeed" else 0
        assert race.winner == winner
        assert race.live == len(live)
        assert race.started <= at_most + 1
