"""What a benchmark hands back: tables, bars with their verdicts, and which peers took part.

report = Report("stack")
report.bars.append(Bar("overhead against the fastest peer library", 0.05, 1 / 15))
report.show()
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

Cell = str | float | int | bool | None


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure that must not exceed `limit`, or with `at_least` must not fall below it."""

    bar: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the figure is on the right side; NaN never is."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @classmethod
    def from_json(cls, bar: Mapping[str, Any]) -> Bar:
        """The reverse of `as_json`, but for the digits that it left out."""
        value, limit = (float("nan") if bar[name] is None else bar[name] for name in ("value", "limit"))
        return cls(bar["bar"], value, limit, at_least=bar["sense"] == "at least")

    def as_json(self) -> dict[str, Cell]:
        """The bar as one flat object; figures that are not finite become null."""
        return {
            "bar": self.bar,
            "value": rounded(self.value),
            "limit": rounded(self.limit),
            "sense": "at least" if self.at_least else "at most",
            "holds": self.holds,
        }


@dataclass(slots=True)
class Table:
    """Figures of one kind; every row has the columns of the table."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]] = field(default_factory=list[tuple[Cell, ...]])
    chart: str = ""
    """The column whose figures are worth a chart, if one is."""

    def add(self, *cells: Cell) -> None:
        """Append a row. Raises ValueError if it does not fit the columns."""
        if len(cells) != len(self.columns):
            raise ValueError(f"cells must be {len(self.columns)}, got {len(cells)}")
        self.rows.append(cells)

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Table:
        """The reverse of `as_json`, but for the digits that it left out."""
        rows = [tuple(row.values()) for row in table["rows"]]
        return cls(table["title"], tuple(table["columns"]), rows, table["chart"])

    def as_json(self) -> dict[str, Any]:
        """Title, columns, and one object per row."""
        rows = [
            {
                name: rounded(cell) if isinstance(cell, float) else cell
                for name, cell in zip(self.columns, row, strict=True)
            }
            for row in self.rows
        ]
        return {"title": self.title, "columns": list(self.columns), "chart": self.chart, "rows": rows}


@dataclass(slots=True)
class Report:
    """One run of one benchmark."""

    benchmark: str
    tables: list[Table] = field(default_factory=list[Table])
    bars: list[Bar] = field(default_factory=list[Bar])
    peers: dict[str, str] = field(default_factory=dict[str, str])
    """Versions of the peers that were measured."""
    missing: dict[str, str] = field(default_factory=dict[str, str])
    """Peers that were not, with the reason."""
    notes: list[str] = field(default_factory=list[str])
    size: float = 1.0
    """The share of the full size at which it ran; some bars mean something at full size only."""

    @classmethod
    def from_json(cls, report: Mapping[str, Any]) -> Report:
        """What another process measured on this machine, with the same Python."""
        tables = [Table.from_json(table) for table in report["tables"]]
        bars = [Bar.from_json(bar) for bar in report["bars"]]
        rest = (report[name] for name in ("peers", "missing", "notes", "size"))
        return cls(report["benchmark"], tables, bars, *rest)

    def as_json(self) -> dict[str, Any]:
        """Everything, for a data file."""
        return {
            "benchmark": self.benchmark,
            "size": self.size,
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
            "peers": self.peers,
            "missing": self.missing,
            "tables": [table.as_json() for table in self.tables],
            "bars": [bar.as_json() for bar in self.bars],
            "notes": self.notes,
        }

    def show(self, console: Console | None = None) -> None:
        """Print it for people."""
        console = console or Console()
        console.rule(self.benchmark)
        for table in self.tables:
            shown = RichTable(*table.columns, title=table.title, title_justify="left")
            for row in table.rows:
                shown.add_row(*(_text(cell) for cell in row))
            console.print(shown)
        for bar in self.bars:
            mark = "[green]holds[/]" if bar.holds else "[red]MISSED[/]"
            sense = ">=" if bar.at_least else "<="
            console.print(f"{mark}  {bar.bar}: {_text(bar.value)} (bar: {sense} {_text(bar.limit)})", highlight=False)
        for name, reason in self.missing.items():
            console.print(f"[yellow]not measured[/]: {name}: {reason}", highlight=False)
        for note in self.notes:
            console.print(f"note: {note}", highlight=False)


def rounded(value: float) -> float | None:
    """Four significant digits; None for what JSON cannot say."""
    if value != value or value in (float("inf"), float("-inf")):
        return None
    return float(f"{value:.4g}")


def _text(cell: Cell) -> str:
    if isinstance(cell, bool) or not isinstance(cell, float):
        return "" if cell is None else str(cell)
    return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.3g}"
