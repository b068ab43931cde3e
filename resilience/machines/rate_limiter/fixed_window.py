"""Fixed window: so many units per calendar window, counted from zero in each.

    rule = FixedWindow(limit=1000, period=3600.0)      # 1000 in every hour of the clock

Promise: at most `limit` units in each window `[k * period, (k + 1) * period)`, hence at most twice the
limit in a period that straddles two windows: choose it to match a provider that counts this way.
"""

from __future__ import annotations

from typing import ClassVar, TypeAlias

from resilience.machines.rate_limiter.rule import BaseRule, check_window, index_of

Count: TypeAlias = tuple[int, float]
"""The last window that has anything booked, and the units in it."""


class FixedWindow(BaseRule):
    """`limit` units (at least 1) per window of `period`; bookings roll over into the following windows."""

    __slots__ = ()

    algorithm: ClassVar[str] = "fixed_window"

    def __init__(self, limit: float, period: float) -> None:
        self._fill(*check_window(limit, period))

    def wait(self, state: Count | None, now: float, cost: float) -> float:
        """Return the time until a window with room begins."""
        if state is None:
            return 0.0
        window, used = state
        current = index_of(now, self.period)
        if window >= current and used + cost > self.limit:
            window += 1
        return window * self.period - now if window > current else 0.0

    def take(self, state: Count | None, now: float, cost: float, wait: float) -> Count:
        """Return the count with `cost` in the window of `now + wait`."""
        current = index_of(now + wait, self.period)
        if state is None or state[0] < current:
            return current, cost
        window, used = state
        if used + cost > self.limit:  # rounding put the moment a hair before its window
            return window + 1, cost
        return window, used + cost

    def refund(self, state: Count | None, now: float, cost: float) -> Count | None:
        """Return the count less `cost`; a window ahead that becomes empty hands over to the one before."""
        if state is None:
            return None
        window, used = state
        if used > cost:
            return window, used - cost
        # What the window before holds is forgotten: it must count as full.
        return (window - 1, self.limit) if window > index_of(now, self.period) else None

    def remaining(self, state: Count | None, now: float) -> float:
        """Return the room in the current window, 0 when bookings lie beyond it."""
        if state is None:
            return self.limit
        window, used = state
        current = index_of(now, self.period)
        if window < current:
            return self.limit
        return self.limit - used if window == current and used < self.limit else 0.0

    def fresh_at(self, state: Count) -> float:
        """Return the end of the last window in use."""
        return (state[0] + 1) * self.period

    def position(self, state: Count) -> Count:
        """Return window and count: every take moves one of them up."""
        return state
