"""Where the state of policies lives: the port, and the store in this process's memory.

    store = MemoryStore()
    limiter = RateLimiter("100/s", name="search", store=store)

A store is an argument of a policy, never another class of policy. Two policies with the same name and store
share their state. A store need not support every kind of state: the base class refuses what it does not.
Stores in this process answer at once (`LocalLimiter`); stores elsewhere are awaited (`RemoteLimiter`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from . import clock
from .limiter_state import LimiterSpec, LocalLimiter, RemoteLimiter
from .machines.bulkhead import BulkheadMachine
from .machines.circuit_breaker import BreakerRule, BreakerState, CircuitBreakerMachine
from .machines.retry_budget import RetryBudgetMachine
from .memory_limiter import MemoryLimiter
from .partitions import Partitions

S = TypeVar("S")


class Store:
    """Base of all stores. A subclass overrides what it can hold."""

    def limiter(self, spec: LimiterSpec) -> LocalLimiter | RemoteLimiter:
        """The state of a rate limiter."""
        raise self._refusal("rate limiters")

    def breakers(self, name: str, rule: BreakerRule, max_keys: int) -> Partitions[CircuitBreakerMachine]:
        """The circuits of a breaker, by key."""
        raise self._refusal("circuit breakers")

    def bulkheads(self, name: str, limit: int, queue: int, max_keys: int) -> Partitions[BulkheadMachine]:
        """The permits of a bulkhead, by key."""
        raise self._refusal("bulkheads")

    def budget(self, name: str, make: Callable[[], RetryBudgetMachine]) -> RetryBudgetMachine:
        """The retry budget called `name`, made by the first who asks."""
        raise self._refusal("retry budgets")

    def _refusal(self, what: str) -> TypeError:
        return TypeError(f"store must be one that can hold {what}; {type(self).__name__} cannot")


def named(name: str | None, default: str, store: Store | None) -> str:
    """The name of a state. Raises ValueError if it is to be shared and has none."""
    if store is not None and name is None:
        raise ValueError("name is required with a store: policies with the same name share their state there")
    return name or default


class MemoryStore(Store):
    """State in the memory of this process, gone with it. The default of every policy is one of its own.

    State is kept per key and bounded: idle keys leave; an open circuit, a permit in use or an unpaid debt
    never does. Not safe for use from several threads at once.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], tuple[object, Any]] = {}

    def _shared(self, kind: str, name: str, settings: object, make: Callable[[], S]) -> S:
        """The one state of that kind and name. Raises ValueError if it was made with other settings."""
        known = self._held.get((kind, name))
        if known is None:
            known = self._held[kind, name] = (settings, make())
        if known[0] != settings:
            raise ValueError(f"name {name!r} is taken by a {kind} with other settings: {known[0]!r}")
        state: S = known[1]
        return state

    def limiter(self, spec: LimiterSpec) -> LocalLimiter:
        """The state of a rate limiter, shared by name."""
        return self._shared("rate limiter", spec.name, spec, lambda: MemoryLimiter(spec.rules, spec.max_keys))

    def breakers(self, name: str, rule: BreakerRule, max_keys: int) -> Partitions[CircuitBreakerMachine]:
        """Circuits shared by name. Open ones are never dropped."""
        return self._shared(
            "circuit breaker",
            name,
            (rule, max_keys),
            lambda: Partitions(
                lambda: CircuitBreakerMachine(rule),
                droppable=lambda machine: machine.state_at(clock.now()) is BreakerState.CLOSED,
                max_keys=max_keys,
            ),
        )

    def bulkheads(self, name: str, limit: int, queue: int, max_keys: int) -> Partitions[BulkheadMachine]:
        """Permits shared by name. Bulkheads in use are never dropped."""
        return self._shared(
            "bulkhead",
            name,
            (limit, queue, max_keys),
            lambda: Partitions(
                lambda: BulkheadMachine(limit, queue),
                droppable=lambda machine: machine.in_use == 0 and machine.waiting == 0 and not machine.draining,
                max_keys=max_keys,
            ),
        )

    def budget(self, name: str, make: Callable[[], RetryBudgetMachine]) -> RetryBudgetMachine:
        """The retry budget called `name`."""
        return self._shared("retry budget", name, None, make)
