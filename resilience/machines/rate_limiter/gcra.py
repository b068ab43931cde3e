"""GCRA: a token bucket in one number.

The generic cell rate algorithm (ATM Forum Traffic Management 4.0, virtual scheduling) keeps only the
*theoretical arrival time*: when the bucket would be full again. A unit moves it by `interval`; a request
conforms unless that puts it further ahead than `tolerance`, the time a whole burst takes.

    rule = GCRA(limit=100, period=1.0, burst=20)

Promise: in any window of length W at most `burst + limit / period * W` units (and a thousandth, for rounding).
"""

from __future__ import annotations

from typing import ClassVar

from resilience.machines.rate_limiter.rule import BurstRule, check_burst, check_limit

ROUNDING = 0.001
"""Units that are let off: a hundred times the interval, added up, is not exactly a hundred intervals, and the last
unit of a burst should not have to wait for the difference."""


class GCRA(BurstRule):
    """`limit` units per `period`, evenly spaced, with up to `burst` at once after a rest.

    `burst` defaults to `limit` (at least 1). The state is one float, the theoretical arrival time.
    """

    __slots__ = ("grace", "interval", "tolerance")

    algorithm: ClassVar[str] = "gcra"
    interval: float
    tolerance: float
    grace: float

    def __init__(self, limit: float, period: float, burst: float | None = None) -> None:
        limit, period = check_limit(limit, period)
        burst = check_burst(burst, limit)
        interval = period / limit
        self._fill(
            limit,
            period,
            burst=burst,
            capacity=burst,
            interval=interval,
            tolerance=interval * burst,
            grace=interval * ROUNDING,
        )

    def wait(self, state: float | None, now: float, cost: float) -> float:
        """Return the time until `cost` units conform."""
        if state is None or state - now <= self.room(cost):
            return 0.0
        return (state - now) + (cost * self.interval - self.tolerance)

    def room(self, cost: float) -> float:
        """Return how far ahead the arrival time may be for `cost` units to conform."""
        return (self.tolerance - cost * self.interval) + self.grace

    def take(self, state: float | None, now: float, cost: float, wait: float) -> float:
        """Return the arrival time that follows `cost` units at `now + wait`."""
        start = now + wait
        if state is not None and state > start:
            start = state
        return start + cost * self.interval

    def refund(self, state: float | None, now: float, cost: float) -> float | None:
        """Return the arrival time without `cost` units."""
        if state is None:
            return None
        state -= cost * self.interval
        return state if state > now else None

    def charge(self, state: float | None, now: float, amount: float) -> float:
        """Return the arrival time that follows `amount` units, however far ahead."""
        return self.take(state, now, amount, 0.0)

    def drain(self, state: float | None, now: float, seconds: float) -> float:
        """Return the arrival time of a bucket that is empty until `now + seconds` and fills from then on."""
        empty = now + seconds + self.tolerance
        return empty if state is None or state < empty else state

    def observe(self, state: float | None, now: float, remaining: float, reset_after: float) -> float | None:
        """Return the arrival time at which no more than `remaining` units conform."""
        if remaining <= 0.0:
            return self.drain(state, now, reset_after)
        if remaining >= self.burst:
            return state
        lowered = now + (self.tolerance - remaining * self.interval)
        return lowered if state is None or state < lowered else state

    def remaining(self, state: float | None, now: float) -> float:
        """Return the units that conform right now."""
        if state is None or state <= now:
            return self.burst
        left = (self.tolerance - (state - now)) / self.interval
        return left if left > 0.0 else 0.0

    def fresh_at(self, state: float) -> float:
        """Return when the bucket is full again."""
        return state

    def position(self, state: float) -> float:
        """Return the arrival time itself: every take moves it forward."""
        return state
