from __future__ import annotations

import json

import pytest
from rich.console import Console

from resilience.cli.demo.plan import BURST, RATE, TIMEOUT, Plan
from resilience.cli.demo.promises import LONG, RECOVERY, SLACK, Promise, judge
from resilience.cli.demo.report import print_summary, summarize
from resilience.cli.demo.tally import Answer, Arrival, Tally

PLAN = Plan(40.0)


def steady(name: str, *, good: bool, load: int, took: float = 0.1) -> Tally:
    """Ten calls a second, all alike, and so many requests a second."""
    tally = Tally(name)
    tally.answers = [Answer(number / 10, took, "good" if good else "error") for number in range(400)]
    tally.arrivals = [Arrival(number / load, number / load) for number in range(40 * load)]
    tally.held = {1: 0}
    return tally


def broken(protected: Tally, unprotected: Tally, plan: Plan = PLAN) -> list[Promise]:
    return [promise for promise in judge(plan, protected, unprotected) if not promise.kept]


def only(promises: list[Promise]) -> Promise:
    [promise] = promises
    return promise


@pytest.fixture
def protected() -> Tally:
    return steady("protected", good=True, load=10)


@pytest.fixture
def unprotected() -> Tally:
    return steady("unprotected", good=False, load=40)


def test_all_kept(protected: Tally, unprotected: Tally) -> None:
    assert broken(protected, unprotected) == []


def test_the_load_must_be_the_same(protected: Tally, unprotected: Tally) -> None:
    del protected.answers[200]
    assert "same number of calls" in only(broken(protected, unprotected)).text


def test_a_demonstration_without_calls_shows_nothing() -> None:
    assert "same number of calls" in broken(Tally("protected"), Tally("unprotected"))[0].text


def test_the_limit_must_hold_in_every_second(protected: Tally, unprotected: Tally) -> None:
    protected.arrivals += [Arrival(1.05, 1.05)] * (RATE + BURST)
    promise = only(broken(protected, unprotected))
    assert "limit" in promise.text
    assert promise.measured is not None
    assert promise.measured > promise.bound == RATE + BURST


def test_four_processes_with_a_limit_each_would_be_noticed(protected: Tally, unprotected: Tally) -> None:
    times = [1.0 + number / (4 * RATE) for number in range(4 * RATE)]
    protected.arrivals += [Arrival(at + 0.05, at) for at in times]
    assert "limit" in only(broken(protected, unprotected)).text


def test_the_failing_upstream_must_be_spared(protected: Tally, unprotected: Tally) -> None:
    begin, _ = PLAN.span("failing")
    protected.arrivals += [Arrival(begin + number / 50, None) for number in range(280)]
    assert "failing upstream" in only(broken(protected, unprotected)).text


def test_protection_must_pay(protected: Tally) -> None:
    served = steady("unprotected", good=True, load=40)
    protected.answers[0] = protected.answers[0]._replace(kind="rejected")
    assert "good answers" in only(broken(protected, served)).text


def test_in_a_short_demonstration_protection_need_not_pay(protected: Tally, unprotected: Tally) -> None:
    def judged(seconds: float) -> bool:
        return any("good answers" in promise.text for promise in judge(Plan(seconds), protected, unprotected))

    assert judged(LONG)
    assert not judged(LONG - 1)


def test_nobody_may_wait_longer_than_the_timeout(unprotected: Tally) -> None:
    patient = steady("protected", good=True, load=10, took=TIMEOUT + SLACK + 0.01)
    assert "had their answer" in only(broken(patient, unprotected)).text


def test_the_service_must_come_back_in_time(protected: Tally, unprotected: Tally) -> None:
    returned, _ = PLAN.span("recovering")
    protected.answers = [
        answer._replace(kind="error") if answer.began >= returned + RECOVERY else answer for answer in protected.answers
    ]
    promise = only(broken(protected, unprotected))
    assert "return" in promise.text
    assert promise.measured is None


@pytest.mark.parametrize("held", [{1: 0, 2: 1}, {}])
def test_no_permit_may_be_held(protected: Tally, unprotected: Tally, held: dict[int, int]) -> None:
    protected.held = held
    assert "permit" in only(broken(protected, unprotected)).text


def test_the_summary_is_plain_data(protected: Tally, unprotected: Tally) -> None:
    summary = summarize(PLAN, protected, unprotected, store="redis", workers=4)
    assert json.loads(json.dumps(summary)) == summary
    assert summary["kept"] is True
    assert summary["protected"]["goodput"] == 10.0
    assert summary["unprotected"]["errors"] == 400
    assert summary["protected"]["phases"]["slow"] == {"calls": 60, "good": 60, "upstream_load": 60}


def test_the_summary_for_people_says_which_promises_were_broken(protected: Tally, unprotected: Tally) -> None:
    protected.held = {1: 3}
    console = Console(width=140, record=True, quiet=False, file=None, force_terminal=False)
    with console.capture() as captured:
        print_summary(console, summarize(PLAN, protected, unprotected, store="memory", workers=1))
    text = captured.get()
    assert "BROKEN  no permit was held when the last call was over: 3 of 0" in text
    assert text.count("kept    ") == len(judge(PLAN, protected, unprotected)) - 1
    assert "in use again after the outage" in text
    assert "never" in text
