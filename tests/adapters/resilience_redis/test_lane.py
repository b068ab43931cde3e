"""What goes over the lent connection, and what a store makes of servers that talk nonsense."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import InvalidResponse

from resilience.errors import StoreUnavailableError
from resilience.limits.limiter_state import LimiterSpec
from resilience.machines.rate_limiter import GCRA
from resilience_redis import RedisStore
from resilience_redis.connection.resp import Replies
from resilience_redis.scripts import script_of
from resilience_redis.server import Server
from tests.support.redis import sync_client

PATIENT = 5.0  # seconds a call may take on a busy test machine, where the deadline is not the point
SPEC = LimiterSpec("lane", (GCRA(1000, 1e6),))


def own_client(url: str, **options: Any) -> Any:
    """A client of a kind of the user's own, which lends no connection."""

    class Own(redis.asyncio.Redis):
        pass

    make: Any = Own
    return make.from_url(url, retry=Retry(NoBackoff(), 0), **options)


def client(url: str, **options: Any) -> Any:
    make: Any = redis.asyncio.Redis
    return make.from_url(url, retry=Retry(NoBackoff(), 0), **options)


@asynccontextmanager
async def impostor(answer: Callable[[Sequence[bytes]], bytes]) -> AsyncGenerator[str]:
    """A server that says OK to everything but scripts; return its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = Replies(RuntimeError)
        while data := await reader.read(65536):
            for command in commands.feed(data):
                writer.write(answer(command) if command[0] == b"EVALSHA" else b"+OK\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}?protocol=2"
    finally:
        server.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("make", [client, own_client])
async def test_an_event_loop_that_was_held_up_is_no_outage(
    redis_server: Server, redis_prefix: str, make: Callable[..., Any]
) -> None:
    connected = make(redis_server.url)
    async with RedisStore(connected, prefix=redis_prefix, timeout=0.1) as store:
        limiter = store.limiter(SPEC)
        while True:
            try:
                await limiter.acquire("warm", (1,), 0.0)
                break
            except StoreUnavailableError:
                await asyncio.sleep(0.01)
        outages = store.link().outages
        task = asyncio.create_task(limiter.acquire("a", (1,), 0.0))
        for _ in range(3):  # until it is on its way
            await asyncio.sleep(0)
        time.sleep(0.2)
        assert (await task).decision.allowed
        assert store.link().outages == outages
    await connected.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("decode", [False, True])
async def test_settings_of_the_client_change_no_answer(
    redis_server: Server, redis_prefix: str, protocol: int, decode: bool
) -> None:
    connected = client(redis_server.url, protocol=protocol, decode_responses=decode)
    async with RedisStore(connected, prefix=redis_prefix, timeout=PATIENT) as store:
        limiter = store.limiter(SPEC)
        bookings = await asyncio.gather(*(limiter.acquire("ключ", (1,), 0.0) for _ in range(300)))
        assert all(each.decision.allowed for each in bookings)
        assert (await limiter.peek("ключ", (1,))).remaining[0] == pytest.approx(700, abs=0.1)
        await limiter.refund("ключ", (1,), bookings[-1].stamp)
        assert (await limiter.peek("ключ", (1,))).remaining[0] == pytest.approx(701, abs=0.1)
    await connected.aclose()


@pytest.mark.asyncio
async def test_a_key_that_has_no_bytes_spoils_nothing_for_others(redis_server: Server, redis_prefix: str) -> None:
    async with RedisStore.from_url(redis_server.url, prefix=redis_prefix, timeout=PATIENT) as store:
        limiter = store.limiter(SPEC)
        good, bad, other = await asyncio.gather(
            limiter.acquire("a", (1,), 0.0),
            limiter.acquire("\ud800", (1,), 0.0),
            limiter.acquire("b", (1,), 0.0),
            return_exceptions=True,
        )
        assert isinstance(bad, UnicodeEncodeError)
        assert not isinstance(good, BaseException)
        assert not isinstance(other, BaseException)
        echo = script_of("_prelude")
        with pytest.raises(UnicodeEncodeError):
            await store.link().run(echo, [f"{redis_prefix}\ud800"], [])
        assert store.link().available


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 400 Bad Request\r\n", b"$5\r\nhel"],
    ids=["rubbish", "half"],
)
async def test_a_server_that_talks_nonsense_is_away(answer: bytes) -> None:
    async with impostor(lambda _: answer) as url, RedisStore.from_url(url, timeout=0.3) as store:
        link = store.link()
        with pytest.raises(StoreUnavailableError):
            await link.run(script_of("_prelude"), ["{a}"], ["x"])
        assert link.outages == 1


@pytest.mark.asyncio
async def test_a_connection_with_more_answers_than_questions_is_not_used_again() -> None:
    async with impostor(lambda _: b"+one\r\n+too many\r\n") as url:
        async with RedisStore.from_url(url, timeout=PATIENT) as store:
            for _ in range(3):
                assert await store.link().run(script_of("_prelude"), ["{a}"], ["x"]) == b"one"


@pytest.mark.asyncio
async def test_an_answer_that_is_none_of_ours_fails_its_callers_alone() -> None:
    async with impostor(lambda _: b"$5\r\nhello\r\n") as url, RedisStore.from_url(url, timeout=PATIENT) as store:
        limiter = store.limiter(SPEC)
        answers = await asyncio.gather(
            limiter.acquire("a", (1,), 0.0), limiter.acquire("a", (1,), 0.0), return_exceptions=True
        )
        assert {type(each) for each in answers} == {InvalidResponse}
        assert await store.link().run(script_of("_prelude"), ["{a}"], ["x"]) == b"hello"


@pytest.mark.asyncio
async def test_pushed_messages_are_no_answers() -> None:
    pushed = b">2\r\n+invalidate\r\n*1\r\n+key\r\n$5\r\nhello\r\n"
    async with impostor(lambda _: pushed) as url, RedisStore.from_url(url, timeout=PATIENT) as store:
        for _ in range(3):
            assert await store.link().run(script_of("_prelude"), ["{a}"], ["x"]) == b"hello"


@pytest.mark.asyncio
async def test_what_is_posted_is_carried_out_and_background_work_goes_on(
    redis_server: Server, redis_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    rounds = 0

    async def work() -> None:
        nonlocal rounds
        rounds += 1
        raise StoreUnavailableError("away") if rounds % 2 else ValueError("oops")

    async def fail() -> None:
        raise ValueError("once")

    async with RedisStore.from_url(redis_server.url, prefix=redis_prefix, timeout=PATIENT) as store:
        link = store.link()
        members = (script_of("_prelude", "members"), [f"{{{redis_prefix}}}"])
        link.post(*members, ["beat", "", "somebody", "60000000"]).cancel()
        with caplog.at_level(logging.ERROR, "resilience.redis"):
            stop = link.every(0.001, work)
            link.start(fail())
            while rounds < 6:
                await asyncio.sleep(0.001)
            stop()
            stop()
            await asyncio.sleep(0.01)
        seen, known = rounds, [each.message for each in caplog.records]
        assert sorted(known) == ["background work failed", "background work failed, and goes on"]
        with sync_client(redis_server.url) as behind:
            assert behind.zcard(f"{{{redis_prefix}}}") == 1
        await asyncio.sleep(0.01)
        assert rounds == seen


@pytest.mark.asyncio
async def test_members_are_counted_while_they_live(redis_server: Server, redis_prefix: str) -> None:
    stores = [RedisStore.from_url(redis_server.url, prefix=redis_prefix, timeout=PATIENT) for _ in range(3)]
    async with stores[0], stores[1]:
        async with stores[2]:
            for store in stores:
                store.link().members.join()
                store.link().members.join()
            async with asyncio.timeout(PATIENT):
                while [each.link().members.count for each in stores] != [3, 3, 3]:
                    await asyncio.sleep(0.01)
        async with asyncio.timeout(PATIENT):
            while [each.link().members.count for each in stores[:2]] != [2, 2]:
                await asyncio.sleep(0.01)


def test_a_cluster_client_must_not_retry() -> None:
    make: Any = redis.asyncio.RedisCluster
    with pytest.raises(ValueError, match="must not retry, this one does so 10 times"):
        RedisStore(make(host="127.0.0.1", port=1))
    with pytest.deprecated_call():
        RedisStore(make(host="127.0.0.1", port=1, cluster_error_retry_attempts=0))
    RedisStore(make(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 0)))


@pytest.mark.asyncio
async def test_a_connection_that_was_closed_while_it_rested_fails_nobody(own_server: Server) -> None:
    connected = client(own_server.url, protocol=3)
    async with RedisStore(connected, timeout=PATIENT) as store:
        limiter = store.limiter(SPEC)
        await limiter.acquire("a", (1,), 0.0)
        await store._lane().drain()  # back in its pool
        with sync_client(own_server.url) as admin:
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asyncio.sleep(0.05)
        await limiter.acquire("a", (1,), 0.0)
        assert store.link().outages == 0
    await connected.aclose()


@pytest.mark.asyncio
async def test_who_asks_in_the_turn_in_which_the_server_goes_away_hears_it_too() -> None:
    async with RedisStore.from_url("redis://127.0.0.1:1", timeout=PATIENT) as store:
        lane, limiter = store._lane(), store.limiter(SPEC)
        asking = asyncio.create_task(limiter.acquire("a", (1,), 0.0))
        await asyncio.sleep(0)
        lane.guard.missed(ConnectionError("gone"), certain=True)
        with pytest.raises(StoreUnavailableError, match="gone"):
            await asking
        for operation in (limiter.peek("a", (1,)), limiter.reset("a"), store.link().run(script_of("_prelude"), [], [])):
            with pytest.raises(StoreUnavailableError, match="Redis is away"):
                await operation
