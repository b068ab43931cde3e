from __future__ import annotations

import pytest

from resilience.cli.demo.tally import (
    TRAVEL,
    Answer,
    Arrival,
    Tally,
    fullest_second,
    quantiles,
    recovered_after,
    tightest_second,
)


def answers(*kinds: str, began: float = 0.0) -> list[Answer]:
    return [Answer(began, 0.1, kind) for kind in kinds]


def on_time(*times: float) -> list[Arrival]:
    return [Arrival(at, at) for at in times]


def test_messages_of_all_children_add_up() -> None:
    tally = Tally("protected")
    tally.add({"answers": [[0.5, 0.1, "good"], [0.6, 0.1, "rejected"]], "breaker": "closed"}, child=1)
    tally.add({"answers": [[1.5, 0.1, "good"]], "breaker": "open"}, child=2)
    tally.add({"answers": [], "breaker": "closed"}, child=2)
    tally.add({"arrivals": [[0.51, 0.5], [1.2, None]]}, child=3)
    tally.add({"held": 0}, child=1)
    assert tally.answered(0.0, 1.0) == [Answer(0.5, 0.1, "good"), Answer(0.6, 0.1, "rejected")]
    assert tally.kinds(0.0, 2.0) == {"good": 2, "rejected": 1}
    assert tally.goodput(0.0, 4.0) == 0.5
    assert tally.load(0.0, 1.0) == 1
    assert tally.circuits() == "2 closed"
    assert tally.held == {1: 0}


def test_circuits_are_counted_by_state() -> None:
    tally = Tally("protected")
    for child, state in enumerate(("open", "closed", "closed")):
        tally.add({"breaker": state}, child)
    assert tally.circuits() == "2 closed, 1 open"


def test_quantiles() -> None:
    p50, p99 = quantiles(Answer(0.0, number / 100, "good") for number in range(101))
    assert (p50, p99) == pytest.approx((0.5, 0.99))
    assert quantiles([Answer(0.0, 0.25, "good")]) == (0.25, 0.25)
    assert quantiles([]) == (None, None)


def test_the_fullest_second_may_begin_anywhere() -> None:
    assert fullest_second(on_time(0.0, 0.9, 1.5, 1.7, 1.9, 5.0)) == 4
    assert fullest_second([]) == 0


def test_a_second_within_its_limit() -> None:
    second = tightest_second(on_time(*(number / 10 for number in range(50))), rate=10, burst=2)
    assert second.requests == 11
    assert second.allowed == 12


def test_a_second_above_its_limit_is_found_among_others() -> None:
    crowd = on_time(*(7.0 + number / 100 for number in range(30)))
    second = tightest_second([*on_time(0.0, 1.0, 2.0), *crowd], rate=10, burst=2)
    assert second.requests == 30
    assert second.allowed == 12


def test_requests_that_travelled_may_come_with_those_of_their_travelling_time() -> None:
    late = [Arrival(5.0, 4.0 + number / 100) for number in range(10)]
    second = tightest_second([*late, *on_time(5.1, 5.2)], rate=10, burst=2)
    assert second.requests == 12
    assert second.late == 1.0
    assert second.allowed == 22


def test_requests_of_unknown_travelling_time_get_an_allowance() -> None:
    second = tightest_second([Arrival(5.0, None)] * 14, rate=10, burst=2)
    assert second.requests == 14
    assert second.allowed == 2 + 10 * (1 + TRAVEL)


def test_without_requests_nothing_is_exceeded() -> None:
    assert tightest_second([], rate=10, burst=2).requests == 0


def test_recovery_counts_from_the_last_bad_moment() -> None:
    calls = [
        *answers("error", "error", "good", began=10.1),
        *answers("good", "good", began=10.6),
        *answers("error", "good", "rejected", began=11.2),
        *answers("good", "error", began=11.7),
        *answers("good", began=12.2),
        *answers("error", "error", began=99.0),
    ]
    assert recovered_after(calls, 10.0, 13.0) == 1.5


def test_recovery_at_once() -> None:
    assert recovered_after(answers("good", began=10.1), 10.0, 13.0) == 0.0


@pytest.mark.parametrize("calls", [[], answers("error", began=12.9), answers("good", began=1.0)])
def test_no_recovery(calls: list[Answer]) -> None:
    assert recovered_after(calls, 10.0, 13.0) is None
