"""Sliding windows of call outcomes: how many calls, how many failures, how many slow ones.

A breaker asks "what share of recent calls failed?". Recent is either the last N calls or the last T seconds:

    window = CountWindow(100)          # or TimeWindow(30.0)
    window.add(now, failure=True, slow=False)
    calls, failures, slow = window.totals(now)

Every window keeps running sums, so that adding and reading cost the same however long the window is.
"""

from __future__ import annotations

import math
from typing import Protocol

from resilience._validate import check_integer, check_number


class Window(Protocol):
    """What a circuit breaker needs of a window.

    The three attributes are the sums as of the last `add`; `totals` answers for any later time.
    """

    calls: int
    failures: int
    slow: int

    @property
    def calm(self) -> bool:
        """Whether adding one more success, neither failed nor slow, would change nothing that can be observed."""
        ...

    def add(self, now: float, failure: bool, slow: bool) -> None:
        """Count one call that ended at `now` (seconds on a monotonic clock)."""
        ...

    def totals(self, now: float) -> tuple[int, int, int]:
        """Calls, failures and slow calls in the window that ends at `now`. Reading changes nothing."""
        ...

    def clear(self) -> None:
        """Forget every outcome."""
        ...


class CountWindow:
    """The outcomes of the last `size` calls, one byte each.

    Raises TypeError or ValueError unless `size` is an integer of at least 1.
    """

    __slots__ = ("_next", "_ring", "calls", "failures", "size", "slow")

    calls: int
    failures: int
    slow: int

    def __init__(self, size: int) -> None:
        check_integer("size", size, 1)
        self.size: int = size
        self._next = 0
        self.clear()

    def add(self, now: float, failure: bool, slow: bool) -> None:
        """Count one call; the oldest of more than `size` is forgotten. `now` plays no part."""
        code = (1 if failure else 0) + (2 if slow else 0) if failure or slow else 0
        ring = self._ring
        index = self._next
        old = ring[index]
        # A healthy dependency overwrites 0 with 0: nothing to adjust. An unused byte counts as 0 too.
        if old != code:
            ring[index] = code
            self.failures += (code & 1) - (old & 1)
            self.slow += (code >> 1) - (old >> 1)
        index += 1
        self._next = index if index < self.size else 0
        if self.calls < self.size:
            self.calls += 1

    @property
    def calm(self) -> bool:
        """Full of successes: one more takes the place of another."""
        return not self.failures and not self.slow and self.calls == self.size

    def totals(self, now: float) -> tuple[int, int, int]:
        """Calls, failures and slow calls among the last `size`; they do not age."""
        return self.calls, self.failures, self.slow

    def clear(self) -> None:
        """Forget every outcome."""
        self.calls = self.failures = self.slow = 0
        self._ring = bytearray(self.size)
        self._next = 0


