"""RedisCache against a real server: several stores stand for as many processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import redis.asyncio
import trio

from resilience import Cache, PickleCodec, StoreUnavailableError
from resilience.caching.cache_state import CacheSpec, Life
from resilience.caching.codecs import JsonCodec
from resilience.events import StoreDegraded, StoreRecovered
from resilience.machines.cache import CacheRule
from resilience.testing import EventRecorder
from resilience_redis import RedisStore
from resilience_redis.cache import RedisCache
from resilience_redis.server import Server
from tests.support.counted import Counted

PATIENT = 5.0  # seconds a command may take on a busy test machine, where the deadline is not the point

pytestmark = pytest.mark.asyncio

current = Counted()


async def fetch(key: object = "a") -> Any:
    return await current.run(key)


@pytest.fixture
def counted() -> Counted:
    global current
    current = Counted(seconds=0.05)
    return current


@contextlib.asynccontextmanager
async def stores(server: Server, prefix: str, count: int, **options: Any) -> AsyncGenerator[list[RedisStore]]:
    """As many stores, each with connections of its own."""
    options = {"timeout": PATIENT, **options}
    async with contextlib.AsyncExitStack() as stack:
        made = [RedisStore.from_url(server.url, prefix=prefix, **options) for _ in range(count)]
        for store in made:
            await stack.enter_async_context(store)
        yield made


@contextlib.asynccontextmanager
async def caches(
    server: Server, prefix: str, count: int, ttl: float = 600, **options: Any
) -> AsyncGenerator[list[Cache]]:
    async with stores(server, prefix, count) as made:
        yield [Cache(ttl, name="users", store=store, **options) for store in made]


def calls_of(client: Any, *commands: str) -> int:
    stats = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{command}", {}).get("calls", 0) for command in commands)


async def test_one_run_for_all(redis_server: Server, redis_prefix: str, counted: Counted) -> None:
    async with caches(redis_server, redis_prefix, 5) as each:
        results = await asyncio.gather(*(cache.call(fetch, 1) for cache in each for _ in range(100)))
        assert (set(results), counted.begun) == ({"1 1"}, 1)
        assert await each[0].call(fetch, True) == "True 2"
        assert await each[4].call(fetch, key=1) == "1 1"


async def test_a_hit_is_one_script_call(own_server: Server, counted: Counted, redis_prefix: str) -> None:
    from tests.support.redis import sync_client

    async with caches(own_server, redis_prefix, 1) as (cache,):
        await cache.call(fetch)
        with sync_client(own_server.url) as client:
            before = calls_of(client, "evalsha", "eval", "publish")
            for _ in range(10):
                await asyncio.gather(*(cache.call(fetch) for _ in range(20)))
            assert calls_of(client, "evalsha", "eval", "publish") == before + 10


async def test_who_waits_hears_of_the_end_at_once(redis_server: Server, redis_prefix: str, counted: Counted) -> None:
    counted.seconds = 1.3  # while the others sleep for longer and longer
    async with caches(redis_server, redis_prefix, 2) as (one, other):
        first = asyncio.create_task(one.call(fetch))
        await asyncio.sleep(0.1)
        ends = dict[str, float]()

        async def wait(name: str, call: Any) -> None:
            await call
            ends[name] = time.monotonic()

        await asyncio.gather(wait("one", first), wait("other", other.call(fetch)))
        assert ends["other"] - ends["one"] < 0.2
    assert counted.begun == 1


async def test_a_process_that_gives_up_is_replaced_at_once(
    redis_server: Server, redis_prefix: str, counted: Counted
) -> None:
    counted.seconds = 1.5
    async with caches(redis_server, redis_prefix, 2, lease=30) as (one, other):
        first = asyncio.create_task(one.call(fetch))
        await asyncio.sleep(0.2)
        second = asyncio.create_task(other.call(fetch))
        await asyncio.sleep(0.2)
        first.cancel()
        assert await second == "a 2"
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_a_lease_is_renewed(redis_server: Server, redis_prefix: str, counted: Counted) -> None:
    counted.seconds = 1.2
    async with caches(redis_server, redis_prefix, 2, lease=0.4) as each:
        assert await asyncio.gather(*(cache.call(fetch) for cache in each)) == ["a 1", "a 1"]


async def test_stale_and_spare(redis_server: Server, redis_prefix: str, counted: Counted) -> None:
    options: dict[str, Any] = {"jitter": 0, "beta": 0, "stale_for": 0.3, "stale_if_error": 60, "pause": 0.2}
    async with caches(redis_server, redis_prefix, 2, 0.2, **options) as (one, other):
        await one.call(fetch)
        await asyncio.sleep(0.3)
        assert [*await asyncio.gather(one.call(fetch), other.call(fetch))] == ["a 1", "a 1"]
        await asyncio.sleep(0.15)
        assert (await other.call(fetch), counted.begun) == ("a 2", 2)
        counted.outcomes = [ConnectionError("down"), "new"]
        await asyncio.sleep(0.6)
        assert [*await asyncio.gather(one.call(fetch), other.call(fetch))] == ["a 2", "a 2"]
        assert counted.begun == 3
        await asyncio.sleep(0.25)
        assert await one.call(fetch) == "new"


async def test_put_peek_invalidate_and_clear(
    redis_server: Server, redis_prefix: str, counted: Counted, plain_redis: Any
) -> None:
    async with caches(redis_server, redis_prefix, 2) as (one, other):
        namesake = Cache(600, name="users2", store=_store_of(redis_server, redis_prefix))
        await one.put({"name": "é\ud800"}, fetch, "{x}")
        peeked = await other.peek(fetch, "{x}")
        assert peeked is not None
        assert peeked.value == {"name": "é\ud800"}
        assert await other.invalidate(fetch, "{x}")
        assert not await one.invalidate(fetch, "{x}")
        assert await one.peek(fetch, "{x}") is None
        await asyncio.gather(*(one.call(fetch, key) for key in range(1200)), namesake.call(fetch, 0))
        assert len(list(plain_redis.scan_iter(match=f"*{redis_prefix}*", count=10_000))) == 1201
        await other.clear()
        assert len(list(plain_redis.scan_iter(match=f"*{redis_prefix}*", count=10_000))) == 1
        assert await one.peek(fetch, 3) is None
        assert await namesake.peek(fetch, 0) is not None
        await _close(namesake)


def _store_of(server: Server, prefix: str) -> RedisStore:
    return RedisStore.from_url(server.url, prefix=prefix, timeout=PATIENT)


async def _close(cache: Cache) -> None:
    remote: Any = cache._shared and cache._shared._remote
    await remote._link().aclose()
    await remote._link().lane.wire.client.aclose()


async def test_what_is_dropped_while_it_is_fetched_is_not_stored(
    redis_server: Server, redis_prefix: str, counted: Counted
) -> None:
    counted.seconds = 0.3
    for end in ("invalidate", "clear", "put"):
        async with caches(redis_server, redis_prefix, 2) as (one, other):
            first = asyncio.create_task(one.call(fetch, end))
            await asyncio.sleep(0.1)
            if end == "put":
                await other.put("mine", fetch, end)
            elif end == "invalidate":
                assert not await other.invalidate(fetch, end)
            else:
                await other.clear()
            await first
            peeked = await other.peek(fetch, end)
            assert (peeked and peeked.value) == ("mine" if end == "put" else None)


async def test_nobody_joins_for_long_what_another_process_has_outdated(
    redis_server: Server, redis_prefix: str, counted: Counted
) -> None:
    counted.seconds = 2.5
    async with caches(redis_server, redis_prefix, 2, lease=0.6) as (one, other):
        first = asyncio.create_task(one.call(fetch))
        await asyncio.sleep(0.3)
        await other.put("mine", fetch)
        await asyncio.sleep(1.0)  # the lease is renewed five times a second
        assert await one.call(fetch) == "mine"
        assert await first == "a 1"


async def test_clear_tells_of_an_outage(own_server: Server, redis_prefix: str) -> None:
    async with stores(own_server, redis_prefix, 1, timeout=0.1) as (store,):
        cache = store.cache(spec())
        await cache.store("k", "", "value", "1", Life(60.0))
        assert own_server.pid is not None
        os.kill(own_server.pid, signal.SIGKILL)
        with pytest.raises(StoreUnavailableError):
            await cache.clear()
        with pytest.raises(StoreUnavailableError):
            await cache._drop_all(store.link(), ["k"])


@pytest.mark.parametrize("decode", [True, False])
async def test_codecs_and_clients_that_decode(
    redis_server: Server, redis_prefix: str, counted: Counted, decode: bool
) -> None:
    make: Any = redis.asyncio.Redis
    counted.outcomes = [{"a": [1, None, 2.5, "é"]}, (1, {2})]
    async with make.from_url(redis_server.url, decode_responses=decode) as client:
        async with RedisStore(client, prefix=redis_prefix, timeout=PATIENT) as store:
            for codec in (JsonCodec(), PickleCodec()):
                one, other = (Cache(600, name="users", store=store, codec=codec) for _ in range(2))
                assert await one.call(fetch) == await other.call(fetch)
                await one.clear()
                assert await other.peek(fetch) is None
    assert counted.begun == 2, "forms are kept apart"


def spec(name: str = "users") -> CacheSpec:
    return CacheSpec(name, CacheRule(60), 100, None, None, JsonCodec())


async def test_keys_are_bounded_escaped_and_each_in_a_slot_of_its_own(redis_server: Server, redis_prefix: str) -> None:
    async with stores(redis_server, redis_prefix, 1) as (store,):
        cache: RedisCache = store.cache(spec("a:{b}"))
        key = cache.key("x{1}:y")
        assert key == f"{{{redis_prefix}:a%3A%7Bb%7D:x%7B1%7D%3Ay}}:cache:v1:json"
        assert key.count("{") == key.count("}") == 1
        long = [cache.key("x" * 100_000), cache.key("x" * 100_001), cache.key("\ud800" * 1000)]
        assert len(set(long)) == 3
        assert max(map(len, long)) < 150 + len(redis_prefix)


async def test_entries_expire_a_minute_after_they_mean_anything(
    redis_server: Server, redis_prefix: str, plain_redis: Any
) -> None:
    async with stores(redis_server, redis_prefix, 1) as (store,):
        cache = store.cache(spec())
        await cache.store("k", "", "value", "1", Life(2.0, 3.0, 10.0))
        assert 71_000 < plain_redis.pttl(cache.key("k")) <= 72_000
        await cache.look("l", "token", 5.0, 0.0)
        assert 64_000 < plain_redis.pttl(cache.key("l")) <= 65_000


async def test_a_server_that_is_lost_and_comes_back(own_server: Server, redis_prefix: str, counted: Counted) -> None:
    """Hung for a while: each process works alone, nobody waits longer than the store's timeout, and it comes back."""
    recorder = EventRecorder()
    async with stores(own_server, redis_prefix, 2, timeout=0.25) as made:
        one, other = (Cache(600, name="users", store=store, listeners=[recorder]) for store in made)
        assert await one.call(fetch) == await other.call(fetch) == "a 1"
        assert own_server.pid is not None
        os.kill(own_server.pid, signal.SIGSTOP)
        try:
            longest = 0.0
            for _ in range(3):
                for cache in (one, other):
                    began = time.monotonic()
                    assert await cache.call(fetch) in ("a 2", "a 3")
                    longest = max(longest, time.monotonic() - began)
            assert (await one.call(fetch, "new")).startswith("new")
            with pytest.raises(StoreUnavailableError):
                await one.peek(fetch)
        finally:
            os.kill(own_server.pid, signal.SIGCONT)
        print(f"longest call while the server hung: {longest * 1000:.0f} ms, of which the run took 50 ms")
        assert longest < 1.0
        assert counted.begun == 4
        async with asyncio.timeout(20):
            while one.degraded or other.degraded:
                for cache in (one, other):
                    await cache.call(fetch)
                await asyncio.sleep(0.02)
        assert await one.call(fetch) == "a 1", "what the server kept"
        began = time.monotonic()
        assert await other.call(fetch, "new") == "new 5"
        assert time.monotonic() - began < 1.0, "a lease that was granted when nobody listened any more is given back"
    assert len(recorder.of(StoreDegraded)) == len(recorder.of(StoreRecovered)) == 2


async def test_it_needs_asyncio(redis_server: Server, redis_prefix: str) -> None:
    cache = Cache(600, name="users", store=_store_of(redis_server, redis_prefix))

    async def main() -> None:
        await cache.call(fetch)

    def run() -> None:
        trio.run(main)

    with pytest.raises(RuntimeError, match="RedisStore needs a running asyncio event loop"):
        await asyncio.to_thread(run)


async def test_a_value_of_the_wrong_type_is_told(
    redis_server: Server, redis_prefix: str, plain_redis: Any, counted: Counted
) -> None:
    async with caches(redis_server, redis_prefix, 1) as (cache,):
        remote: Any = cache._shared and cache._shared._remote
        plain_redis.set(remote.key(cache._keys.text(cache._record(fetch, (), {}))), "a string")
        with pytest.raises(Exception, match="WRONGTYPE"):
            await cache.call(fetch)
        assert not cache.degraded
