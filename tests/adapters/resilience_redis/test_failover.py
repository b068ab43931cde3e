"""Another server takes over, or none does: who waits, who does without the store, and how soon all is well."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest

from resilience_redis import RedisStore
from tests.support.callers import SPEC, Caller, all_answered, callers, until
from tests.support.cluster import Cluster, cluster
from tests.support.sentinels import sentinels
from tests.support.servers import PATIENCE, Node, node, replica_of

TIMEOUT = 0.05
SLACK = 0.2  # seconds that a busy test machine may add


async def one_per_server(it: Cluster, store: RedisStore) -> dict[int, str]:
    """For each master, by port, a key that it serves."""
    limiter: Any = store.limiter(SPEC)
    keys: dict[int, str] = {}
    for number in range(100):
        server = await asyncio.to_thread(it.master_of, limiter.keys(str(number))[0])
        keys.setdefault(server.port, str(number))
        if len(keys) == 3:
            return keys
    raise LookupError("no keys for every server")


@pytest.mark.asyncio
async def test_a_server_of_a_cluster_that_dies_harms_only_its_own_keys() -> None:
    # The cluster itself refuses everything once it knows; so let it be slow to find out.
    with cluster(masters=3, node_timeout=PATIENCE) as it:
        async with it.client() as client, RedisStore(client, timeout=PATIENCE) as store:
            keys = await one_per_server(it, store)
            link = store.link()
            heard: list[bool] = []
            stop = link.on_change(heard.append)
            async with callers(store, "cluster, master killed", tuple(keys.values()), at_most=5.0) as everybody:
                dead = it.alive()[0]
                others = [each for port, each in zip(keys, everybody, strict=True) if port != dead.port]
                dead.kill()
                await until(lambda: not link.available)
                await all_answered(others, times=20)
                assert not [each for each in others if each.refused]
                assert heard == [False]
                await asyncio.to_thread(dead.restart)
                assert await all_answered(everybody) < PATIENCE
                await until(lambda: link.available)
            stop()
            stop()
            assert heard == [False, True]
            assert link.outages == 1
            assert link.away_for > 0.0


async def killed(server: Node) -> None:
    server.kill()


async def hung(server: Node) -> None:
    server.pause()


@pytest.mark.asyncio
@pytest.mark.long
@pytest.mark.parametrize("fault", [killed, hung])
async def test_a_replica_takes_over_in_a_cluster(fault: Any) -> None:
    with cluster(masters=3, replicas=1) as it:
        async with it.client() as client, RedisStore(client, timeout=TIMEOUT) as store:
            dead = it.alive()[0]
            key = (await one_per_server(it, store))[dead.port]
            name = f"cluster, master {fault.__name__}"
            async with callers(store, name, (key,), at_most=TIMEOUT + SLACK) as [caller]:
                began = time.monotonic()
                await fault(dead)
                try:
                    await until(lambda: caller.refused)
                    await all_answered([caller])
                    print(f"\n{name}: served by another {time.monotonic() - began:.1f} s later, 1 s to be noticed")
                finally:
                    if dead.pid:
                        dead.resume()


@pytest.mark.asyncio
@pytest.mark.parametrize("way", ["death", "order"])  # ordered, the old master lives on, and takes no writes
async def test_the_new_master_is_found_soon_after_sentinels_have_named_it(way: str) -> None:
    async with AsyncExitStack() as stack:
        master = stack.enter_context(node())
        replica = stack.enter_context(replica_of(master))
        watch = stack.enter_context(sentinels(master, [replica]))
        client = await stack.enter_async_context(watch.client())
        store = await stack.enter_async_context(RedisStore(client, timeout=TIMEOUT))
        async with callers(store, f"Sentinel, {way}", at_most=TIMEOUT + SLACK) as everybody:
            if way == "order":
                await asyncio.to_thread(watch.failover)
            else:
                master.kill()
                await asyncio.to_thread(watch.wait_for_another_master)
            took = await all_answered(everybody, times=10)
            print(f"\nSentinel, {way}: found {took:.2f} s after it was named")
            assert took < 2.0


@pytest.mark.asyncio
async def test_a_lane_to_a_server_that_left_the_cluster_holds_nobody_up() -> None:
    with cluster(masters=3) as it:
        async with it.client() as client, RedisStore(client, timeout=PATIENCE) as store:
            caller = Caller(store)
            await caller.until_answered()
            key: Any = caller.limiter
            slot = await asyncio.to_thread(it.slot_of, key.keys("a")[0])
            source = await asyncio.to_thread(it.master_of, slot)
            target = next(each for each in it.alive() if each is not source)
            await asyncio.to_thread(it.move, slot, target)
            assert await caller.ask(), "redis-py follows"
            assert store.link().outages == 0
