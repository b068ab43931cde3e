"""Retry budgets: retries are paid for by successes, so that a failing dependency is not buried under them.

    budget = TokenBudget()
    if budget.reserve(now, budget.transient_cost):    # before the back-off, and held through it
        ...                                           # wait, retry
    budget.settle(now, succeeded=True, cost=budget.transient_cost)

One call goes through a budget like this:

    each retry             reserve(cost)    True: it is paid for. False: do not retry
    cancelled in back-off  cancel(cost)     the retry never ran, its cost comes back
    the call is over       settle(...)      once, with the cost of its last retry (0.0: it had none);
                                            not at all if it was cancelled

Without one, a short dip can become a lasting outage: the retries of timed-out calls keep the dependency
overloaded after the cause is gone (Bronson et al., "Metastable Failures in Distributed Systems", HotOS 2021).
"""

from __future__ import annotations

from typing import Protocol

from resilience._validate import check_number
from resilience.machines.windows import RollingSum


class RetryBudgetMachine(Protocol):
    """What a retry or a hedge needs of a budget. `now` is in seconds on a monotonic clock."""

    @property
    def transient_cost(self) -> float:
        """Price of a retry after a transient failure, and of a hedge."""
        ...

    @property
    def throttled_cost(self) -> float:
        """Price of a retry after a throttling answer."""
        ...

    def reserve(self, now: float, cost: float) -> bool:
        """Take `cost` if it is there. Raises ValueError unless `cost` is positive and finite."""
        ...

    def cancel(self, now: float, cost: float, reserved_at: float) -> None:
        """Give back what was reserved at `reserved_at` for a retry that never ran."""
        ...

    def settle(self, now: float, succeeded: bool, cost: float = 0.0) -> None:
        """A call is over; `cost` is that of its last retry, 0.0 if it had none."""
        ...

    def available(self, now: float) -> float:
        """How much could be reserved. Reading changes nothing."""
        ...


class TokenBudget:
    """A bank of tokens, as in the AWS SDKs' "standard" retry mode: failures drain it, successes fill it.

    It starts full with `capacity` tokens (500). A retry costs 14 tokens, or 5 after a throttling answer; a
    call that succeeds after a retry gets the cost of that retry back, a call that succeeds at once adds
    `deposit` (1). In a full outage it allows about 35 retries and then none until calls succeed again.

    Raises TypeError or ValueError unless all are positive finite numbers, no cost above the capacity.
    """

    __slots__ = ("capacity", "deposit", "throttled_cost", "tokens", "transient_cost")

    def __init__(
        self,
        capacity: float = 500.0,
        *,
        transient_cost: float = 14.0,
        throttled_cost: float = 5.0,
        deposit: float = 1.0,
    ) -> None:
        check_number("capacity", capacity, above=0)
        check_number("transient_cost", transient_cost, above=0, most=capacity)
        check_number("throttled_cost", throttled_cost, above=0, most=capacity)
        check_number("deposit", deposit, above=0)
        self.capacity: float = capacity
        self.transient_cost: float = transient_cost
        self.throttled_cost: float = throttled_cost
        self.deposit: float = deposit
        # Between 0 and capacity, always.
        self.tokens: float = capacity

    def reserve(self, now: float, cost: float) -> bool:
        """Take `cost` tokens if the bank holds them. Raises ValueError unless it is positive and finite."""
        check_number("cost", cost, above=0)
        if cost > self.tokens:
            return False
        self.tokens -= cost
        return True

    def cancel(self, now: float, cost: float, reserved_at: float) -> None:
        """Give back the tokens of a retry that never ran."""
        check_number("cost", cost, above=0)
        self.tokens = min(self.capacity, self.tokens + cost)

    def settle(self, now: float, succeeded: bool, cost: float = 0.0) -> None:
        """A call is over. Success after a retry repays its `cost`, success at once adds the deposit."""
        if cost:
            check_number("cost", cost, above=0)
        if succeeded and self.tokens < self.capacity:
            self.tokens = min(self.capacity, self.tokens + (cost or self.deposit))

    def available(self, now: float) -> float:
        """The tokens in the bank."""
        return self.tokens


class RatioBudget:
    """At most a share of recent calls may be retries, as in Finagle's `RetryBudget`.

    In the last `window` seconds (10): `ratio` (0.2) retries per call, and `minimum_per_second` (10) on top,
    so that a rarely used client can retry at all. Every retry costs 1 and stays spent, whatever came of it;
    every settled call counts, whatever its outcome.

    Unlike `TokenBudget` it keeps feeding retries during a full outage: a dependency that cannot carry
    `(1 + ratio)` times the calls plus `minimum_per_second` may never recover.

    Raises TypeError or ValueError unless `ratio` and `minimum_per_second` are finite and not negative, one of
    them positive, and `window` is positive and finite.
    """

    __slots__ = (
        "_calls", "_retries", "minimum_per_second", "ratio", "throttled_cost", "transient_cost", "window",
    )  # fmt: skip

    def __init__(self, ratio: float = 0.2, *, window: float = 10.0, minimum_per_second: float = 10.0) -> None:
        check_number("ratio", ratio, least=0)
        check_number("window", window, above=0)
        check_number("minimum_per_second", minimum_per_second, least=0)
        if not ratio and not minimum_per_second:
            raise ValueError("ratio or minimum_per_second must be greater than 0, got 0 for both")
        self.ratio: float = ratio
        self.window: float = window
        self.minimum_per_second: float = minimum_per_second
        self.transient_cost: float = 1.0
        self.throttled_cost: float = 1.0
        self._calls = RollingSum(window)
        self._retries = RollingSum(window)

    def reserve(self, now: float, cost: float) -> bool:
        """Spend `cost` if the window allows it. Raises ValueError unless `cost` is positive and finite."""
        check_number("cost", cost, above=0)
        # The margin is for shares such as 0.29 of 100, which doubles put just below 29.
        if cost > self.available(now) + 1e-9:
            return False
        self._retries.add(now, cost)
        return True

    def cancel(self, now: float, cost: float, reserved_at: float) -> None:
        """Give back what was spent at `reserved_at`; nothing if that has already left the window."""
        check_number("cost", cost, above=0)
        self._retries.withdraw(reserved_at, cost)

    def settle(self, now: float, succeeded: bool, cost: float = 0.0) -> None:
        """A call is over: it adds its share."""
        self._calls.add(now, 1.0)

    def available(self, now: float) -> float:
        """Retries allowed now. Never negative, though calls may leave the window before their retries do."""
        earned = self.ratio * self._calls.total(now) + self.minimum_per_second * self.window
        return max(0.0, earned - self._retries.total(now))
