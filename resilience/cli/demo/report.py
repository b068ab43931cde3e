"""The summary, for people and for machines.

summary = summarize(plan, protected, unprotected, store="redis")
print_summary(console, summary)     # or print(json.dumps(summary))
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from .live import milliseconds
from .plan import ATTEMPT_TIMEOUT, BURST, NAIVE_RETRIES, RATE, Plan
from .promises import judge
from .tally import Tally, fullest_second, quantiles, recovered_after

Summary = dict[str, Any]


def summarize(plan: Plan, protected: Tally, unprotected: Tally, *, store: str, workers: int) -> Summary:
    """Everything that was measured, as plain data."""
    promises = [asdict(promise) for promise in judge(plan, protected, unprotected)]
    return {
        "seconds": plan.seconds,
        "store": store,
        "workers": workers,
        "limit": {"rate": RATE, "burst": BURST},
        "protected": _population(plan, protected),
        "unprotected": _population(plan, unprotected),
        "promises": promises,
        "kept": all(promise["kept"] for promise in promises),
    }


def _population(plan: Plan, tally: Tally) -> Summary:
    kinds = tally.kinds(0.0, plan.seconds)
    p50, p99 = quantiles(answer for answer in tally.answers if answer.kind == "good")
    return {
        "calls": len(tally.answers),
        "good": kinds["good"],
        "errors": kinds["error"],
        "timeouts": kinds["timeout"],
        "rejected": kinds["rejected"],
        "goodput": kinds["good"] / plan.seconds,
        "p50": p50,
        "p99": p99,
        "p99_of_all": quantiles(tally.answers)[1],
        "upstream_load": len(tally.arrivals),
        "fullest_second": fullest_second(tally.arrivals),
        "recovered_after": recovered_after(tally.answers, *plan.span("recovering")),
        "phases": {
            phase.name: {
                "calls": len(tally.answered(begin, end)),
                "good": tally.kinds(begin, end)["good"],
                "upstream_load": tally.load(begin, end),
            }
            for phase, begin, end in plan.spans()
        },
    }


def print_summary(console: Console, summary: Summary) -> None:
    """The summary as two tables and a list of promises."""
    console.print(_totals(summary))
    console.print(_phases(summary))
    console.print(
        f"protected: Pipeline.standard, {summary['workers']} processes, one limit of {RATE}/s in"
        f" {summary['store']}.  unprotected: timeout {ATTEMPT_TIMEOUT:g} s, {NAIVE_RETRIES} retries at once.\n",
        highlight=False,
        soft_wrap=True,
    )
    for promise in summary["promises"]:
        mark = "[green]kept  [/green]" if promise["kept"] else "[red]BROKEN[/red]"
        figures = f"{_number(promise['measured'])} of {_number(promise['bound'])}"
        console.print(f"{mark}  {promise['text']}: {figures}", highlight=False, soft_wrap=True)


def _totals(summary: Summary) -> Table:
    table = Table("", title=f"{summary['seconds']:g} seconds, the same calls to two equal upstreams")
    populations = [summary["protected"], summary["unprotected"]]
    for name in ("protected", "unprotected"):
        table.add_column(name, justify="right")
    for label, field in (
        ("calls", "calls"),
        ("good answers", "good"),
        ("errors", "errors"),
        ("timeouts", "timeouts"),
        ("refused early", "rejected"),
        ("requests at the upstream", "upstream_load"),
        ("most requests in one second", "fullest_second"),
    ):
        table.add_row(label, *(f"{each[field]:d}" for each in populations))
    table.add_row("goodput", *(f"{each['goodput']:.1f}/s" for each in populations))
    table.add_row(
        "p50 / p99 of good answers",
        *(f"{milliseconds(each['p50'])} / {milliseconds(each['p99'])}" for each in populations),
    )
    table.add_row("p99 until any answer", *(milliseconds(each["p99_of_all"]) for each in populations))
    table.add_row("in use again after the outage", *(_after(each["recovered_after"]) for each in populations))
    return table


def _phases(summary: Summary) -> Table:
    table = Table("phase", title="by phase: good answers of calls (requests at the upstream)")
    for name in ("protected", "unprotected"):
        table.add_column(name, justify="right")
    for phase in summary["protected"]["phases"]:
        figures = [summary[name]["phases"][phase] for name in ("protected", "unprotected")]
        table.add_row(phase, *(f"{each['good']} of {each['calls']} ({each['upstream_load']})" for each in figures))
    return table


def _after(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.2f} s"


def _number(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f}".rstrip("0").rstrip(".")
