"""Decisions per second of one process through a real Redis: 1, 10, 100 and 1,000 tasks, strict limits.

Bars: with one task at least 0.85 of a bare EVALSHA loop on the same client, with 100 and 1,000 tasks at least 15
times the fastest peer, and exactly as many admitted as the limit says.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import median
from time import perf_counter, process_time
from typing import Any, TypeAlias

from redis.asyncio import BlockingConnectionPool, Redis

from resilience.limits.limiter_state import LimiterSpec
from resilience.machines.rate_limiter import GCRA
from resilience_redis import RedisStore
from resilience_redis.connection.client import no_retries
from resilience_redis.server import Server, start_server
from tests.bench.contest import OURS, fresh
from tests.bench.peers import MissingError, installed, module
from tests.bench.report import Bar, Report, Table


@dataclass(slots=True)
class Place:
    """Where the decisions are made."""

    server: Server
    client: Any
    """For all who take one: a pool of ten that waits when it is empty."""
    others: list[Any] = field(default_factory=list[Any])
    """The clients of those who insist on their own, to be closed."""


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
    async with _place(server) as place:
        makes = {name: make for name, _, make in LIBRARIES}
        decides: dict[str, Decide] = {}
        for name, distribution, make in LIBRARIES:
            try:
                await _must_limit(name, make(place, 5))
                decides[name] = make(place, PLENTY)
            except MissingError as reason:
                report.missing[distribution] = str(reason)
                continue
            if version := installed(distribution):
                report.peers[distribution] = version
        await _speed(report, decides, rounds, seconds)
        for tasks in TASKS[1:]:
            limit = 3 * tasks
            admitted = sum(await _together(makes[OURS](place, limit), tasks, each=5))
            label = f"{tasks} tasks asking {5 * tasks} times: admitted more or less than {limit}"
            report.bars.append(Bar(label, abs(admitted - limit), 0.0))


async def _speed(report: Report, decides: dict[str, Decide], rounds: int, seconds: float) -> None:
    shuffled = random.Random(0)
    for tasks in TASKS:
        rates: dict[str, list[float]] = {name: [] for name in decides}
        costs: dict[str, list[float]] = {name: [] for name in decides}
        order = list(decides)
        for turn in range(rounds + 1):
            shuffled.shuffle(order)
            for name in order:
                rate, cost = await _sample(decides[name], tasks, seconds)
                if turn:  # the first opens the connections
                    rates[name].append(rate)
                    costs[name].append(cost)
        columns = ("", "decisions a second", "client CPU us", "x ours")
        table = Table(f"{tasks} tasks" if tasks > 1 else "1 task", columns, chart="decisions a second")
        for name in sorted(decides, key=lambda name: -median(rates[name])):
            table.add(name, median(rates[name]), median(costs[name]) * 1e6, 1 / _ratio(rates, OURS, name))
        report.tables.append(table)
        report.bars += _bars(rates, tasks)


def _bars(rates: dict[str, list[float]], tasks: int) -> list[Bar]:
    if tasks == 1:
        return [Bar("1 task: ours / bare EVALSHA", _ratio(rates, OURS, BARE), 0.85, at_least=True)]
    peers = [name for name in rates if name not in (OURS, BARE)]
    if tasks < 100 or not peers:
        return []
    fastest = max(peers, key=lambda name: median(rates[name]))
    return [Bar(f"{tasks} tasks: ours / {fastest}", _ratio(rates, OURS, fastest), 15.0, at_least=True)]


def _ratio(rates: dict[str, list[float]], one: str, other: str) -> float:
    """The median of the ratios within each round."""
    return median(mine / theirs for mine, theirs in zip(rates[one], rates[other], strict=True))


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
async def _place(server: Server) -> AsyncGenerator[Place]:
    pool: Any = BlockingConnectionPool
    client: Any = Redis.from_pool(pool.from_url(server.url, max_connections=10, timeout=None, retry=no_retries()))
    place = Place(server, client)
    try:
        yield place
    finally:
        for each in [client, *place.others]:
            await each.aclose()
            await each.connection_pool.disconnect()


def _limiter(client: Any, limit: int) -> Any:
    # No call may give up while a thousand others are served by one core.
    store = RedisStore(client, prefix=fresh("bench"), timeout=10.0)
    return store.limiter(LimiterSpec("bench", (GCRA(limit, PER, min(limit, 1_000_000_000)),)))


def _ours(place: Place, limit: int) -> Decide:
    limiter = _limiter(place.client, limit)

    async def decide() -> bool:
        booking = await limiter.acquire("tenant", (1,), 0.0)
        allowed: bool = booking.decision.allowed
        return allowed

    return decide


class _Recording(Redis):
    """Remembers the last command that was sent."""

    last: tuple[Any, ...] = ()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        self.last = args
        plain: Any = super()
        return await plain.execute_command(*args, **options)


def _bare(place: Place, limit: int) -> Decide:
    """The very command that our store sends for one decision, by hand."""
    command: tuple[Any, ...] = ()

    async def decide() -> bool:
        nonlocal command
        if not command:
            recording = _Recording(connection_pool=place.client.connection_pool)
            limiter = _limiter(recording, limit)
            for _ in range(2):  # the first may have to bring the source
                await limiter.acquire("tenant", (1,), 0.0)
            command = recording.last
            assert command[0] == "EVALSHA"
            await limiter.reset("tenant")
        reply: str | bytes = await place.client.execute_command(*command)
        return reply[:1] in ("1", b"1")

    return decide


def _limits(strategy: str) -> Callable[[Place, int], Decide]:
    def make(place: Place, limit: int) -> Decide:
        limits = module("limits")
        storage = module("limits", "aio.storage").RedisStorage(
            f"async+{place.server.url}", implementation="redispy", connection_pool=place.client.connection_pool
        )
        limiter: Any = getattr(module("limits", "aio.strategies"), strategy)(storage)
        item, key = limits.RateLimitItemPerHour(limit), fresh()
        return lambda: limiter.hit(item, key)

    return make


def _throttled(algorithm: str) -> Callable[[Place, int], Decide]:
    def make(place: Place, limit: int) -> Decide:
        throttled = module("throttled-py", "asyncio")
        store = throttled.RedisStore(
            server=place.server.url, options={"CONNECTION_POOL_KWARGS": {"max_connections": 1000}}
        )
        place.others.append(store._backend.get_client())
        quota = throttled.per_duration(timedelta(seconds=PER), limit, burst=limit)
        limiter: Any = throttled.Throttled(key=fresh(), using=algorithm, quota=quota, store=store)

        async def decide() -> bool:
            return not (await limiter.limit()).limited

        return decide

    return make


def _pyrate(place: Place, limit: int) -> Decide:
    library = module("pyrate-limiter")
    store = library.RedisStateStore(place.client, fresh())
    bucket = library.StateBucket([library.Rate(limit, PER * 1000)], algorithm=library.GCRA(), store=store)
    limiter: Any = library.Limiter(bucket)
    return lambda: limiter.try_acquire_async("bench", blocking=False)


LIBRARIES: list[tuple[str, str, Callable[[Place, int], Decide]]] = [
    (BARE, "", _bare),
    (OURS, OURS, _ours),
    ("limits fixed window", "limits", _limits("FixedWindowRateLimiter")),
    ("limits sliding counter", "limits", _limits("SlidingWindowCounterRateLimiter")),
    ("throttled-py GCRA", "throttled-py", _throttled("gcra")),
    ("throttled-py fixed window", "throttled-py", _throttled("fixed_window")),
    ("pyrate-limiter GCRA", "pyrate-limiter", _pyrate),
]
