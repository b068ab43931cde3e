"""Leaky bucket as a strict pacer: one after another, never two at once.

The queue form of the leaky bucket (Turner 1986; nginx `limit_req` without `burst`): what is admitted leaves
at a constant rate, so `cost` units are followed by `cost * period / limit` of nothing.

    rule = LeakyBucket(limit=10, period=1.0)           # one every 100 ms

Promise: between two admissions passes at least the time that the first one's cost takes. Refused calls
(`max_wait=0`) cannot use the gaps between their tries: to keep the full rate, wait.
"""

from __future__ import annotations

from typing import ClassVar

from resilience.machines.rate_limiter.rule import BaseRule, check_limit


class LeakyBucket(BaseRule):
    """`limit` units per `period` at an even pace, with no burst ever.

    One call may cost up to `limit` units (at least 1). The state is one float: when the next may go.
    """

    __slots__ = ("interval",)

    algorithm: ClassVar[str] = "leaky_bucket"
    interval: float

    def __init__(self, limit: float, period: float) -> None:
        limit, period = check_limit(limit, period)
        self._fill(limit, period, burst=1.0, capacity=max(limit, 1.0), interval=period / limit)

    def wait(self, state: float | None, now: float, cost: float) -> float:
        """Return the time until the one before has passed; the cost itself is paid afterwards."""
        return state - now if state is not None and state > now else 0.0

    def take(self, state: float | None, now: float, cost: float, wait: float) -> float:
        """Return when the next may go after `cost` units at `now + wait`."""
        start = now + wait
        if state is not None and state > start:
            start = state
        return start + cost * self.interval

    def refund(self, state: float | None, now: float, cost: float) -> float | None:
        """Return when the next may go without `cost` units."""
        if state is None:
            return None
        state -= cost * self.interval
        return state if state > now else None

    def charge(self, state: float | None, now: float, amount: float) -> float:
        """Return when the next may go after `amount` units that went now."""
        return self.take(state, now, amount, 0.0)

    def drain(self, state: float | None, now: float, seconds: float) -> float:
        """Return when the next may go: in so many seconds, or as if one unit had just gone."""
        following = now + (seconds if seconds > self.interval else self.interval)
        return following if state is None or state < following else state

    def observe(self, state: float | None, now: float, remaining: float, reset_after: float) -> float | None:
        """Return when the next may go; a pacer knows no number of units but none."""
        return self.drain(state, now, reset_after) if remaining <= 0.0 else state

    def remaining(self, state: float | None, now: float) -> float:
        """Return the largest cost that may go right now: everything or nothing."""
        return self.capacity if state is None or state <= now else 0.0

    def fresh_at(self, state: float) -> float:
        """Return when the next may go."""
        return state

    def position(self, state: float) -> float:
        """Return when the next may go: every take moves it forward."""
        return state
