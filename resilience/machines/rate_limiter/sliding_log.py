"""Sliding log: every admission is remembered until it is one period old.

    rule = SlidingLog(limit=100, period=60.0)

Promise: at most `limit` units in any window of length `period`, exactly. It costs memory for each unit
admitted: at most `limit` entries a key, since calls of one moment share an entry and, when costs below 1
would need more, the newest entry takes them in (which can only delay what follows).
"""

from __future__ import annotations

import math
from typing import ClassVar, TypeAlias

from resilience.machines.rate_limiter.rule import BaseRule, check_window

Log: TypeAlias = tuple[float, ...]
"""The units in the log, then time and units of each entry, oldest first."""


class SlidingLog(BaseRule):
    """`limit` units (at least 1) in any window of `period`."""

    __slots__ = ("entries",)

    algorithm: ClassVar[str] = "sliding_log"
    entries: float

    def __init__(self, limit: float, period: float) -> None:
        limit, period = check_window(limit, period)
        self._fill(limit, period, entries=math.ceil(limit))

    def _place(self, state: Log, moment: float, cost: float) -> tuple[float, float, int]:
        """Return when `cost` fits (`moment` or later), what the log holds then, and where it begins then."""
        if state[-2] > moment:
            moment = state[-2]
        total, first = state[0], 1
        while first < len(state) and (state[first] + self.period <= moment or total + cost > self.limit):
            if state[first] + self.period > moment:
                moment = state[first] + self.period
            total -= state[first + 1]
            first += 2
        return moment, total if first < len(state) else 0.0, first

    def wait(self, state: Log | None, now: float, cost: float) -> float:
        """Return the time until enough of the log is a period old."""
        return 0.0 if state is None else self._place(state, now, cost)[0] - now

    def take(self, state: Log | None, now: float, cost: float, wait: float) -> Log:
        """Return the log with `cost` at `now + wait`, without what no longer counts then."""
        if state is None:
            return cost, now + wait, cost
        moment, total, first = self._place(state, now + wait, cost)
        kept = state[first:]
        if kept and (kept[-2] == moment or len(kept) >= 2 * self.entries):
            return total + cost, *kept[:-2], moment, kept[-1] + cost
        return total + cost, *kept, moment, cost

    def undo(self, state: Log | None, before: Log | None, now: float, cost: float) -> Log | None:
        """Return the log without its newest `cost` units; its place in line stays, as after a refund."""
        return self.refund(state, now, cost)  # a list on a server has let go of what was too old for that booking

    def charge(self, state: Log | None, now: float, amount: float) -> Log:
        """Return the log with `amount` at the first moment it fits: each whole limit of it is a period later."""
        periods = math.ceil(amount / self.limit) - 1
        rest = amount - periods * self.limit
        log = self.take(state, now, rest, self.wait(state, now, rest))
        if periods <= 0:
            return log
        # The newest entry takes the others in, a few periods on: that can only delay what follows.
        return log[0], log[-2] + periods * self.period, log[0]

    def drain(self, state: Log | None, now: float, seconds: float) -> Log:
        """Return the log with an empty entry at `now + seconds`; for 0 seconds, with one for all that remains."""
        left = self.remaining(state, now) if seconds <= 0.0 else 0.0
        if state is not None and left <= 0.0 and (seconds <= 0.0 or state[-2] >= now + seconds):
            return state
        return self.take(state, now, left, seconds)

    def observe(self, state: Log | None, now: float, remaining: float, reset_after: float) -> Log | None:
        """Return the log with an entry for what somebody else has counted and we have not."""
        if remaining <= 0.0:
            return self.drain(state, now, reset_after)
        surplus = self.remaining(state, now) - remaining
        return self.take(state, now, surplus, 0.0) if surplus > 0.0 else state

    def refund(self, state: Log | None, now: float, cost: float) -> Log | None:
        """Return the log without its newest `cost` units; bookings after them still come after them."""
        if state is None:
            return None
        total, last, end = state[0], state[-2], len(state)
        while end > 1 and state[end - 1] <= cost:
            total -= state[end - 1]
            cost -= state[end - 1]
            end -= 2
        kept = state[1:end]
        if kept:
            total -= cost
            kept = (*kept[:-1], kept[-1] - cost)
        else:
            total = 0.0
        if last > now and end < len(state):  # older entries are forgotten up to here: the place in line stays
            kept = (*kept, last, 0.0)
        return (total, *kept) if kept else None

    def remaining(self, state: Log | None, now: float) -> float:
        """Return the room in the period that ends now, 0 when bookings lie ahead."""
        if state is None:
            return self.limit
        if state[-2] > now:
            return 0.0
        total, first = state[0], 1
        while first < len(state) and state[first] + self.period <= now:
            total -= state[first + 1]
            first += 2
        if first == len(state):
            return self.limit
        return self.limit - total if total < self.limit else 0.0

    def fresh_at(self, state: Log) -> float:
        """Return when the newest entry is a period old."""
        return state[-2] + self.period

    def position(self, state: Log) -> Log:
        """Return the newest entry: every take adds to it or follows it."""
        return state[-2:]
