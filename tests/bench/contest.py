"""Who takes part in a comparison: a library, and how it is made to guard a function.

Every contestant has to show that it guards (see `checks`) before it is timed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import TypeAlias

from tests.bench.peers import MissingError, installed
from tests.bench.report import Report
from tests.bench.timing import Work

OURS = "resilience"

Wrap: TypeAlias = Callable[[Work], Work]
"""Puts a guard around a function."""


@dataclass(frozen=True, slots=True)
class Setup:
    """The same demands on everyone. Libraries that cannot meet one say so in their contestant's note."""

    attempts: int = 3
    pause: float = 0.001
    """Before the first retry, in seconds, where it can be set; growing and jittered where that exists."""
    failures: int = 20
    """Opens a circuit: so many failures in a row, which is also the minimum of calls of a sliding window."""
    window: int = 100
    open_for: float = 60.0
    permits: int = 64
    seconds: float = 10.0
    """The time limit of a call."""
    rate: int = 1_000_000
    per: int = 1
    """Seconds to which `rate` applies; as many may go at once."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One library in one discipline. `make` may import it; it raises MissingError if it is not here."""

    library: str
    make: Callable[[Setup], Wrap]
    note: str = ""
    how: str = ""
    """Which of a library's ways, where it has several."""

    @property
    def name(self) -> str:
        """How it is shown."""
        return f"{self.library} {self.how}".strip()


Check: TypeAlias = Callable[[Callable[[Setup], Wrap]], Awaitable[None]]


@dataclass(slots=True)
class Field:
    """The contestants that are here and really guard, by name."""

    report: Report
    found: dict[str, Contestant] = field(default_factory=dict[str, Contestant])

    async def admit(self, contestants: Iterable[Contestant], check: Check) -> dict[str, Contestant]:
        """Check every contestant; those that are absent or do not guard are named in the report."""
        admitted: dict[str, Contestant] = {}
        for contestant in contestants:
            try:
                await check(contestant.make)
            except MissingError as reason:
                self.report.missing[contestant.library] = str(reason)
                continue
            except UnguardedError as reason:
                self.report.missing[contestant.name] = f"does not guard: {reason}"
                continue
            admitted[contestant.name] = contestant
            version = installed(contestant.library)
            if version is not None:
                self.report.peers[contestant.library] = version
        return admitted


class UnguardedError(Exception):
    """A guard let through what it should have stopped."""


_serial = count(1)


def fresh(prefix: str = "bench") -> str:
    """A name that nothing has yet, for libraries that keep their state by name."""
    return f"{prefix}-{next(_serial)}"


async def work(order: int) -> int:
    """The function that is guarded: it does nothing and never waits."""
    return order
