"""Sliding window counter: two counts stand for a window that slides.

The estimate of the last period is `previous * (1 - elapsed) + current`, where `elapsed` is the fraction of
the current window that has passed (Cloudflare, "How we built rate limiting capable of scaling to millions
of domains", 2017; they measured 0.003 % of decisions wrong).

    rule = SlidingWindow(limit=100, period=60.0)

The last unit of the previous window is not held against the current one: units are whole, and without that
a limit of 1 would let one pass every *two* windows.

Promise: at most `limit` in each aligned window, and an estimate of at most `limit + 1` whenever a unit is
admitted. Real traffic may be above that by as much as the previous window was uneven.
"""

from __future__ import annotations

import math
from typing import ClassVar, TypeAlias

from resilience.machines.rate_limiter.rule import OPEN, BaseRule, check_window, index_of

Counts: TypeAlias = tuple[int, float, float, float]
"""The last window that has anything booked, the units in it and in the window before, and the moment in it before
which nothing fits."""


class SlidingWindow(BaseRule):
    """`limit` units (at least 1) in an estimated window of `period` that ends now."""

    __slots__ = ()

    algorithm: ClassVar[str] = "sliding_window"

    def __init__(self, limit: float, period: float) -> None:
        self._fill(*check_window(limit, period))

    def _at(self, state: Counts | None, moment: float) -> Counts:
        """Return the counts as of `moment`; a window that is booked ahead stays."""
        current = index_of(moment, self.period)
        if state is None or state[0] < current - 1:
            return current, 0.0, 0.0, OPEN
        if state[0] == current - 1:
            return current, 0.0, state[1], OPEN
        return state

    def wait(self, state: Counts | None, now: float, cost: float) -> float:
        """Return the time until the estimate has room for `cost`."""
        window, current, previous, start = self._at(state, now)
        room = self.limit - cost - current
        if room < 0.0:  # not in this window, whatever the previous one held
            window, previous, room, start = window + 1, current, self.limit - cost, OPEN
        begin = window * self.period
        if previous > room + 1.0:  # wait until no more than that much of the previous window counts
            begin += (1.0 - (room + 1.0) / previous) * self.period
        elif window <= index_of(now, self.period) and start <= now:
            return 0.0
        if start > begin:
            begin = start
        return begin - now if begin > now else 0.0

    def take(self, state: Counts | None, now: float, cost: float, wait: float) -> Counts:
        """Return the counts with `cost` in the window of `now + wait`."""
        window, current, previous, start = self._at(state, now + wait)
        if current + cost > self.limit:  # rounding put the moment a hair before its window
            return window + 1, cost, current, OPEN
        return window, current + cost, previous, start

    def charge(self, state: Counts | None, now: float, amount: float) -> Counts:
        """Return the counts with `amount` more; what a window cannot hold goes into the next ones."""
        window, current, previous, start = self._at(state, now)
        current += amount
        if current <= self.limit:
            return window, current, previous, start
        ahead = math.ceil(current / self.limit) - 1
        return window + ahead, current - ahead * self.limit, self.limit, OPEN

    def drain(self, state: Counts | None, now: float, seconds: float) -> Counts:
        """Return the counts that begin at `now + seconds`; for 0 seconds, with the window full."""
        until = now + seconds
        counts = self._at(state, until)
        window, current, previous, start = counts
        if window > index_of(until, self.period):
            return counts
        if seconds <= 0.0:
            return (window, self.limit, previous, start) if current < self.limit else counts
        return (window, current, previous, until) if start < until else counts

    def observe(self, state: Counts | None, now: float, remaining: float, reset_after: float) -> Counts | None:
        """Return the counts whose estimate leaves at most `remaining` units."""
        if remaining <= 0.0:
            return self.drain(state, now, reset_after)
        surplus = self.remaining(state, now) - remaining
        if surplus <= 0.0:
            return state
        window, current, previous, start = self._at(state, now)
        return window, current + surplus, previous, start

    def refund(self, state: Counts | None, now: float, cost: float) -> Counts | None:
        """Return the counts less `cost`; a window ahead that becomes empty hands over to the one before."""
        if state is None:
            return None
        window, current, previous, start = state
        if current > cost:
            return window, current - cost, previous, start
        previous = previous - (cost - current)
        if previous < 0.0:
            previous = 0.0
        if start > now:
            return window, 0.0, previous, start
        if window > index_of(now, self.period):  # two windows before is forgotten: it must count as full
            return window - 1, previous, self.limit, OPEN
        return (window, 0.0, previous, OPEN) if previous > 0.0 else None

    def remaining(self, state: Counts | None, now: float) -> float:
        """Return the room the estimate leaves, 0 when bookings lie beyond the current window."""
        window, current, previous, start = self._at(state, now)
        elapsed = now / self.period - window
        if elapsed < 0.0 or start > now:
            return 0.0
        weight = previous * (1.0 - elapsed) - 1.0
        left = self.limit - ((weight if weight > 0.0 else 0.0) + current)
        return left if left > 0.0 else 0.0

    def fresh_at(self, state: Counts) -> float:
        """Return when the last window in use has slid out of sight."""
        return (state[0] + 2) * self.period

    def position(self, state: Counts) -> Counts:
        """Return the state: every take moves window or counts up."""
        return state
