from __future__ import annotations

from typing import Any

import pytest

from resilience.machines.balancing import OutlierRule, Pool

from .support import picks, pool, send


def ejecting(count: int = 5, **options: Any) -> Pool:
    return pool(count, outliers=OutlierRule(**options))


def eject(made: Pool, name: str, now: float = 0.0) -> None:
    outcomes = [send(made, name, False, now) for _ in range(5)]
    assert outcomes == [None] * 4 + ["ejected"]


def test_five_failures_in_a_row_eject_for_30_seconds() -> None:
    made = ejecting()
    eject(made, "a")
    assert "a" not in picks(made, 20, now=29.9)
    assert "a" in picks(made, 20, now=30.0)


def test_a_success_in_between_and_outcomes_that_say_nothing_do_not() -> None:
    made = ejecting()
    for success in (False, False, False, False, True, False, False, False, None, False):
        assert send(made, "a", success) is None
    assert send(made, "a", False) == "ejected"


def test_on_probation_it_gets_one_request_at_a_time() -> None:
    made = ejecting()
    eject(made, "a")
    probe = made.begin(made.endpoints["a"], 30.0)
    assert "a" not in picks(made, 20, now=30.0)
    assert made.end(probe, 30.1, None) is None  # cancelled: nothing is known, and it is free again
    assert "a" in picks(made, 20, now=30.1)
    probe = made.begin(made.endpoints["a"], 30.1)
    assert made.end(probe, 30.2, True) == "restored"
    assert made.endpoints["a"].ejected_until is None
    made.begin(made.endpoints["a"], 30.2)
    assert "a" in picks(made, 20, now=30.2)


def test_a_probe_that_does_not_end_gives_way_to_another() -> None:
    made = ejecting()
    eject(made, "a")
    hung = made.begin(made.endpoints["a"], 30.0)
    assert "a" not in picks(made, 20, now=59.9)
    assert "a" in picks(made, 20, now=60.0)
    made.begin(made.endpoints["a"], 60.0)
    assert made.end(hung, 61.0, False) is None  # the verdict is that of the probe
    assert "a" not in picks(made, 20, now=61.0)


def test_one_failure_on_probation_ejects_for_longer_each_time_up_to_a_bound() -> None:
    made = ejecting(longest=100.0)
    eject(made, "a")
    now = 0.0
    until: list[float] = []
    for _ in range(3):
        now = made.endpoints["a"].ejected_until or 0.0
        assert send(made, "a", False, now) == "ejected"
        until.append((made.endpoints["a"].ejected_until or 0.0) - now)
    assert until == [60.0, 90.0, 100.0]


def test_ejections_are_forgiven_by_time_in_use() -> None:
    made = ejecting()
    eject(made, "a")
    send(made, "a", False, 30.0)
    assert send(made, "a", True, 90.0) == "restored"
    eject(made, "a", now=130.0)  # 40 s in use: one of two ejections is forgiven
    assert made.endpoints["a"].ejected_until == 130.0 + 60.0


def test_at_most_one_in_ten_and_at_least_one_is_ejected() -> None:
    made = ejecting()
    eject(made, "a")
    assert [send(made, "b", False) for _ in range(9)] == [None] * 9
    assert "b" in picks(made, 20)
    send(made, "a", True, 30.0)
    assert send(made, "b", False, 30.0) == "ejected"


def test_the_share_that_may_be_ejected_is_an_option() -> None:
    made = ejecting(count=4, share=0.5)
    for name in "ab":
        eject(made, name)
    assert [send(made, "c", False) for _ in range(9)] == [None] * 9


def test_an_endpoint_on_probation_is_ejected_again_whatever_the_share() -> None:
    made = ejecting()
    eject(made, "a")
    assert send(made, "a", False, 30.0) == "ejected"


def test_outcomes_from_before_the_ejection_say_nothing() -> None:
    made = ejecting()
    before = [made.begin(made.endpoints["a"], 0.0) for _ in range(4)]
    eject(made, "a")
    assert [made.end(ticket, 31.0, success) for ticket, success in zip(before, (True, False, True, None), strict=True)]
    assert made.endpoints["a"].ejected_until == 30.0
    assert made.endpoints["a"].failures == 0


def test_in_a_panic_a_success_restores_and_a_failure_proves_nothing_new() -> None:
    made = ejecting(count=1)
    eject(made, "a")
    assert picks(made, 2) == "aa"
    assert send(made, "a", False, 1.0) is None
    assert made.endpoints["a"].ejected_until == 30.0
    assert send(made, "a", True, 2.0) == "restored"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"failures": 0}, "failures must be at least 1"),
        ({"ejection": 0}, "ejection must be greater than 0"),
        ({"longest": 10}, "longest must be at least 30"),
        ({"share": 1.5}, "share must be at most 1"),
    ],
)
def test_wrong_options_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OutlierRule(**options)
