"""Shared circuits outlive what happens to their servers: in a cluster, with Sentinels, on one that forgets scripts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from resilience import BreakerState, CircuitBreaker, CircuitOpenError
from resilience_redis import RedisStore
from tests.support.cluster import cluster
from tests.support.failures import DownError
from tests.support.sentinels import sentinels
from tests.support.servers import PATIENCE, node, replica_of

pytestmark = pytest.mark.asyncio

CLOSED, OPEN, HALF_OPEN, ISOLATED = BreakerState


async def answer() -> str:
    return "up"


async def fail() -> str:
    raise DownError


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def pair(one: Any, other: Any) -> AsyncGenerator[list[CircuitBreaker]]:
    """Breakers of two processes, each with a client of its own."""
    options: dict[str, Any] = {"minimum_calls": 4, "count": 8, "open_for": 1.0, "jitter": 0.0, "probes": 2}
    async with RedisStore(one, timeout=5.0) as first, RedisStore(other, timeout=5.0) as second:
        yield [CircuitBreaker(name="db", store=store, **options) for store in (first, second)]


async def open_both(breakers: list[CircuitBreaker], key: str = "") -> None:
    for breaker in breakers:
        for _ in range(2):
            assert not (await breaker.bind(key=key).outcome(fail)).ok
    await until(lambda: all(breaker.state(key) is OPEN for breaker in breakers))


async def close_both(breakers: list[CircuitBreaker], key: str = "") -> None:
    """Call until probes have closed it for both."""
    async with asyncio.timeout(PATIENCE):
        while any(breaker.state(key) is not CLOSED for breaker in breakers):
            for breaker in breakers:
                with contextlib.suppress(CircuitOpenError):
                    assert await breaker.bind(key=key).call(answer) == "up"
            await asyncio.sleep(0.01)


async def test_in_a_cluster() -> None:
    with cluster(masters=3) as servers:
        async with servers.client() as one, servers.client() as other, pair(one, other) as breakers:
            for key in ("eu", "us"):
                await open_both(breakers, key)
                await close_both(breakers, key)
            breakers[0].isolate("eu")
            await until(lambda: breakers[1].state("eu") is ISOLATED)


async def test_a_slot_that_moves() -> None:
    with cluster(masters=3) as servers:
        async with servers.client() as one, servers.client() as other, pair(one, other) as breakers:
            await open_both(breakers)
            slot = servers.slot_of("{resilience:breakers}")
            target = next(each for each in servers.masters() if each is not servers.master_of(slot))
            await asyncio.to_thread(servers.move, slot, target)
            await close_both(breakers)
            await open_both(breakers)


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "ordered"])
async def test_a_sentinel_failover(killed: bool) -> None:
    with node() as master, replica_of(master) as replica, sentinels(master, [replica]) as watch:
        async with watch.client() as one, watch.client() as other, pair(one, other) as breakers:
            breakers[1].isolate("eu")
            await open_both(breakers)
            await until(lambda: breakers[0].state("eu") is ISOLATED)
            master.wait_until_replicated()
            if killed:
                master.kill()
                await asyncio.to_thread(watch.wait_for_another_master)
            else:
                await asyncio.to_thread(watch.failover)
            began = time.monotonic()
            await close_both(breakers)
            assert breakers[0].state("eu") is ISOLATED
            breakers[1].reset("eu")
            await until(lambda: breakers[0].state("eu") is CLOSED)
            print(f"\nall together again {time.monotonic() - began:.2f} s after there was a new master")


async def test_scripts_are_forgotten() -> None:
    with node() as server, server.client() as admin:
        first, second = (RedisStore.from_url(server.url, timeout=5.0) for _ in "12")
        async with first, second:
            breakers = [
                CircuitBreaker(name="db", store=store, minimum_calls=4, open_for=0.2) for store in (first, second)
            ]
            for _ in range(2):
                await open_both(breakers)
                admin.script_flush()
                await close_both(breakers)
                admin.script_flush()
