"""Limits are right before a fault, and again after it: on one server, with Sentinels, in a cluster."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Generator
from typing import Any

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisClusterException, ResponseError

from resilience.errors import StoreUnavailableError
from resilience.limits.limiter_state import LimiterSpec
from resilience.machines.rate_limiter import GCRA
from resilience_redis import RedisStore
from tests.support.cluster import Cluster, cluster
from tests.support.sentinels import sentinels
from tests.support.servers import DURABLE, PATIENCE, node, replica_of

LIMIT = LimiterSpec("topology", (GCRA(3, 1e6),))
LIMITS = LimiterSpec("topologies", (GCRA(3, 1e6), GCRA(4, 1e6)))
KEYS = tuple("abcdefgh")


async def taken(store: RedisStore, wanted: int, keys: tuple[str, ...] = KEYS, spec: LimiterSpec = LIMIT) -> list[int]:
    """How many units each key grants when it is asked for so many, one by one."""
    limiter, costs = store.limiter(spec), (1,) * len(spec.rules)
    granted: list[int] = []
    for key in keys:
        bookings = [await limiter.acquire(key, costs, 0.0) for _ in range(wanted)]
        granted.append(sum(each.decision.allowed for each in bookings))
    return granted


async def back(store: RedisStore, keys: tuple[str, ...] = KEYS) -> None:
    """Wait until the store answers for every key; asking takes nothing."""
    limiter = store.limiter(LIMIT)
    async with asyncio.timeout(PATIENCE):
        for key in keys:
            while True:
                try:
                    await limiter.peek(key, (1,))
                    break
                except StoreUnavailableError:
                    await asyncio.sleep(0.02)


async def away(store: RedisStore, key: str = "a") -> None:
    """The store says so."""
    with pytest.raises(StoreUnavailableError):
        await store.limiter(LIMIT).acquire(key, (1,), 0.0)


def store_at(url: str, timeout: float = PATIENCE) -> RedisStore:
    return RedisStore.from_url(url, timeout=timeout)


@pytest.mark.asyncio
@pytest.mark.parametrize(("options", "empty", "left"), [(DURABLE, False, 1), (DURABLE, True, 3), ((), False, 3)])
async def test_a_server_that_is_killed_and_comes_back(options: tuple[str, ...], empty: bool, left: int) -> None:
    with node(*options) as server:
        async with store_at(server.url) as store:
            assert await taken(store, 2) == [2] * len(KEYS)
            server.kill()
            await away(store)
            server.restart(empty=empty)
            await back(store)
            assert await taken(store, 4) == [left] * len(KEYS)


@pytest.mark.asyncio
async def test_a_server_that_hangs() -> None:
    with node() as server:
        async with store_at(server.url, timeout=0.2) as store:
            assert await taken(store, 2, ("a",)) == [2]
            with server.paused(), pytest.raises(StoreUnavailableError):
                await store.limiter(LIMIT).peek("a", (1,))
            await back(store, ("a",))
            assert await taken(store, 4, ("a",)) == [1]


@pytest.mark.asyncio
async def test_a_server_without_memory() -> None:
    with node() as server:
        async with store_at(server.url) as store:
            assert await taken(store, 2) == [2] * len(KEYS)
            with server.full():
                await away(store)
            await back(store)
            assert await taken(store, 4) == [1] * len(KEYS)


@pytest.mark.asyncio
async def test_a_server_that_becomes_a_replica_and_a_master_again() -> None:
    with node() as server, node() as other:
        async with store_at(server.url) as store:
            assert await taken(store, 2) == [2] * len(KEYS)
            other.kill()  # so that the replica keeps what it has
            server.replicate(other)
            await away(store)
            server.replicate(None)
            await back(store)
            assert await taken(store, 4) == [1] * len(KEYS)


@pytest.mark.asyncio
async def test_a_replica_that_is_promoted() -> None:
    with node() as master, replica_of(master) as replica:
        async with store_at(master.url) as store:
            assert await taken(store, 2) == [2] * len(KEYS)
        master.wait_until_replicated()
        async with store_at(replica.url) as store:
            await away(store)
            replica.replicate(None)
            await back(store)
            assert await taken(store, 4) == [1] * len(KEYS)


@pytest.mark.asyncio
async def test_a_user_without_permission_is_given_it() -> None:
    with node() as server:
        async with store_at(server.url_of_user("app", "~*", "+ping", "+eval", "+evalsha")) as store:
            with pytest.raises(ResponseError, match=r"ACL failure|can't run this command"):
                await taken(store, 1)
            server.url_of_user("app", "~*", "+@all")
            assert await taken(store, 4) == [3] * len(KEYS)


@pytest.mark.asyncio
async def test_a_server_with_a_password() -> None:
    with node("--requirepass", "secret") as server:
        async with store_at(server.url) as store:
            with pytest.raises(AuthenticationError):
                await taken(store, 1)
        async with store_at(server.url.replace("redis://", "redis://:secret@")) as store:
            assert await taken(store, 4) == [3] * len(KEYS)


@pytest.mark.asyncio
@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.long)])
async def test_sentinels_move_the_master(killed: bool) -> None:
    with node() as master, replica_of(master) as replica, sentinels(master, [replica]) as watch:
        async with watch.client() as client, RedisStore(client, timeout=PATIENCE) as store:
            assert await taken(store, 2) == [2] * len(KEYS)
            master.wait_until_replicated()
            if killed:
                master.kill()
                await asyncio.to_thread(watch.wait_for_another_master)
            else:
                await asyncio.to_thread(watch.failover)
            assert watch.master is replica
            await back(store)
            assert await taken(store, 4) == [1] * len(KEYS)


@pytest.fixture(scope="module")
def three_masters() -> Generator[Cluster]:
    with cluster(masters=3) as it:
        yield it


@pytest.fixture
def masters(three_masters: Cluster) -> Cluster:
    """A cluster without data."""
    for each in three_masters.nodes:
        with each.client() as admin:
            admin.flushall()
            admin.script_flush()
    return three_masters


@pytest.mark.asyncio
async def test_slots_of_a_cluster_that_move_with_their_limits(masters: Cluster) -> None:
    async with masters.client() as client, RedisStore(client, timeout=PATIENCE) as store:
        assert await taken(store, 2) == [2] * len(KEYS)
        limiter = store.limiter(LIMIT)
        for key in KEYS:
            slot = masters.slot_of(limiter.keys(key)[0])
            old = masters.master_of(slot)
            masters.move(slot, next(each for each in masters.masters() if each is not old))
        assert await taken(store, 4) == [1] * len(KEYS)


@pytest.mark.asyncio
async def test_a_slot_on_the_move_serves_both_those_that_went_and_those_that_did_not(masters: Cluster) -> None:
    async with masters.client() as client, RedisStore(client, timeout=PATIENCE) as store:
        assert await taken(store, 2, ("a",)) == [2]
        [key] = store.limiter(LIMIT).keys("a")
        slot = masters.slot_of(key)
        old = masters.master_of(slot)
        new = next(each for each in masters.masters() if each is not old)
        masters.begin_move(slot, new)
        assert await taken(store, 1, ("a",)) == [1], "not gone yet"
        masters.move_keys(slot, new)
        assert await taken(store, 1, ("a",)) == [0], "gone: the new owner is asked"
        masters.finish_move(slot, new)
        assert await taken(store, 1, ("a",)) == [0]


@pytest.mark.asyncio
async def test_limits_of_which_only_one_has_moved_are_an_outage_until_the_other_has(masters: Cluster) -> None:
    async with masters.client() as client, RedisStore(client, timeout=PATIENCE) as store:
        assert await taken(store, 2, ("a",), LIMITS) == [2]
        limiter = store.limiter(LIMITS)
        first, _ = limiter.keys("a")
        slot = masters.slot_of(first)
        old = masters.master_of(slot)
        new = next(each for each in masters.masters() if each is not old)
        masters.begin_move(slot, new)
        with old.client() as admin:
            admin.migrate("127.0.0.1", new.port, [first], 0, 5000)
        with pytest.raises(StoreUnavailableError):
            await limiter.acquire("a", (1, 1), 0.0)
        masters.move_keys(slot, new)
        masters.finish_move(slot, new)
        await back(store, ("a",))
        assert await taken(store, 2, ("a",), LIMITS) == [1]


@pytest.mark.asyncio
@pytest.mark.long
@pytest.mark.parametrize(("replicas", "left"), [(0, 3), (1, 1)])
async def test_a_master_of_a_cluster_is_killed(replicas: int, left: int) -> None:
    with cluster(masters=3, replicas=replicas) as it:
        async with it.client() as client, RedisStore(client, timeout=PATIENCE) as store:
            assert await taken(store, 2) == [2] * len(KEYS)
            owners = {key: it.master_of(store.limiter(LIMIT).keys(key)[0]) for key in KEYS}
            for each in it.masters():
                each.wait_until_replicated(replicas)
            lost = owners["a"]
            lost.kill()
            await away(store)
            if not replicas:
                lost.restart()
            await asyncio.to_thread(it.wait_until_healthy)
            await back(store)
            assert await taken(store, 4) == [left if owners[key] is lost else 1 for key in KEYS]
            if replicas:
                lost.restart()
                await asyncio.to_thread(it.wait_until_healthy)
                assert it.master_of(store.limiter(LIMIT).keys("a")[0]) is not lost


@pytest.mark.asyncio
@pytest.mark.long
async def test_a_whole_cluster_is_away_and_comes_back_empty() -> None:
    with cluster(masters=3) as it:
        async with it.client() as client, RedisStore(client, timeout=PATIENCE) as store:
            assert await taken(store, 2) == [2] * len(KEYS)
            for each in it.nodes:
                each.kill()
            for key in KEYS:
                await away(store, key)
            for each in it.nodes:
                each.restart()
            await asyncio.to_thread(it.wait_until_healthy)
            await back(store)
            assert await taken(store, 4) == [3] * len(KEYS)


@pytest.mark.asyncio
async def test_a_cluster_client_on_a_server_that_is_none_is_a_mistake_and_no_outage() -> None:
    with node() as server:
        make: Any = redis.asyncio.RedisCluster
        client = make(host="127.0.0.1", port=server.port, retry=Retry(NoBackoff(), 0))
        async with RedisStore(client, timeout=PATIENCE) as store:
            with pytest.raises(RedisClusterException, match="Cluster mode is not enabled"):
                await taken(store, 1)
        await client.aclose()


@pytest.mark.parametrize("begin", [node, cluster])
def test_nothing_is_left_behind_by_a_test_that_fails(begin: Any) -> None:
    pids: list[int] = []

    def fail() -> None:
        with begin() as it:
            pids.extend(each.pid for each in (it.nodes if isinstance(it, Cluster) else [it]))
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