class TimeWindow:
    """The outcomes of the last `period` seconds, in `buckets` (10 by default) that are dropped whole.

    The current bucket is still filling, so the window covers between `period * (1 - 1 / buckets)` and
    `period` seconds. Buckets rotate when something is added, never by a timer. If the clock runs backwards,
    the window stands still until it has caught up.

    Raises TypeError or ValueError unless `period` is a positive finite number and `buckets` an integer of at
    least 1.
    """

    __slots__ = (
        "_calls", "_ends", "_epoch", "_failures", "_slot", "_slow", "_width",
        "buckets", "calls", "failures", "period", "slow",
    )  # fmt: skip

    calls: int
    failures: int
    slow: int

    def __init__(self, period: float, buckets: int = 10) -> None:
        check_number("period", period, above=0)
        check_integer("buckets", buckets, 1)
        self.period: float = period
        self.buckets: int = buckets
        self._width = period / buckets
        # The current bucket is [epoch * width, ends); before the first outcome it lies in the infinite past.
        self._epoch = 0
        self._ends = -math.inf
        self.clear()

    def add(self, now: float, failure: bool, slow: bool) -> None:
        """Count one call in the bucket of `now`, dropping the buckets that have left the window."""
        if now >= self._ends:
            self._rotate(now)
        slot = self._slot
        self._calls[slot] += 1
        self.calls += 1
        if failure:
            self._failures[slot] += 1
            self.failures += 1
        if slow:
            self._slow[slot] += 1
            self.slow += 1

    @property
    def calm(self) -> bool:
        """Never: successes age, too."""
        return False

    def totals(self, now: float) -> tuple[int, int, int]:
        """Calls, failures and slow calls in the window that ends at `now`. Reading changes nothing."""
        calls, failures, slow = self.calls, self.failures, self.slow
        if now >= self._ends:
            for slot in self._leaving(int(now // self._width)):
                calls -= self._calls[slot]
                failures -= self._failures[slot]
                slow -= self._slow[slot]
        return calls, failures, slow

    def clear(self) -> None:
        """Forget every outcome."""
        self.calls = self.failures = self.slow = 0
        self._calls = [0] * self.buckets
        self._failures = [0] * self.buckets
        self._slow = [0] * self.buckets
        self._slot = 0

    def _leaving(self, epoch: int) -> list[int]:
        """The slots that leave the window when bucket number `epoch` begins, oldest first."""
        steps = min(epoch - self._epoch, self.buckets)
        return [(self._slot + step) % self.buckets for step in range(1, steps + 1)]

    def _rotate(self, now: float) -> None:
        epoch = int(now // self._width)
        for slot in self._leaving(epoch):
            self.calls -= self._calls[slot]
            self.failures -= self._failures[slot]
            self.slow -= self._slow[slot]
            self._calls[slot] = self._failures[slot] = self._slow[slot] = 0
            self._slot = slot
        self._epoch = epoch
        self._ends = (epoch + 1) * self._width


class RollingSum:
    """A sum of amounts over the last `period` seconds, in `buckets`, from which an amount can be taken back.

    Raises like `TimeWindow`.
    """

    __slots__ = ("_amounts", "_ends", "_epochs", "_latest", "_width", "buckets", "period")

    def __init__(self, period: float, buckets: int = 10) -> None:
        check_number("period", period, above=0)
        check_integer("buckets", buckets, 1)
        self.period: float = period
        self.buckets: int = buckets
        self._width = period / buckets
        # amounts[i] belongs to bucket number epochs[i]; it means nothing once that bucket has left the
        # window.
        self._amounts = [0.0] * buckets
        self._epochs: list[int | None] = [None] * buckets
        # The bucket number of the latest amount, and when that bucket ends.
        self._latest = 0
        self._ends = -math.inf

    def add(self, now: float, amount: float) -> None:
        """Add `amount` at `now`."""
        if now >= self._ends:
            self._begin(int(now // self._width))
        self._amounts[self._latest % self.buckets] += amount

    def withdraw(self, added_at: float, amount: float) -> None:
        """Take back an `amount` that was added at `added_at`; nothing to do if that has left the window."""
        epoch = int(added_at // self._width)
        slot = epoch % self.buckets
        if self._epochs[slot] == epoch:
            self._amounts[slot] = max(0.0, self._amounts[slot] - amount)

    def total(self, now: float) -> float:
        """The sum over the window that ends at `now`. Reading changes nothing."""
        # A clock that steps back stands still.
        epoch = self._latest if now < self._ends else int(now // self._width)
        oldest = epoch - self.buckets
        pairs = zip(self._epochs, self._amounts, strict=True)
        return sum(amount for number, amount in pairs if number is not None and number > oldest)

    def _begin(self, epoch: int) -> None:
        slot = epoch % self.buckets
        # Rounding may put a moment on the edge of a bucket back into it, which then goes on.
        if self._epochs[slot] != epoch:
            self._epochs[slot] = epoch
            self._amounts[slot] = 0.0
        self._latest = epoch
        self._ends = (epoch + 1) * self._width
