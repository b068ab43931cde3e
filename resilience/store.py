"""Where the state of policies lives: the port, and the store in this process's memory.

    store = MemoryStore()
    limiter = RateLimiter("100/s", name="search", store=store)

A store is an argument of a policy, never another class of policy. Two policies with the same name and store
share their state. A store need not support every kind of state: the base class refuses what it does not.
Stores in this process answer at once (`LocalLimiter`); stores elsewhere are awaited (`RemoteLimiter`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

from . import clock
from .caching.cache_state import CacheSpec, RemoteCache
from .limits.limiter_state import LimiterSpec, LocalLimiter, RemoteLimiter
from .limits.memory_ledger import MemoryLedger
from .machines.bulkhead import BulkheadMachine
from .machines.cache import CacheMachine
from .machines.circuit_breaker import BreakerRule, BreakerState, CircuitBreakerMachine
from .machines.retry_budget import RetryBudgetMachine
from .partitions import Partitions
from .permits.permits_state import BulkheadSpec, RemotePermits

S = TypeVar("S")


@runtime_checkable
class RemoteBudget(RetryBudgetMachine, Protocol):
    """A retry budget in another process: `reserve` answers from what this one has at hand."""

    async def stock(self, cost: float) -> None:
        """Have `cost` at hand if it can be had; asked before a `reserve`."""
        ...


class Store:
    """Base of all stores. A subclass overrides what it can hold."""

    def limiter(self, spec: LimiterSpec) -> LocalLimiter | RemoteLimiter:
        """The state of a rate limiter."""
        raise self._refusal("rate limiters")

    def breakers(self, name: str, rule: BreakerRule, max_keys: int) -> Partitions[CircuitBreakerMachine]:
        """The circuits of a breaker, by key."""
        raise self._refusal("circuit breakers")

    def bulkheads(self, spec: BulkheadSpec) -> Partitions[BulkheadMachine] | RemotePermits:
        """The permits of a bulkhead, by key."""
        raise self._refusal("bulkheads")

    def budget(self, name: str, make: Callable[[], RetryBudgetMachine]) -> RetryBudgetMachine:
        """The retry budget called `name`, made by the first who asks."""
        raise self._refusal("retry budgets")

    def cache(self, spec: CacheSpec) -> CacheMachine | RemoteCache:
        """The entries of a cache."""
        raise self._refusal("caches")

    def _refusal(self, what: str) -> TypeError:
        return TypeError(f"store must be one that can hold {what}; {type(self).__name__} cannot")


def named(name: str | None, default: str, store: Store | None) -> str:
    """The name of a state. Raises ValueError if it is to be shared and has none."""
    if store is not None and name is None:
        raise ValueError("name is required with a store: policies with the same name share their state there")
    return name or default


def permits_of(spec: BulkheadSpec) -> Partitions[BulkheadMachine]:
    """Permits in this process, by key."""
    return Partitions(
        lambda: BulkheadMachine(spec.limit, spec.queue),
        droppable=lambda machine: machine.in_use == 0 and machine.waiting == 0 and not machine.draining,
        max_keys=spec.max_keys,
    )


def entries_of(spec: CacheSpec) -> CacheMachine:
    """Entries in this process."""
    return CacheMachine(spec.max_entries, max_weight=spec.max_weight, weigh=spec.weigh, longest=spec.rule.longest)


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
        return self._shared(
            "rate limiter", spec.name, spec, lambda: MemoryLedger(spec.rules, spec.max_keys, spec.common)
        )

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

    def bulkheads(self, spec: BulkheadSpec) -> Partitions[BulkheadMachine]:
        """Permits shared by name. Bulkheads in use are never dropped."""
        settings = (spec.limit, spec.queue, spec.max_keys)
        return self._shared("bulkhead", spec.name, settings, lambda: permits_of(spec))

    def budget(self, name: str, make: Callable[[], RetryBudgetMachine]) -> RetryBudgetMachine:
        """The retry budget called `name`."""
        return self._shared("retry budget", name, None, make)

    def cache(self, spec: CacheSpec) -> CacheMachine:
        """Entries shared by name. Values are kept as they are, without the codec."""
        bounds = (spec.max_entries, spec.max_weight, spec.weigh)
        return self._shared("cache", spec.name, (spec.rule, *bounds), lambda: entries_of(spec))
