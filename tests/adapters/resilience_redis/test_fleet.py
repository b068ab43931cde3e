"""Many callers on one limit: processes, overload, a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from resilience.limits.limiter_state import LimiterSpec
from resilience.machines.rate_limiter.rule import text
from resilience_redis import RedisStore
from resilience_redis.scripts import script_for
from resilience_redis.server import Server, find_server, start_server
from tests.support.redis import sync_client
from tests.support.rules import ALGORITHMS, LONG, AnyRule, make_rule, promise

PROCESSES = 8


def hammered(url: str, prefix: str, *numbers: object) -> list[dict[str, float]]:
    command = [sys.executable, "-m", "tests.support.hammer", url, prefix, *map(str, numbers)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)]
    replies = [process.communicate(timeout=60)[0] for process in running]
    return [json.loads(reply) for reply in replies]


@pytest.mark.long
@pytest.mark.parametrize(
    ("algorithm", "rate", "burst", "max_wait"),
    [
        # A burst of 1 cannot be kept busy by callers that do not wait: they miss the moment it is there.
        *(("gcra", 200, burst, 0.5) for burst in (1, 20)),
        *(("gcra", 200, burst, 0.0) for burst in (90, 400, 2000)),
        ("token_bucket", 200, 90, 0.0),
        *(pytest.param("token_bucket", 200, burst, 0.5, marks=pytest.mark.full) for burst in (1, 20)),
        *(pytest.param("token_bucket", 200, burst, 0.0, marks=pytest.mark.full) for burst in (20, 400, 2000)),
        pytest.param("gcra", 200, 20, 0.0, marks=pytest.mark.full),
        *((algorithm, 200, 200, 0.0) for algorithm in ("fixed_window", "sliding_window", "sliding_log")),
        ("leaky_bucket", 50, 1, 0.5),
    ],
)
def test_eight_processes_get_exactly_what_one_limit_allows(
    own_server: Server, algorithm: str, rate: float, burst: float, max_wait: float
) -> None:
    seconds = 4.9 if LONG else 1.9  # just below whole periods
    with sync_client(own_server.url) as admin:
        admin.script_load(script_for(algorithm).source)
        results = hammered(own_server.url, "fleet", algorithm, rate, 1.0, burst, max_wait, seconds, PROCESSES)
        stats: dict[str, Any] = admin.info("commandstats")
    admitted = sum(each["admitted"] for each in results)
    calls = sum(each["calls"] for each in results)
    lasted = max(each["last"] for each in results) - min(each["first"] for each in results)
    rule = make_rule(algorithm, rate, 1.0, burst)
    # The callers' clocks enclose the server's: they all try for `seconds`, and the last answer came later.
    least, most = 0.99 * promise(rule, seconds), promise(rule, lasted)
    if algorithm in ("fixed_window", "sliding_window", "sliding_log"):  # what they give depends on when one begins
        least = 0.99 * overload(rule, max(each["began"] for each in results), min(each["ended"] for each in results))
        most = overload(rule, min(each["began"] for each in results), max(each["ended"] for each in results)) + 1
    print(f"{algorithm}, burst {burst}: {admitted:.0f} in [{least:.1f}, {most:.1f}], {calls:.0f} calls")
    assert least <= admitted <= most
    scripts = sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))
    # Beside a peek of each process, and what it tells the catalogue, perhaps with the source of that script.
    assert scripts - 3 * PROCESSES <= calls, "one script call per acquire"


def overload(rule: AnyRule, began: float, ended: float) -> float:
    """How many a rule admits that is asked ten thousand times a second, on the server's clock."""
    state: Any = None
    admitted = 0
    for step in range(int((ended - began) * 10_000)):
        now = began + step / 10_000
        if rule.wait(state, now, 1) <= 0.0:
            state = rule.take(state, now, 1, 0.0)
            admitted += 1
    return admitted


GRID = [
    (algorithm, limit, burst)
    for algorithm in ALGORITHMS
    for limit in ((2.0, 10.0, 100.0) if LONG else (2.0, 10.0))
    for burst in ((1.0, limit / 4, 10 * limit) if algorithm in ("gcra", "token_bucket") else (1.0,))
    if burst >= 1
]


