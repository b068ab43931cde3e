"""A store of your own, checked with the kit that ours have to pass."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from resilience import GCRA, MemoryStore, RateLimiter, Store
from resilience.limits.limiter_state import Booking, LimiterSpec, LocalLimiter
from resilience.machines.rate_limiter import Decision
from resilience.testing import LIMITER_CHECKS, check_limiter


class CountingLimiter(LocalLimiter):
    """Keeps the state somewhere else and counts what is asked of it."""

    def __init__(self, inner: LocalLimiter, counts: Counter[str]) -> None:
        self.inner = inner
        self.counts = counts

    def acquire(self, key: str, costs: Sequence[float], max_wait: float, at: float | None = None) -> Booking:
        self.counts[key] += 1
        return self.inner.acquire(key, costs, max_wait, at)

    def peek(self, key: str, costs: Sequence[float]) -> Decision:
        return self.inner.peek(key, costs)

    def refund(self, key: str, costs: Sequence[float], stamp: object = None) -> None:
        self.inner.refund(key, costs, stamp)

    def reset(self, key: str) -> None:
        self.inner.reset(key)


class CountingStore(Store):
    """Holds rate limiters; other state it refuses, as the base class does."""

    def __init__(self) -> None:
        self.memory = MemoryStore()
        self.counts: Counter[str] = Counter()

    def limiter(self, spec: LimiterSpec) -> LocalLimiter:
        return CountingLimiter(self.memory.limiter(spec), self.counts)


async def main() -> None:
    await check_limiter(CountingStore(), GCRA(5, 5e6))
    print(len(LIMITER_CHECKS) > 10, "checks passed")

    store = CountingStore()
    search = RateLimiter("10/s", name="search", store=store)
    for tenant in ("north", "south", "north"):
        async with search.guard(key=tenant):
            pass
    print(dict(store.counts))


asyncio.run(main())

# Prints:
# True checks passed
# {'north': 2, 'south': 1}
