"""Decisions per second of one process through a real Redis: 1, 10, 100 and 1,000 tasks, strict limits.

Bars: with one task at least 0.85 of a bare EVALSHA loop on the same client, with 100 and 1,000 tasks at least 15
times the fastest peer, and exactly as many admitted as the limit says.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from statistics import median
from time import perf_counter, process_time
from typing import Any, TypeAlias

from redis.asyncio import BlockingConnectionPool, Redis

from resilience.limiter_state import LimiterSpec
from resilience.machines.rate_limiter import GCRA
from resilience_redis import RedisStore
from resilience_redis.client import no_retries
from resilience_redis.server import Server, start_server
from tests.bench.contest import OURS, fresh
from tests.bench.peers import Missing, installed, module
from tests.bench.report import Bar, Report, Table

Decide: TypeAlias = Callable[[], Awaitable[bool]]
"""One decision: admitted or not."""

TASKS = (1, 10, 100, 1000)
PER = 3600
PLENTY = 3_600_000_000
"""A limit nobody meets: a million a second, counted by the hour."""
BARE = "bare EVALSHA, same script"


def run(size: float = 1.0) -> Report:
    """Run the benchmark: 9 samples of a third of a second for each number of tasks at size 1."""
    report = Report("redis")
    with start_server() as server:
        asyncio.run(_run(report, server, rounds=max(1, round(9 * size)), seconds=max(0.02, 0.33 * min(1.0, size))))
    return report


async def _run(report: Report, server: Server, *, rounds: int, seconds: float) -> None:
    async with _clients(server) as client:
        makes = {name: make for name, _, make in LIBRARIES}
        decides: dict[str, Decide] = {}
        for name, distribution, make in LIBRARIES:
            try:
                await _must_limit(name, make(client, server, 5))
                decides[name] = make(client, server, PLENTY)
            except Missing as reason:
                report.missing[distribution] = str(reason)
                continue
            if version := installed(distribution):
                report.peers[distribution] = version
        await _speed(report, decides, rounds, seconds)
        for tasks in TASKS[1:]:
            limit = 3 * tasks
            admitted = sum(await _together(makes[OURS](client, server, limit), tasks, each=5))
            report.bars.append(Bar(f"{tasks} tasks: |admitted - limit| of {5 * tasks} asked", abs(admitted - limit), 0.0))


async def _speed(report: Report, decides: dict[str, Decide], rounds: int, seconds: float) -> None:
    shuffled = random.Random(0)
    rates: dict[tuple[str, int], float] = {}
    for tasks in TASKS:
        columns = ("", "decisions a second", "client CPU us", "x ours")
        table = Table(f"{tasks} tasks" if tasks > 1 else "1 task", columns, chart="decisions a second")
        samples: dict[str, list[tuple[float, float]]] = {name: [] for name in decides}
        order = list(decides)
        for _ in range(rounds + 1):  # the first opens the connections
            shuffled.shuffle(order)
            for name in order:
                samples[name].append(await _sample(decides[name], tasks, seconds))
        for name, found in samples.items():
            rates[name, tasks] = median(rate for rate, _ in found[1:])
        for name in sorted(decides, key=lambda name: -rates[name, tasks]):
            cpu = median(cpu for _, cpu in samples[name][1:])
            table.add(name, rates[name, tasks], cpu * 1e6, rates[name, tasks] / rates[OURS, tasks])
        report.tables.append(table)
        peers = [name for name in decides if name not in (OURS, BARE)]
        if tasks == 1:
            report.bars.append(Bar("1 task: ours / bare EVALSHA", rates[OURS, 1] / rates[BARE, 1], 0.85, at_least=True))
        elif tasks >= 100 and peers:
            fastest = max(peers, key=lambda name: rates[name, tasks])
            ratio = rates[OURS, tasks] / rates[fastest, tasks]
            report.bars.append(Bar(f"{tasks} tasks: ours / {fastest}", ratio, 15.0, at_least=True))


async def _sample(decide: Decide, tasks: int, seconds: float) -> tuple[float, float]:
    """Decisions a second, and CPU seconds of a decision."""
    until = perf_counter() + seconds

    async def ask() -> int:
        done = 0
        while not done or perf_counter() < until:
            assert await decide()
            done += 1
        return done

    start, cpu = perf_counter(), process_time()
    done = sum(await asyncio.gather(*(ask() for _ in range(tasks))))
    return done / (perf_counter() - start), (process_time() - cpu) / done


async def _together(decide: Decide, tasks: int, each: int) -> list[int]:
    async def ask() -> int:
        return sum([await decide() for _ in range(each)])

    return await asyncio.gather(*(ask() for _ in range(tasks)))


async def _must_limit(name: str, decide: Decide) -> None:
    answers = [await decide() for _ in range(10)]
    assert answers == [True] * 5 + [False] * 5, f"{name} answers {answers} at a limit of 5"


@asynccontextmanager
async def _clients(server: Server) -> AsyncGenerator[Any]:
    """One client for all who take one: a pool of ten that waits when it is empty."""
    pool: Any = BlockingConnectionPool
    client: Any = Redis.from_pool(pool.from_url(server.url, max_connections=10, timeout=None, retry=no_retries()))
    try:
        yield client
    finally:
        await client.aclose()


def _limiter(client: Any, limit: int) -> Any:
    # No call may give up while a thousand others are served by one core.
    store = RedisStore(client, prefix=fresh("bench"), timeout=10.0)
    return store.limiter(LimiterSpec("bench", (GCRA(limit, PER, min(limit, 1_000_000_000)),)))


def _ours(client: Any, server: Server, limit: int) -> Decide:
    limiter = _limiter(client, limit)

    async def decide() -> bool:
        booking = await limiter.acquire("tenant", (1,), 0.0)
        allowed: bool = booking.decision.allowed
        return allowed

    return decide


def _bare(client: Any, server: Server, limit: int) -> Decide:
    """Our script with the same arguments, sent by hand."""
    limiter = _limiter(client, limit)
    script, keys, arguments = limiter._call("acquire", "tenant", "0", limiter._arguments(1))
    command = script.by_sha(keys, arguments)
    loaded = False

    async def decide() -> bool:
        nonlocal loaded
        if not loaded:
            await client.script_load(script.source)
            loaded = True
        reply = await client.execute_command(*command)
        return int(reply[0]) == 1

    return decide


def _limits(strategy: str) -> Callable[[Any, Server, int], Decide]:
    def make(client: Any, server: Server, limit: int) -> Decide:
        limits = module("limits")
        storage = module("limits", "aio.storage").RedisStorage(
            f"async+{server.url}", implementation="redispy", connection_pool=client.connection_pool
        )
        limiter: Any = getattr(module("limits", "aio.strategies"), strategy)(storage)
        item, key = limits.RateLimitItemPerHour(limit), fresh()
        return lambda: limiter.hit(item, key)

    return make


def _throttled(algorithm: str) -> Callable[[Any, Server, int], Decide]:
    def make(client: Any, server: Server, limit: int) -> Decide:
        throttled = module("throttled-py", "asyncio")
        store = throttled.RedisStore(server=server.url, options={"CONNECTION_POOL_KWARGS": {"max_connections": 1000}})
        quota = throttled.per_duration(timedelta(seconds=PER), limit, burst=limit)
        limiter: Any = throttled.Throttled(key=fresh(), using=algorithm, quota=quota, store=store)

        async def decide() -> bool:
            return not (await limiter.limit()).limited

        return decide

    return make


def _pyrate(client: Any, server: Server, limit: int) -> Decide:
    library = module("pyrate-limiter")
    store = library.RedisStateStore(client, fresh())
    bucket = library.StateBucket([library.Rate(limit, PER * 1000)], algorithm=library.GCRA(), store=store)
    limiter: Any = library.Limiter(bucket)
    return lambda: limiter.try_acquire_async("bench", blocking=False)


LIBRARIES: list[tuple[str, str, Callable[[Any, Server, int], Decide]]] = [
    (BARE, "", _bare),
    (OURS, OURS, _ours),
    ("limits fixed window", "limits", _limits("FixedWindowRateLimiter")),
    ("limits sliding counter", "limits", _limits("SlidingWindowCounterRateLimiter")),
    ("throttled-py GCRA", "throttled-py", _throttled("gcra")),
    ("throttled-py fixed window", "throttled-py", _throttled("fixed_window")),
    ("pyrate-limiter GCRA", "pyrate-limiter", _pyrate),
]
