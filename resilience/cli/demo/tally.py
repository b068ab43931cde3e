"""What happened, as the children told it, and the figures made of it.

    tally = Tally("protected")
    tally.add({"answers": [[0.1, 0.052, "good"]], "breaker": "closed"}, child=0)
    tally.goodput(0.0, 20.0)

Times are seconds since the beginning. An answer belongs to the moment at which its call began.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

TRAVEL = 0.25
"""Seconds between permit and arrival that are assumed where they are not known: for a limit in memory."""


class Answer(NamedTuple):
    """What became of one call: `good`, `error`, `timeout` or `rejected` (by a policy, before it ran)."""

    began: float
    took: float
    kind: str


class Arrival(NamedTuple):
    """One request at the upstream, and the earliest moment at which its permit can have become valid, if known."""

    at: float
    due: float | None


class Second(NamedTuple):
    """The requests of one second, and how many of them the limit allows."""

    requests: int
    allowed: float
    late: float


class Tally:
    """All that is known of one kind of callers and of their upstream."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.answers: list[Answer] = []
        self.arrivals: list[Arrival] = []
        self.breakers: dict[int, str] = {}
        self.held: dict[int, int] = {}

    def add(self, message: Mapping[str, Any], child: int) -> None:
        """Take in one message of a child."""
        self.answers += (Answer(*each) for each in message.get("answers", ()))
        self.arrivals += (Arrival(*each) for each in message.get("arrivals", ()))
        if message.get("breaker"):
            self.breakers[child] = message["breaker"]
        if "held" in message:
            self.held[child] = message["held"]

    def answered(self, begin: float, end: float) -> list[Answer]:
        """The calls that began in that time."""
        return [answer for answer in self.answers if begin <= answer.began < end]

    def kinds(self, begin: float, end: float) -> Counter[str]:
        """How many of these calls ended in which way."""
        return Counter(answer.kind for answer in self.answered(begin, end))

    def goodput(self, begin: float, end: float) -> float:
        """Good answers per second, to calls that began in that time."""
        return self.kinds(begin, end)["good"] / (end - begin)

    def load(self, begin: float, end: float) -> int:
        """Requests that reached the upstream in that time."""
        return sum(begin <= arrival.at < end for arrival in self.arrivals)

    def circuits(self) -> str:
        """The states of all circuits, such as `3 closed, 1 open`."""
        return ", ".join(f"{count} {state}" for state, count in sorted(Counter(self.breakers.values()).items()))


def quantiles(answers: Iterable[Answer]) -> tuple[float | None, float | None]:
    """The median and the 99th percentile of what answers took; None without any."""
    times = [answer.took for answer in answers]
    if not times:
        return None, None
    cuts = statistics.quantiles(times * 2 if len(times) == 1 else times, n=100, method="inclusive")
    return cuts[49], cuts[98]


def tightest_second(arrivals: Iterable[Arrival], rate: float, burst: float) -> Second:
    """Of all periods of one second, the one that came closest to its limit, or exceeded it by most.

    Permits become valid at most `burst + rate * W` times in any W seconds. Requests that came at most `late`
    seconds after their permits were due can use the permits of `1 + late` seconds.
    """
    ordered = sorted(arrivals, key=lambda arrival: arrival.at)
    tightest = Second(0, burst + rate, 0.0)
    for first in range(len(ordered)):
        second = _second(ordered, first, rate, burst)
        if second.requests - second.allowed > tightest.requests - tightest.allowed:
            tightest = second
    return tightest


def _second(ordered: Sequence[Arrival], first: int, rate: float, burst: float) -> Second:
    count, late = 0, 0.0
    for at, due in ordered[first:]:
        if at > ordered[first].at + 1.0:
            break
        count += 1
        late = max(late, TRAVEL if due is None else at - due)
    return Second(count, burst + rate * (1.0 + late), late)


def fullest_second(arrivals: Iterable[Arrival]) -> int:
    """The most requests that arrived within one second."""
    times = sorted(arrival.at for arrival in arrivals)
    most = first = 0
    for last, at in enumerate(times):
        while times[first] < at - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


def recovered_after(answers: Iterable[Answer], begin: float, end: float, slot: float = 0.5) -> float | None:
    """Seconds from `begin` until callers are served again, and stay so until `end`; None if they never are.

    Served means that of the calls that begin in each `slot` seconds at least half are answered well.
    """
    slots: dict[int, Counter[bool]] = {}
    for answer in answers:
        if begin <= answer.began < end:
            slots.setdefault(int((answer.began - begin) / slot), Counter())[answer.kind == "good"] += 1
    if not slots:
        return None
    recovered = 1 + max((number for number, good in slots.items() if good[True] < good[False]), default=-1)
    return recovered * slot if recovered <= max(slots) else None
