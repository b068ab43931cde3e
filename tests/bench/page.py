"""Writes docs/benchmarks.md from docs/benchmarks.json.

uv run --group bench python -m tests.bench all --json > docs/benchmarks.json
uv run python -m tests.bench.page
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
WIDTH = 24

INTRODUCTION = """\
# Benchmarks

What a call costs under our policies and under those of other libraries, measured side by side: all that is compared in
the same process and the same run, in short samples taken in turns, medians over the rounds. In policies, stack, http
and redis every library first has to show that it guards before it is timed (it retries, opens, bounds, times out,
refuses); in keys and waiters that is not checked. Semantics differ where a note says so: a breaker that counts
consecutive failures or a fixed window does less than ours. Compare the ratios; the times are those of one machine.

```console
uv run --group bench python -m tests.bench all            # or policies, stack, http, keys, waiters, redis, import
uv run --group bench python -m tests.bench stack --json   # one JSON document; --strict exits with 1 if a bar is missed
uv run --group bench python -m tests.bench all --json > docs/benchmarks.json
uv run python -m tests.bench.page                         # writes this page
```

`python -m tests.bench.gate` guards the fast path in CI. It counts instructions, not seconds, and needs no peers.
"""


def main() -> None:
    """Read the data, write the page."""
    reports = json.loads((DOCS / "benchmarks.json").read_text("utf-8"))
    (DOCS / "benchmarks.md").write_text(page(reports), "utf-8")


def page(reports: list[dict[str, Any]]) -> str:
    """The whole page."""
    first = reports[0]
    parts = [
        INTRODUCTION,
        _where(first),
        _bars(reports),
        _peers(reports),
    ]
    for report in reports:
        parts.append(f"## {report['benchmark']}\n")
        parts += [_table(table) for table in report["tables"]]
        parts += [f"Note: {note}.\n" for note in report["notes"]]
    return "\n".join(parts)


def _where(report: dict[str, Any]) -> str:
    share = "" if report["size"] == 1 else f", at {report['size']:.0%} of the full size: not the figures to quote"
    return f"Measured on Python {report['python']}, {report['machine']}{share}.\n"


def _bars(reports: Iterable[dict[str, Any]]) -> str:
    lines = ["## Bars", "", "| benchmark | bar | value | limit | |", "| --- | --- | ---: | ---: | --- |"]
    for report in reports:
        for bar in report["bars"]:
            verdict = "holds" if bar["holds"] else "**missed**"
            limit = f"{bar['sense']} {_number(bar['limit'])}"
            lines.append(f"| {report['benchmark']} | {bar['bar']} | {_number(bar['value'])} | {limit} | {verdict} |")
    return "\n".join([*lines, ""])


def _peers(reports: Iterable[dict[str, Any]]) -> str:
    versions: dict[str, str] = {}
    missing: dict[str, str] = {}
    for report in reports:
        versions |= report["peers"]
        missing |= {f"{name} ({report['benchmark']})": reason for name, reason in report["missing"].items()}
    lines = ["## Peers", "", ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + ".", ""]
    lines += [f"- Not measured: {name}: {reason}" for name, reason in sorted(missing.items())]
    return "\n".join([*lines, ""])


def _table(table: dict[str, Any]) -> str:
    columns: list[str] = [*table["columns"]]
    chart: str = table["chart"]
    most = max((abs(row[chart] or 0.0) for row in table["rows"]), default=0.0) if chart else 0.0
    head = [*columns, ""] if most else columns
    lines = [f"### {table['title']}", "", f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for row in table["rows"]:
        cells = [_number(row[name]) for name in columns]
        if most:
            cells.append("█" * round(WIDTH * max(0.0, row[chart] or 0.0) / most) or "▏")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _number(cell: Any) -> str:
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        return "" if cell is None else str(cell)
    return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.3g}"


if __name__ == "__main__":
    main()
