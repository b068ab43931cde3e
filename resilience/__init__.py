"""Async-native resilience: timeouts, retries, circuit breakers, bulkheads, rate limiters and fallbacks.

    from resilience import Pipeline, Retry, Timeout

    @Pipeline(Timeout(10), Retry(attempts=3))
    async def fetch(): ...

Works on asyncio and trio. Nothing but anyio is needed; adapters are packages of their own. A name is imported
when it is first used, so that `import resilience` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bound import Bound
    from .caching.bound_cache import BoundCache
    from .caching.cache_writer import Writer
    from .caching.codecs import Codec, JsonCodec, PickleCodec
    from .call import Call, Lease, Operation
    from .errors import (
        BulkheadFullError,
        CircuitOpenError,
        HazardWarning,
        PermitLostError,
        RateLimitedError,
        RejectedError,
        ResilienceError,
        StoreUnavailableError,
        TimedOutError,
    )
    from .events import Event, Listener
    from .limits.limit import Limit
    from .limits.reservation import Reservation
    from .machines.backoff import Backoff
    from .machines.chaos import Exponential
    from .machines.circuit_breaker import BreakerMetrics, BreakerState
    from .machines.quantile import Quantile
    from .machines.rate_limiter import (
        GCRA,
        Decision,
        FixedWindow,
        LeakyBucket,
        SlidingLog,
        SlidingWindow,
        TokenBucket,
    )
    from .machines.retry_budget import RatioBudget, TokenBudget
    from .outcome import Outcome
    from .permits._shared_permits import fencing_token
    from .pipeline import Pipeline
    from .policies.bulkhead import Bulkhead
    from .policies.cache import Cache
    from .policies.chaos import Chaos
    from .policies.circuit_breaker import CircuitBreaker
    from .policies.fallback import Fallback, LastGood, Value
    from .policies.hedge import Hedge
    from .policies.rate_limiter import RateLimiter
    from .policies.retry import Retry
    from .policies.single_flight import SingleFlight
    from .policies.timeout import Timeout
    from .policy import Guard, Policy
    from .running._deadlines import current_deadline
    from .store import MemoryStore, Store
    from .verdict import Advice, Classifier, Verdict

__version__ = "0.1.0"

__all__ = [
    "GCRA",
    "Advice",
    "Backoff",
    "Bound",
    "BoundCache",
    "BreakerMetrics",
    "BreakerState",
    "Bulkhead",
    "BulkheadFullError",
    "Cache",
    "Call",
    "Chaos",
    "CircuitBreaker",
    "CircuitOpenError",
    "Classifier",
    "Codec",
    "Decision",
    "Event",
    "Exponential",
    "Fallback",
    "FixedWindow",
    "Guard",
    "HazardWarning",
    "Hedge",
    "JsonCodec",
    "LastGood",
    "LeakyBucket",
    "Lease",
    "Limit",
    "Listener",
    "MemoryStore",
    "Operation",
    "Outcome",
    "PermitLostError",
    "PickleCodec",
    "Pipeline",
    "Policy",
    "Quantile",
    "RateLimitedError",
    "RateLimiter",
    "RatioBudget",
    "RejectedError",
    "Reservation",
    "ResilienceError",
    "Retry",
    "SingleFlight",
    "SlidingLog",
    "SlidingWindow",
    "Store",
    "StoreUnavailableError",
    "TimedOutError",
    "Timeout",
    "TokenBucket",
    "TokenBudget",
    "Value",
    "Verdict",
    "Writer",
    "current_deadline",
    "fencing_token",
]

_HOMES = {
    "bound": "Bound",
    "caching.bound_cache": "BoundCache",
    "caching.cache_writer": "Writer",
    "caching.codecs": "Codec JsonCodec PickleCodec",
    "call": "Call Lease Operation",
    "errors": "BulkheadFullError CircuitOpenError HazardWarning PermitLostError RateLimitedError RejectedError "
    "ResilienceError StoreUnavailableError TimedOutError",
    "events": "Event Listener",
    "limits.limit": "Limit",
    "limits.reservation": "Reservation",
    "machines.backoff": "Backoff",
    "machines.chaos": "Exponential",
    "machines.circuit_breaker": "BreakerMetrics BreakerState",
    "machines.quantile": "Quantile",
    "machines.rate_limiter": "GCRA Decision FixedWindow LeakyBucket SlidingLog SlidingWindow TokenBucket",
    "machines.retry_budget": "RatioBudget TokenBudget",
    "outcome": "Outcome",
    "permits._shared_permits": "fencing_token",
    "pipeline": "Pipeline",
    "policies.bulkhead": "Bulkhead",
    "policies.cache": "Cache",
    "policies.chaos": "Chaos",
    "policies.circuit_breaker": "CircuitBreaker",
    "policies.fallback": "Fallback LastGood Value",
    "policies.hedge": "Hedge",
    "policies.rate_limiter": "RateLimiter",
    "policies.retry": "Retry",
    "policies.single_flight": "SingleFlight",
    "policies.timeout": "Timeout",
    "policy": "Guard Policy",
    "running._deadlines": "current_deadline",
    "store": "MemoryStore Store",
    "verdict": "Advice Classifier Verdict",
}
"""The public names by module, as imported for type checkers above."""

_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}


if not TYPE_CHECKING:  # or a type checker would find any name here

    def __getattr__(name: str) -> object:
        """Import a public name from its module, once."""
        module = _HOME_OF.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value: object = getattr(import_module(f".{module}", __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
