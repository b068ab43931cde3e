"""What happens, while it happens: a table in a terminal, a line per second anywhere else.

with live(console, plan, (protected, unprotected)) as view:
    view.show(elapsed)
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from .plan import BURST, RATE, Plan
from .tally import Tally, fullest_second, quantiles

LOOK_BACK = 1.0
"""Seconds that the figures cover."""

_GOOD, _LOAD = "good answers/s", "requests at the upstream/s"


class View(Protocol):
    """Something that shows the state of things."""

    def show(self, elapsed: float) -> None:
        """Show it, `elapsed` seconds after the beginning."""
        ...


@contextmanager
def live(console: Console, plan: Plan, tallies: Sequence[Tally], quiet: bool = False) -> Generator[View]:
    """The view that suits the console; with `quiet` one that shows nothing."""
    if quiet:
        yield _Nothing()
    elif not console.is_terminal:
        yield _Lines(console, plan, tallies)
    else:
        with Live(console=console, auto_refresh=False, transient=True) as screen:
            yield _Screen(screen, plan, tallies)


class _Nothing:
    def show(self, elapsed: float) -> None:
        pass


class _Lines:
    def __init__(self, console: Console, plan: Plan, tallies: Sequence[Tally]) -> None:
        self._console, self._plan, self._tallies = console, plan, tallies
        self._next = 1.0

    def show(self, elapsed: float) -> None:
        if elapsed < self._next:
            return
        self._next += 1.0
        parts = [f"{elapsed:3.0f} s  {self._plan.phase_at(elapsed).name:<10}"]
        for tally in self._tallies:
            figures = _figures(tally, elapsed)
            parts.append(f"{tally.name}: {figures[_GOOD]:>3} good, {figures[_LOAD]:>3} sent")
        self._console.print("   ".join(parts), highlight=False, soft_wrap=True)


class _Screen:
    def __init__(self, screen: Live, plan: Plan, tallies: Sequence[Tally]) -> None:
        self._screen, self._plan, self._tallies = screen, plan, tallies

    def show(self, elapsed: float) -> None:
        self._screen.update(_table(self._plan, self._tallies, elapsed), refresh=True)


def _table(plan: Plan, tallies: Sequence[Tally], elapsed: float) -> Table:
    phases = "  ".join(
        f"[reverse] {phase.name} [/reverse]" if phase is plan.phase_at(elapsed) else f"[dim]{phase.name}[/dim]"
        for phase, _, _ in plan.spans()
    )
    table = Table(title=f"{min(elapsed, plan.seconds):4.1f} s of {plan.seconds:g}   {phases}", title_justify="left")
    table.add_column("during the last second")
    columns = [_figures(tally, elapsed) for tally in tallies]
    for tally in tallies:
        table.add_column(tally.name, justify="right", min_width=16)
    for row in columns[0]:
        table.add_row(row, *(column[row] for column in columns))
    return table


def _figures(tally: Tally, elapsed: float) -> dict[str, str]:
    since = elapsed - LOOK_BACK
    # Answers that came in the last second, whenever their calls began.
    recent = [answer for answer in tally.answers if answer.began + answer.took >= since]
    good = [answer for answer in recent if answer.kind == "good"]
    rejected = sum(answer.kind == "rejected" for answer in recent)
    p50, p99 = quantiles(good)
    fullest = fullest_second(tally.arrivals)
    return {
        "calls answered/s": f"{len(recent) / LOOK_BACK:.0f}",
        _GOOD: f"{len(good) / LOOK_BACK:.0f}",
        "errors and timeouts/s": f"{(len(recent) - len(good) - rejected) / LOOK_BACK:.0f}",
        "refused early/s": f"{rejected / LOOK_BACK:.0f}",
        "p50 / p99 of good answers": f"{milliseconds(p50)} / {milliseconds(p99)}",
        _LOAD: f"{tally.load(since, elapsed) / LOOK_BACK:.0f}",
        f"fullest second so far, limit {RATE} + {BURST}": f"{fullest}",
        "circuits": tally.circuits() or "-",
    }


def milliseconds(seconds: float | None) -> str:
    """A time for people."""
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"
