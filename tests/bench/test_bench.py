"""The benchmarks run, in miniature: their figures mean nothing here, their form does."""

from __future__ import annotations

import asyncio
import json
from functools import cache
from typing import Any

import pytest

from tests.bench import checks, gate, page
from tests.bench.__main__ import NAMES, measure, measure_apart
from tests.bench.contest import Setup, UnguardedError, Wrap, work
from tests.bench.guards import stacks, timeout
from tests.bench.peers import PEERS, installed
from tests.bench.report import Bar, Report, Table
from tests.bench.timing import Work

TINY = 0.0002


@cache
def document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(measure(name, TINY).as_json()))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_reports_tables_and_bars(name: str) -> None:
    found = document(name)
    assert found["benchmark"] == name
    assert found["tables"]
    for table in found["tables"]:
        assert table["rows"], table["title"]
        assert table["chart"] in table["columns"]
        assert all(list(row) == table["columns"] for row in table["rows"])
    for bar in found["bars"]:
        assert set(bar) == {"bar", "value", "limit", "sense", "holds"}
        inside = bar["value"] >= bar["limit"] if bar["sense"] == "at least" else bar["value"] <= bar["limit"]
        assert bar["holds"] is inside or bar["value"] == bar["limit"]  # rounding may have met


def test_peers_are_measured_or_named_as_missing() -> None:
    absent = {name for name in PEERS if installed(name) is None}
    measured = {peer for name in NAMES for peer in document(name)["peers"]}
    missing = {peer for name in NAMES for peer in document(name)["missing"]}
    assert measured == set(PEERS) - absent
    assert missing >= absent


def test_the_page_shows_every_bar() -> None:
    reports = [document("keys"), document("import")]
    text = page.page(reports)
    for report in reports:
        assert all(bar["bar"] in text for bar in report["bars"])


def test_a_benchmark_in_a_process_of_its_own_reports_the_same_or_that_it_broke() -> None:
    apart, here = measure_apart("import", TINY).as_json(), document("import")
    assert [table["columns"] for table in apart["tables"]] == [table["columns"] for table in here["tables"]]
    assert [bar["bar"] for bar in apart["bars"]] == [bar["bar"] for bar in here["bars"]]
    assert {**apart, "tables": [], "bars": []} == {**here, "tables": [], "bars": []}
    broken = measure_apart("keys", float("nan"))
    assert [bar.holds for bar in broken.bars] == [False]
    assert "broke off" in broken.notes[0]


def test_reports_come_back_from_their_form() -> None:
    report = Report("stack", [Table("t", ("a", "b"), [("x", 1.5)], "b")], [Bar("b", 1.0, 2.0, at_least=True)])
    report.bars.append(Bar("n", float("nan"), 1.0))
    again = Report.from_json(json.loads(json.dumps(report.as_json())))
    assert again.as_json() == report.as_json()


def test_a_bar_has_a_direction_and_nan_never_holds() -> None:
    assert Bar("", 1.0, 1.0).holds
    assert not Bar("", 1.1, 1.0).holds
    assert Bar("", 1.1, 1.0, at_least=True).holds
    assert not Bar("", float("nan"), 1.0).holds
    assert Bar("", float("nan"), 1.0).as_json()["value"] is None


def _left_alone(fn: Work) -> Work:
    return fn


@pytest.mark.parametrize("check", [checks.retries, checks.opens, checks.bounds, checks.times_out, checks.limits])
def test_who_does_not_guard_is_found_out(check: Any) -> None:
    def idle(setup: Setup) -> Wrap:
        return _left_alone

    with pytest.raises(UnguardedError):
        asyncio.run(check(idle))


@pytest.mark.parametrize("check", [checks.retries, checks.opens, checks.bounds, checks.times_out, checks.limits])
def test_our_stack_guards(check: Any) -> None:
    asyncio.run(check(stacks.ours))


def test_the_gate_holds_and_counts_the_same_twice() -> None:
    bars, foreign = asyncio.run(gate.measure())
    assert [bar for bar in bars if not bar.holds] == []
    assert foreign == {}
    again, _ = asyncio.run(gate.measure())
    assert [bar.value for bar in again] == [bar.value for bar in bars]


def test_the_gate_sees_what_a_call_should_not_do() -> None:
    async def compare() -> tuple[gate.Trace, gate.Trace]:
        dear: Work = next(each for each in timeout.CONTESTANTS if each.name == "asyncio timeout").make(Setup())(work)
        return await gate.trace(timeout.ours(Setup())(work)), await gate.trace(dear)

    ours, dear = asyncio.run(compare())
    assert dear.foreign == {"asyncio"}
    assert dear.steps > 2 * ours.steps


def test_rows_must_fit_their_table() -> None:
    with pytest.raises(ValueError, match="cells must be 2, got 1"):
        Table("", ("a", "b")).add(1)
