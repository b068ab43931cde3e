"""What is published reaches those who listen, and they hear when they may have missed something."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from resilience_redis import RedisStore
from resilience_redis.link import Link
from resilience_redis.server import Server
from tests.support.cluster import cluster
from tests.support.proxy import proxy_to
from tests.support.redis import sync_client
from tests.support.sentinels import sentinels
from tests.support.servers import PATIENCE, node, replica_of


class Reader:
    """Keeps what it heard."""

    def __init__(self, link: Link, channel: str = "news") -> None:
        self.heard: list[str | None] = []
        self.stop = link.subscribe(channel, self.heard.append)

    async def until(self, condition: Callable[[list[str | None]], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition(self.heard):
                await asyncio.sleep(0.005)


def publish(url: str, message: str, channel: str = "news") -> int:
    with sync_client(url) as client:
        return int(client.publish(channel, message))


@pytest.mark.asyncio
async def test_everybody_hears_the_news_of_their_channels(redis_server: Server, redis_prefix: str) -> None:
    one, two = f"{redis_prefix}:1", f"{redis_prefix}:2"
    async with RedisStore.from_url(redis_server.url) as store:
        link = store.link()
        first, second = Reader(link, one), Reader(link, one)
        await second.until(lambda heard: heard == [None])
        other, late = Reader(link, two), Reader(link, one)
        await other.until(lambda heard: heard == [None])
        await late.until(lambda heard: heard == [None])
        publish(redis_server.url, "a", one)
        publish(redis_server.url, "ключ", two)
        await other.until(lambda heard: heard == [None, "ключ"])
        for each in (first, second, late):
            await each.until(lambda heard: heard == [None, "a"])
        for each in (first, second, late, late):
            each.stop()
        again = Reader(link, one)
        await again.until(lambda heard: heard == [None])
        assert publish(redis_server.url, "b", one) == 1, "one connection for all"
        await again.until(lambda heard: heard == [None, "b"])
        assert late.heard == [None, "a"]


@pytest.mark.asyncio
async def test_a_listener_that_fails_is_logged_and_harms_nobody(
    redis_server: Server, redis_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: str | None) -> None:
        raise RuntimeError("oops")

    async with RedisStore.from_url(redis_server.url) as store:
        link = store.link()
        link.subscribe(redis_prefix, fail)
        reader = Reader(link, redis_prefix)
        with caplog.at_level(logging.ERROR, "resilience.redis"):
            await reader.until(lambda heard: heard == [None])
        assert "oops" in caplog.text


@pytest.mark.asyncio
@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("decode", [False, True])
async def test_the_pool_of_the_user_has_no_connection_less(own_server: Server, protocol: int, decode: bool) -> None:
    make: Any = redis.asyncio.Redis
    options = {"max_connections": 2, "protocol": protocol, "decode_responses": decode, "retry": Retry(NoBackoff(), 0)}
    client = make.from_url(own_server.url, **options)
    async with RedisStore(client) as store:
        link = store.link()
        reader = Reader(link)
        await reader.until(lambda heard: heard == [None])
        assert not client.connection_pool._in_use_connections
        publish(own_server.url, "a")
        await reader.until(lambda heard: heard == [None, "a"])
    await client.aclose()


@pytest.mark.asyncio
async def test_after_an_outage_listeners_are_told_to_look_for_themselves() -> None:
    with node() as server:
        async with RedisStore.from_url(server.url) as store:
            reader = Reader(store.link())
            await reader.until(lambda heard: heard == [None])
            server.kill()
            reader.heard.clear()
            await asyncio.sleep(0.1)
            await asyncio.to_thread(server.restart)
            await reader.until(lambda heard: None in heard)
            publish(server.url, "a")
            await reader.until(lambda heard: heard[-1] == "a")


@pytest.mark.asyncio
async def test_a_silent_way_is_left_for_a_new_one(own_server: Server) -> None:
    async with proxy_to(int(own_server.url.rpartition(":")[2])) as proxy:
        async with RedisStore.from_url(proxy.url) as store:
            reader = Reader(store.link())
            await reader.until(lambda heard: heard == [None])
            await asyncio.sleep(1.2)
            assert reader.heard == [None], "a server that has nothing to tell is asked, and left alone if it answers"
            proxy.swallow()
            await asyncio.sleep(0.1)
            publish(own_server.url, "lost")
            await asyncio.sleep(2.5)
            await proxy.restore()
            await reader.until(lambda heard: heard == [None, None])


@pytest.mark.asyncio
async def test_who_may_not_listen_is_told_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with node() as server:
        url = server.url_of_user("deaf", "~*", "+@all", "resetchannels")
        with caplog.at_level(logging.WARNING, "resilience.redis"):
            async with RedisStore.from_url(url) as store:
                reader = Reader(store.link())
                await asyncio.sleep(0.9)
                assert reader.heard == []
    assert len([each for each in caplog.records if "no news from Redis" in each.message]) == 1


@asynccontextmanager
async def through_sentinels() -> AsyncGenerator[tuple[Any, Callable[[], str], Callable[[], None]]]:
    async with AsyncExitStack() as stack:
        master = stack.enter_context(node())
        replica = stack.enter_context(replica_of(master))
        watch = stack.enter_context(sentinels(master, [replica]))
        client = await stack.enter_async_context(watch.client())

        def fail_over() -> None:
            watch.master.kill()
            watch.wait_for_another_master()

        yield client, lambda: watch.master.url, fail_over


@asynccontextmanager
async def of_a_cluster() -> AsyncGenerator[tuple[Any, Callable[[], str], Callable[[], None]]]:
    async with AsyncExitStack() as stack:
        it = stack.enter_context(cluster(masters=3))
        client = await stack.enter_async_context(it.client())

        def kill_whom_we_listen_to() -> None:
            for each in it.alive():
                with each.client() as admin:
                    if admin.pubsub_numsub("news")[0][1]:
                        each.kill()

        yield client, lambda: it.alive()[0].url, kill_whom_we_listen_to


@pytest.mark.asyncio
@pytest.mark.parametrize("place", [through_sentinels, of_a_cluster])
async def test_news_come_from_another_server_when_one_is_gone(place: Any) -> None:
    async with place() as (client, url, fail), RedisStore(client) as store:
        reader = Reader(store.link())
        await reader.until(lambda heard: heard == [None])
        publish(url(), "a")
        await reader.until(lambda heard: heard == [None, "a"])
        reader.heard.clear()
        await asyncio.to_thread(fail)
        await reader.until(lambda heard: None in heard)
        publish(url(), "b")
        await reader.until(lambda heard: heard[-1] == "b")
