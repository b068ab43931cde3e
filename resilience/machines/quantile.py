"""A moving quantile of latencies: "95 % of recent calls were over within ... seconds".

    latencies = LatencyMachine(Quantile(0.95))
    latencies.record(now, 0.012)
    latencies.delay(now)          # seconds, or None before there are enough samples

A histogram whose buckets grow by a fixed ratio, so that the error is relative: the sketch of Masson, Rim and Lee,
"DDSketch: A fast and fully-mergeable quantile sketch with relative-error guarantees" (VLDB 2019). Two generations of
it make a window that moves in halves.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate

from resilience._validate import check_integer, check_number

GROWTH = 1.05
"""Each bucket ends 5 % above the one before: an answer is at most that much too large, and never too small."""
LEAST, MOST = 1e-6, 1e5
"""Shorter and longer latencies are counted as these, in seconds: 520 buckets at most."""
_LOG_GROWTH = math.log(GROWTH)


@dataclass(frozen=True, slots=True)
class Quantile:
    """Wait as long as the share `q` (0.95) of recent calls takes, learned while calls run.

    Recent are the last `window` seconds (60), or longer ago if there were fewer than `samples` (20) calls since.
    Before there were so many the delay is `start` seconds; None, the default, is no delay: nothing is hedged until
    something is known. It is never below `least` seconds (0.001).

    Raises TypeError or ValueError unless `q` is between 0 and 1, `samples` an integer of at least 1, and the others
    positive and finite.
    """

    q: float = 0.95
    start: float | None = None
    samples: int = 20
    window: float = 60.0
    least: float = 0.001

    def __post_init__(self) -> None:
        check_number("q", self.q, above=0)
        if self.q >= 1:
            raise ValueError(f"q must be less than 1, got {self.q!r}")
        if self.start is not None:
            check_number("start", self.start, above=0)
        check_integer("samples", self.samples, 1)
        check_number("window", self.window, above=0)
        check_number("least", self.least, above=0)


class LatencyMachine:
    """The latencies of one key, and the quantile of them that `rule` asks for."""

    __slots__ = ("_began", "_count", "_counts", "_known", "_new", "_old", "_old_count", "rule")

    def __init__(self, rule: Quantile) -> None:
        self.rule: Quantile = rule
        # How many latencies ended in each bucket, in this half of the window and in the one before.
        self._counts: dict[int, int] = {}
        self._old: dict[int, int] = {}
        self._count = 0
        self._old_count = 0
        self._began: float | None = None
        # The last answer, and how many latencies came since.
        self._known: float | None = None
        self._new = 0

    @property
    def count(self) -> int:
        """How many latencies the answer rests on."""
        return self._count + self._old_count

    def record(self, now: float, latency: float) -> None:
        """A call that ended at `now` took `latency` seconds. Raises ValueError if that is not a number."""
        if not latency >= LEAST:
            if math.isnan(latency):
                raise ValueError(f"latency must be a number, got {latency!r}")
            latency = LEAST
        bucket = math.ceil(math.log(min(latency, MOST)) / _LOG_GROWTH)
        if self._began is None:
            self._began = now
        elif now - self._began >= self.rule.window / 2 and self._count >= self.rule.samples:
            self._turn(now)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self._count += 1
        self._new += 1

    def delay(self, now: float) -> float | None:
        """The quantile, in seconds; before there are enough latencies, what the rule starts with.

        It is reckoned anew when a sixteenth more latencies have come, so that reading is cheap.
        """
        count = self._count + self._old_count
        if count < self.rule.samples:
            return self.rule.start
        if self._known is None or self._new * 16 >= count:
            self._known = max(self.rule.least, self._reckon(math.ceil(self.rule.q * count)))
            self._new = 0
        return self._known

    def _turn(self, now: float) -> None:
        """Begin a new half of the window; what is older than two leaves it."""
        self._old, self._old_count = self._counts, self._count
        self._counts, self._count = {}, 0
        self._began = now
        self._known = None

    def _reckon(self, rank: int) -> float:
        """The end of the bucket that holds the latency of that rank."""
        buckets = sorted(self._counts.keys() | self._old.keys())
        passed = accumulate(self._counts.get(bucket, 0) + self._old.get(bucket, 0) for bucket in buckets)
        return GROWTH ** buckets[bisect_left(list(passed), rank)]
