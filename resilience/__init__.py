"""Async-native resilience: timeouts, retries, circuit breakers, bulkheads, rate limiters and fallbacks.

    from resilience import Pipeline, Retry, Timeout

    @Pipeline(Timeout(10), Retry(attempts=3))
    async def fetch(): ...

Works on asyncio and trio. Nothing but anyio is imported here; adapters are packages of their own.
"""

from __future__ import annotations

from ._deadlines import current_deadline
from .bound import Bound
from .call import Call, Lease, Operation
from .errors import (
    BulkheadFullError,
    CircuitOpenError,
    HazardWarning,
    RateLimitedError,
    RejectedError,
    ResilienceError,
    StoreUnavailableError,
    TimedOutError,
)
from .events import Event, Listener
from .machines.backoff import Backoff
from .machines.circuit_breaker import BreakerMetrics, BreakerState
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
from .pipeline import Pipeline
from .policies.bulkhead import Bulkhead
from .policies.circuit_breaker import CircuitBreaker
from .policies.fallback import Fallback, LastGood, Value
from .policies.rate_limiter import RateLimiter
from .policies.retry import Retry
from .policies.timeout import Timeout
from .policy import Guard, Policy
from .store import MemoryStore, Store
from .verdict import Advice, Classifier, Verdict

__version__ = "0.1.0"

__all__ = [
    "GCRA",
    "Advice",
    "Backoff",
    "Bound",
    "BreakerMetrics",
    "BreakerState",
    "Bulkhead",
    "BulkheadFullError",
    "Call",
    "CircuitBreaker",
    "CircuitOpenError",
    "Classifier",
    "Decision",
    "Event",
    "Fallback",
    "FixedWindow",
    "Guard",
    "HazardWarning",
    "LastGood",
    "LeakyBucket",
    "Lease",
    "Listener",
    "MemoryStore",
    "Operation",
    "Outcome",
    "Pipeline",
    "Policy",
    "RateLimitedError",
    "RateLimiter",
    "RatioBudget",
    "RejectedError",
    "ResilienceError",
    "Retry",
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
    "current_deadline",
]