@pytest.mark.parametrize(("algorithm", "limit", "burst"), GRID)
def test_overload_gets_the_promised_rate_and_no_more(
    plain_redis: Any, redis_prefix: str, algorithm: str, limit: float, burst: float
) -> None:
    period, periods = 1e6, 12
    rule = make_rule(algorithm, limit, period, burst)
    script = script_for(algorithm)
    plain_redis.script_load(script.source)
    patience = period if algorithm == "leaky_bucket" else 0.0  # a pacer cannot be kept busy without waiting
    with plain_redis.pipeline(transaction=False) as pipeline:
        for call in range(int(20 * limit * periods)):
            now = 1_800_000_000_000_000 + int(call * period / limit / 20)
            arguments = ["acquire", str(now), text(limit), text(period), text(burst), "1", text(patience), "1"]
            pipeline.execute_command(*script.by_sha([redis_prefix], arguments))
        admitted = sum(reply.startswith(b"1") for reply in pipeline.execute())
    assert 0.95 * limit * periods <= admitted <= promise(rule, periods * period + patience)


def _cluster(url: str, **options: Any) -> Any:
    make: Any = redis.asyncio.RedisCluster
    return make.from_url(url, **options)


@pytest.mark.asyncio
async def test_a_cluster_client_is_used_as_it_is() -> None:
    with start_server("--cluster-enabled", "yes") as server:
        with sync_client(server.url) as admin:
            admin.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
            deadline = time.monotonic() + 20
            while admin.cluster("INFO")["cluster_state"] != "ok":
                assert time.monotonic() < deadline, "the cluster never became writable"
                time.sleep(0.05)
        client = _cluster(server.url, retry=Retry(NoBackoff(), 0))
        async with RedisStore(client, timeout=5.0) as store:
            rules = (make_rule("gcra", 10, 3600.0), make_rule("gcra", 20, 7200.0))
            limiter = store.limiter(LimiterSpec("cluster", rules))
            bookings = await asyncio.gather(*(limiter.acquire(key, (4, 4), 0.0) for key in "abcabcabc"))
            assert [each.decision.allowed for each in bookings] == [True] * 6 + [False] * 3
            assert (await limiter.acquire("d", (1, 1), 0.0)).decision.allowed
        await client.aclose()
        retrying = _cluster(server.url)
        with pytest.raises(ValueError, match="must not retry"):
            RedisStore(retrying)
        await retrying.aclose()


@contextlib.contextmanager
def _sentinel(folder: Path, master: Server) -> Generator[int]:
    """A Sentinel that watches one master; yields its port."""
    binary = find_server()
    assert binary is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    configuration = folder / "sentinel.conf"
    where = master.url.rpartition(":")[2]
    configuration.write_text(f"bind 127.0.0.1\nport {port}\nsentinel monitor main 127.0.0.1 {where} 1\n")
    process = subprocess.Popen([binary, configuration, "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.mark.asyncio
async def test_a_sentinel_master_is_used_as_it_is(own_server: Server, tmp_path: Path) -> None:
    with _sentinel(tmp_path, own_server) as port:
        make: Any = redis.asyncio.Sentinel
        sentinel = make([("127.0.0.1", port)], retry=Retry(NoBackoff(), 0))
        async with asyncio.timeout(20):
            while True:
                try:
                    assert await sentinel.discover_master("main")
                    break
                except RedisError:
                    await asyncio.sleep(0.02)
        client = sentinel.master_for("main", retry=Retry(NoBackoff(), 0))
        async with RedisStore(client, timeout=5.0) as store:
            limiter = store.limiter(LimiterSpec("sentinel", (make_rule("gcra", 10, 3600.0),)))
            bookings = await asyncio.gather(*(limiter.acquire(key, (4,), 0.0) for key in "abcabcabc"))
            assert [each.decision.allowed for each in bookings] == [True] * 6 + [False] * 3
        await client.aclose()
        for each in sentinel.sentinels:
            await each.aclose()
