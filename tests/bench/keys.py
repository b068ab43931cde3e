"""A limiter with a million keys: bytes per key, and the time of a decision at one key and at all of them.

The keys themselves exist before and are not counted. Peers get a tenth of the keys: some of them need a
kilobyte for each.
"""

from __future__ import annotations

import asyncio
import gc
import random
import tracemalloc
from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import cycle
from typing import Any, TypeAlias

from resilience import RateLimiter, clock
from resilience.limits.memory_limiter import MemoryLimiter
from tests.bench.contest import OURS
from tests.bench.peers import MissingError, installed, module
from tests.bench.report import Bar, Report, Table
from tests.bench.timing import interleave

Decide: TypeAlias = Callable[[str], Awaitable[object]]

HOUR = 3600
LIMIT = 3_600_000_000
"""Units per hour: a million a second, and a period in which no key leaves while we look."""


def run(size: float = 1.0) -> Report:
    """Run the benchmark with a million keys at size 1."""
    report = Report("keys")
    keys = [f"tenant-{n:07d}" for n in range(max(100, round(1_000_000 * size)))]
    random.Random(0).shuffle(keys)
    asyncio.run(_run(report, keys, max(3, round(100 * size))))
    return report


async def _run(report: Report, keys: list[str], rounds: int) -> None:
    columns = ("", "keys", "bytes per key", "ns at 1 key", "ns at all keys", "all / 1")
    table = Table("one decision of a keyed limiter, keys in random order", columns, chart="bytes per key")
    for name, distribution, make in LIBRARIES:
        mine = keys if name == OURS else keys[: max(100, len(keys) // 10)]
        try:
            size, alone, among = await _measure(make, mine, rounds)
        except MissingError as reason:
            report.missing[distribution] = str(reason)
            continue
        table.add(name, len(mine), size, alone, among, among / alone)
        if version := installed(distribution):
            report.peers[distribution] = version
        if name == OURS:
            report.bars.append(Bar("bytes per key beyond the key itself", size, 80.0))
            report.bars.append(Bar("decision at all keys, random / at one key", among / alone, 3.0))
    report.tables.append(table)
    left, filled = await _leaving(max(100, len(keys) // 10))
    report.bars.append(Bar(f"keys left of {filled} idle ones, one other key in use", float(left), 1.0))


async def _measure(make: Callable[[], Decide], keys: list[str], rounds: int) -> tuple[float, float, float]:
    """Bytes per key, and nanoseconds of a decision with one key and with all of them."""
    lonely, decide = make(), make()
    await decide("warm")
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for key in keys:
        await decide(key)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    shuffled = keys.copy()
    random.Random(1).shuffle(shuffled)
    one, each = cycle(["tenant-0"] * 1000), cycle(shuffled)

    async def with_one(order: int) -> object:
        return await lonely(next(one))

    async def with_all(order: int) -> object:
        return await decide(next(each))

    times = await interleave({"one": with_one, "all": with_all}, rounds)
    return (after - before) / len(keys), times["one"].median, times["all"].median


async def _leaving(count: int) -> tuple[int, int]:
    """How many of `count` idle keys are still there after two periods in which one key was in use."""
    now, real = 0.0, clock.now
    clock.now = lambda: now
    try:
        limiter = RateLimiter("100/s", max_wait=0)
        state = limiter.line.limiter
        assert isinstance(state, MemoryLimiter)
        decide = _through(limiter)
        for n in range(count):
            await decide(f"idle-{n}")
        filled = len(state)
        for _ in range(10):
            now += 1.0
            await decide("busy")
        return len(state) - 1, filled
    finally:
        clock.now = real


def _through(limiter: RateLimiter) -> Decide:
    """The public way: a decorated function whose argument is the key."""

    async def admitted(key: str) -> bool:
        return True

    return limiter.bind(key=_itself)(admitted)


def _itself(key: str) -> str:
    return key


def _ours() -> Decide:
    return _through(RateLimiter(f"{LIMIT}/{HOUR}s", burst=1_000_000, max_wait=0, max_keys=2_000_000))


def _limits(strategy: str) -> Callable[[], Decide]:
    def make() -> Decide:
        storage = module("limits", "aio.storage").MemoryStorage()
        limiter: Any = getattr(module("limits", "aio.strategies"), strategy)(storage)
        item = module("limits").RateLimitItemPerHour(LIMIT)
        return lambda key: limiter.hit(item, key)

    return make


def _throttled() -> Decide:
    throttled = module("throttled-py", "asyncio")
    store = throttled.MemoryStore(options={"MAX_SIZE": 2_000_000})
    quota = throttled.per_duration(timedelta(seconds=HOUR), LIMIT, burst=1_000_000)
    limiter: Any = throttled.Throttled(using="gcra", quota=quota, store=store)
    return lambda key: limiter.limit(key)


def _nopanic() -> Decide:
    nopanic = module("nopanic")

    async def admitted(key: str) -> bool:
        return True

    def limit(key: str) -> Any:
        return nopanic.rate_limit(LIMIT, HOUR, burst=1_000_000, max_wait=0)

    policy: Any = nopanic.keyed(
        limit,
        key=_itself,
        maxsize=2_000_000,
    )
    decide: Decide = policy(admitted)
    return decide


def _aiolimiter() -> Decide:
    make: Any = module("aiolimiter").AsyncLimiter
    limiters: dict[str, Any] = {}

    async def decide(key: str) -> None:
        limiter = limiters.get(key)
        if limiter is None:
            limiter = limiters[key] = make(1_000_000, 1)
        await limiter.acquire()

    return decide


def _aioresilience() -> Decide:
    library = module("aioresilience")
    limiter: Any = library.RateLimiter(library.RateLimitConfig(max_limiters=2_000_000))
    return lambda key: limiter.check_rate_limit(key, f"{LIMIT}/hour")


LIBRARIES: list[tuple[str, str, Callable[[], Decide]]] = [
    (OURS, OURS, _ours),
    ("limits fixed window", "limits", _limits("FixedWindowRateLimiter")),
    ("limits sliding counter", "limits", _limits("SlidingWindowCounterRateLimiter")),
    ("throttled-py GCRA", "throttled-py", _throttled),
    ("nopanic keyed", "nopanic", _nopanic),
    ("aiolimiter, one each in a dict", "aiolimiter", _aiolimiter),
    ("aioresilience", "aioresilience", _aioresilience),
]
"""Name, distribution, and how to make one; what has no keys of its own is left out."""
