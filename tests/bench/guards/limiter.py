"""A million calls a second, as many at once: the fastest rate we accept, so that no timed call meets the limit.

Libraries that can refuse are set to refuse; aiolimiter can only wait.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from resilience import RateLimiter
from tests.bench.contest import OURS, Contestant, Setup, Wrap, fresh
from tests.bench.peers import module
from tests.bench.timing import Work


class RefusedError(Exception):
    """Raised by hand where a library answers with False."""


def ours(setup: Setup) -> RateLimiter:
    return RateLimiter(f"{setup.rate}/{setup.per}s", max_wait=0)


def _nopanic(setup: Setup) -> Wrap:
    policy: Wrap = module("nopanic").rate_limit(setup.rate, setup.per, max_wait=0)
    return policy


def _hyx(setup: Setup) -> Wrap:
    policy: Wrap = module("hyx", "ratelimit").tokenbucket(setup.rate, setup.per)
    return policy


def _pyresilience(setup: Setup) -> Wrap:
    library = module("pyresilience")
    policy: Wrap = library.resilient(
        rate_limiter=library.RateLimiterConfig(max_calls=setup.rate, period=setup.per, max_wait=0.0)
    )
    return policy


def _aioresilience(setup: Setup) -> Wrap:
    limiter: Any = module("aioresilience").RateLimiter()
    rate = f"{setup.rate}/{ {1: 'second', 60: 'minute', 3600: 'hour'}[setup.per] }"
    return _asking(lambda: limiter.check_rate_limit("bench", rate))


def _aiolimiter(setup: Setup) -> Wrap:
    limiter: Any = module("aiolimiter").AsyncLimiter(setup.rate, setup.per)

    def wrap(fn: Work) -> Work:
        async def guarded(order: int) -> object:
            async with limiter:
                return await fn(order)

        return guarded

    return wrap


def _limits(strategy: str) -> Callable[[Setup], Wrap]:
    def make(setup: Setup) -> Wrap:
        limits = module("limits")
        limiter: Any = getattr(module("limits", "aio.strategies"), strategy)(
            module("limits", "aio.storage").MemoryStorage()
        )
        item = limits.RateLimitItemPerSecond(setup.rate, setup.per)
        return _asking(lambda: limiter.hit(item, "bench"))

    return make


def _throttled(setup: Setup) -> Wrap:
    throttled = module("throttled-py", "asyncio")
    limiter: Any = throttled.Throttled(
        key=fresh(),
        using="gcra",
        quota=throttled.per_duration(timedelta(seconds=setup.per), setup.rate, burst=setup.rate),
        store=throttled.MemoryStore(),
    )

    async def admitted() -> bool:
        return not (await limiter.limit()).limited

    return _asking(admitted)


def _pyrate(setup: Setup) -> Wrap:
    library = module("pyrate-limiter")
    rate = library.Rate(setup.rate, setup.per * 1000)
    limiter: Any = library.Limiter(library.StateBucket([rate], algorithm=library.GCRA()))
    return _asking(lambda: limiter.try_acquire_async("bench", blocking=False))


def _asking(ask: Callable[[], Awaitable[bool]]) -> Wrap:
    """For limiters that answer and leave the rest to the caller."""

    def wrap(fn: Work) -> Work:
        async def guarded(order: int) -> object:
            if not await ask():
                raise RefusedError
            return await fn(order)

        return guarded

    return wrap


CONTESTANTS = [
    Contestant(OURS, ours, "GCRA"),
    Contestant("nopanic", _nopanic, "token bucket"),
    Contestant("hyx", _hyx, "token bucket"),
    Contestant("pyresilience", _pyresilience, "token bucket"),
    Contestant("aioresilience", _aioresilience, "leaky bucket of aiolimiter"),
    Contestant("aiolimiter", _aiolimiter, "leaky bucket; waits, cannot refuse"),
    Contestant("limits", _limits("FixedWindowRateLimiter"), "up to twice the limit at a boundary", "fixed window"),
    Contestant("limits", _limits("SlidingWindowCounterRateLimiter"), how="sliding counter"),
    Contestant("throttled-py", _throttled, "GCRA"),
    Contestant("pyrate-limiter", _pyrate, "GCRA"),
]
