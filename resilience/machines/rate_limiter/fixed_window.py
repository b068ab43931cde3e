"""Fixed window: so many units per calendar window, counted from zero in each.

    rule = FixedWindow(limit=1000, period=3600.0)      # 1000 in every hour of the clock

Promise: at most `limit` units in each window `[k * period, (k + 1) * period)`, hence at most twice the
limit in a period that straddles two windows: choose it to match a provider that counts this way.
"""

from __future__ import annotations

import math
from typing import ClassVar, TypeAlias

from resilience.machines.rate_limiter.rule import OPEN, BaseRule, check_window, index_of

Count: TypeAlias = tuple[int, float, float]
"""The last window that has anything booked, the units in it, and the moment in it before which nothing fits."""


class FixedWindow(BaseRule):
    """`limit` units (at least 1) per window of `period`; bookings roll over into the following windows."""

    __slots__ = ()

    algorithm: ClassVar[str] = "fixed_window"

    def __init__(self, limit: float, period: float) -> None:
        self._fill(*check_window(limit, period))

    def wait(self, state: Count | None, now: float, cost: float) -> float:
        """Return the time until a window with room begins, or goes on after it was drained."""
        if state is None:
            return 0.0
        window, used, start = state
        current = index_of(now, self.period)
        if window >= current and used + cost > self.limit:
            window, start = window + 1, OPEN
        if window > current and start == OPEN:
            start = window * self.period
        return start - now if window >= current and start > now else 0.0

    def take(self, state: Count | None, now: float, cost: float, wait: float) -> Count:
        """Return the count with `cost` in the window of `now + wait`."""
        current = index_of(now + wait, self.period)
        if state is None or state[0] < current:
            return current, cost, OPEN
        window, used, start = state
        if used + cost > self.limit:  # rounding put the moment a hair before its window
            return window + 1, cost, OPEN
        return window, used + cost, start

    def charge(self, state: Count | None, now: float, amount: float) -> Count:
        """Return the count with `amount` more; what a window cannot hold goes into the next ones."""
        window, used, start = self._at(state, now)
        used += amount
        if used <= self.limit:
            return window, used, start
        ahead = math.ceil(used / self.limit) - 1
        return window + ahead, used - ahead * self.limit, OPEN

    def drain(self, state: Count | None, now: float, seconds: float) -> Count:
        """Return the count that begins at `now + seconds`; for 0 seconds, with its window full."""
        until = now + seconds
        count = self._at(state, until)
        window, used, start = count
        if window > index_of(until, self.period):
            return count
        if seconds <= 0.0:
            return (window, self.limit, start) if used < self.limit else count
        return (window, used, until) if start < until else count

    def observe(self, state: Count | None, now: float, remaining: float, reset_after: float) -> Count | None:
        """Return the count that leaves at most `remaining` units in the current window."""
        if remaining <= 0.0:
            return self.drain(state, now, reset_after)
        window, used, start = self._at(state, now)
        if window > index_of(now, self.period) or remaining >= self.limit - used:
            return state
        return window, self.limit - remaining, start

    def _at(self, state: Count | None, moment: float) -> Count:
        """Return the count as of `moment`; a window that is booked ahead stays."""
        current = index_of(moment, self.period)
        return (current, 0.0, OPEN) if state is None or state[0] < current else state

    def refund(self, state: Count | None, now: float, cost: float) -> Count | None:
        """Return the count less `cost`; a window ahead that becomes empty hands over to the one before."""
        if state is None:
            return None
        window, used, start = state
        if used > cost:
            return window, used - cost, start
        if start > now:
            return window, 0.0, start
        # What the window before holds is forgotten: it must count as full.
        return (window - 1, self.limit, OPEN) if window > index_of(now, self.period) else None

    def remaining(self, state: Count | None, now: float) -> float:
        """Return the room in the current window, 0 when bookings lie beyond it."""
        if state is None:
            return self.limit
        window, used, start = state
        current = index_of(now, self.period)
        if window < current:
            return self.limit
        return self.limit - used if window == current and used < self.limit and start <= now else 0.0

    def fresh_at(self, state: Count) -> float:
        """Return the end of the last window in use."""
        return (state[0] + 1) * self.period

    def position(self, state: Count) -> Count:
        """Return the state: every take moves window or count up."""
        return state
