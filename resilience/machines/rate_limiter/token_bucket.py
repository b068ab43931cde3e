"""Token bucket: tokens drip in at a steady rate, a call takes some.

The textbook bucket (Turner 1986; `golang.org/x/time/rate`), with debt: a booking for later makes the
balance negative, and the next caller waits until it is repaid.

    rule = TokenBucket(limit=100, period=1.0, burst=20)

Promise: in any window of length W at most `burst + limit / period * W` units. The same as GCRA; the state
here is a pair that people can read, and a clock set back costs no waiting: the bucket's time stands still.
"""

from __future__ import annotations

from typing import ClassVar, TypeAlias

from resilience.machines.rate_limiter.rule import BurstRule, check_burst, check_limit

Bucket: TypeAlias = tuple[float, float]
"""The tokens (negative: debt) and the time they were counted at."""


class TokenBucket(BurstRule):
    """`limit` tokens drip in per `period`, at most `burst` are kept.

    `burst` defaults to `limit` (at least 1).
    """

    __slots__ = ("rate",)

    algorithm: ClassVar[str] = "token_bucket"
    rate: float

    def __init__(self, limit: float, period: float, burst: float | None = None) -> None:
        limit, period = check_limit(limit, period)
        burst = check_burst(burst, limit)
        self._fill(limit, period, burst=burst, capacity=burst, rate=limit / period)

    def _tokens(self, state: Bucket | None, now: float) -> float:
        """Return the balance at `now`; time before the last count does not run again."""
        if state is None:
            return self.burst
        tokens, counted_at = state
        if now > counted_at:
            tokens += (now - counted_at) * self.rate
        return tokens if tokens < self.burst else self.burst

    def wait(self, state: Bucket | None, now: float, cost: float) -> float:
        """Return the time until the balance covers `cost`."""
        tokens = self._tokens(state, now)
        return (cost - tokens) / self.rate if tokens < cost else 0.0

    def take(self, state: Bucket | None, now: float, cost: float, wait: float) -> Bucket:
        """Return the bucket less `cost`, as a debt if the time for it has not come."""
        tokens = self._tokens(state, now)
        # A bucket that would be full before the permit is valid spills what drips in meanwhile.
        full = self.burst - wait * self.rate
        if full < tokens:
            tokens = full
        return tokens - cost, now if state is None or now > state[1] else state[1]

    def refund(self, state: Bucket | None, now: float, cost: float) -> Bucket | None:
        """Return the bucket with `cost` tokens more."""
        if state is None:
            return None
        # Counted back to the same time: undoing the last of several takes restores the one before.
        state = state[0] + cost, state[1]
        return state if self._tokens(state, now) < self.burst else None

    def charge(self, state: Bucket | None, now: float, amount: float) -> Bucket:
        """Return the bucket less `amount`, as a debt where it has not as much."""
        return self.take(state, now, amount, 0.0)

    def drain(self, state: Bucket | None, now: float, seconds: float) -> Bucket:
        """Return the bucket with as much debt as drips in until `now + seconds`."""
        return self._lowered(state, now, 0.0 - seconds * self.rate)

    def observe(self, state: Bucket | None, now: float, remaining: float, reset_after: float) -> Bucket | None:
        """Return the bucket with at most `remaining` tokens."""
        if remaining <= 0.0:
            return self.drain(state, now, reset_after)
        if remaining >= self._tokens(state, now):
            return state
        return self._lowered(state, now, remaining)

    def _lowered(self, state: Bucket | None, now: float, most: float) -> Bucket:
        """Return the bucket with at most so many tokens."""
        if state is not None and self._tokens(state, now) <= most:
            return state
        return most, now if state is None or now > state[1] else state[1]

    def remaining(self, state: Bucket | None, now: float) -> float:
        """Return the balance, 0 when in debt."""
        tokens = self._tokens(state, now)
        return tokens if tokens > 0.0 else 0.0

    def fresh_at(self, state: Bucket) -> float:
        """Return when the bucket is full again."""
        return state[1] + (self.burst - state[0]) / self.rate

    def position(self, state: Bucket) -> Bucket:
        """Return balance and time: a take lowers the one or moves the other."""
        return state
