"""What goes wrong with a server, done to a real one."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

import pytest
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from resilience.errors import StoreUnavailableError
from resilience.limiter_state import LimiterSpec
from resilience.machines.rate_limiter import GCRA, SlidingLog
from resilience_redis import RedisStore
from resilience_redis.scripts import script_for
from resilience_redis.server import Server, start_server
from tests.support.redis import sync_client

SPEC = LimiterSpec("faults", (GCRA(1000, 1e6),))
TIMEOUT = 0.05
SLACK = 0.2  # seconds that a busy test machine may add


async def timed_failure(limiter: Any) -> float:
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        await limiter.acquire("a", (1,), 0.0)
    return time.monotonic() - began


@pytest.mark.asyncio
async def test_a_hung_server_holds_nobody_longer_than_the_deadline(own_server: Server) -> None:
    assert own_server.pid is not None
    async with RedisStore.from_url(own_server.url, timeout=TIMEOUT, connect_timeout=10.0) as store:
        limiter = store.limiter(SPEC)
        await limiter.acquire("warm", (1,), 0.0)
        os.kill(own_server.pid, signal.SIGSTOP)
        try:
            took = await asyncio.gather(*(timed_failure(limiter) for _ in range(50)))
        finally:
            os.kill(own_server.pid, signal.SIGCONT)
        assert max(took) < TIMEOUT + SLACK
        assert min(took) >= TIMEOUT - 0.01
        # What was granted to callers who had left is given back, so nothing was charged.
        await store._lane().drain()  # pyright: ignore[reportPrivateUsage]  # the test waits for what is under way
        async with RedisStore.from_url(own_server.url, timeout=5.0) as again:
            left = (await again.limiter(SPEC).peek("a", (1,))).remaining[0]
            assert left >= 999


@pytest.mark.asyncio
async def test_a_killed_server_is_an_outage_at_once_and_its_return_is_noticed() -> None:
    with start_server("--loglevel", "warning") as server:
        assert server.pid is not None
        port = server.url.rpartition(":")[2]
        store = RedisStore.from_url(server.url, timeout=1.0)
        limiter = store.limiter(SPEC)
        await limiter.acquire("a", (1,), 0.0)
        os.kill(server.pid, signal.SIGKILL)
    assert await timed_failure(limiter) < 0.5, "a refused connection needs no deadline"
    with start_server(port=int(port)):
        assert (await limiter.acquire("a", (1,), 0.0)).decision.allowed
        await store.aclose()


@pytest.mark.asyncio
async def test_nobody_listening_is_an_outage() -> None:
    async with RedisStore.from_url("redis://127.0.0.1:1", timeout=TIMEOUT) as store:
        assert await timed_failure(store.limiter(SPEC)) < TIMEOUT + SLACK


@pytest.mark.asyncio
async def test_a_key_of_another_type_is_a_mistake_and_no_outage(
    redis_server: Server, redis_prefix: str, plain_redis: Any
) -> None:
    async with RedisStore.from_url(redis_server.url, prefix=redis_prefix, timeout=5.0) as store:
        for rule in (GCRA(1, 1.0), SlidingLog(1, 1.0)):
            limiter = store.limiter(LimiterSpec("type", (rule,)))
            plain_redis.hset(limiter.keys("a")[0], "field", "value")
            with pytest.raises(ResponseError, match="WRONGTYPE"):
                await limiter.acquire("a", (1,), 0.0)
            good, bad = await asyncio.gather(
                limiter.acquire("b", (1,), 0.0), limiter.acquire("a", (1,), 0.0), return_exceptions=True
            )
            assert isinstance(bad, ResponseError)
            assert not isinstance(good, BaseException)


@pytest.mark.asyncio
async def test_wrong_credentials_are_a_mistake_and_no_outage(own_server: Server) -> None:
    with sync_client(own_server.url) as admin:
        admin.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+get", "+ping")
    address = own_server.url.removeprefix("redis://")
    for user, error in (("reader:wrong", AuthenticationError), ("reader:secret", NoPermissionError)):
        async with RedisStore.from_url(f"redis://{user}@{address}", timeout=5.0) as store:
            with pytest.raises(error):
                await store.limiter(SPEC).acquire("a", (1,), 0.0)


@pytest.mark.asyncio
async def test_full_memory_is_an_outage(own_server: Server) -> None:
    async with RedisStore.from_url(own_server.url, timeout=5.0) as store:
        limiter = store.limiter(SPEC)
        await limiter.acquire("a", (1,), 0.0)
        with sync_client(own_server.url) as admin:
            admin.config_set("maxmemory", "1")
        with pytest.raises(StoreUnavailableError, match=r"OOM|maxmemory"):
            await limiter.acquire("a", (1,), 0.0)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["acquire", "", "nan", "1e6", "1", "1", "0", "1"], "limit must be a finite number"),
        (["acquire", "", "1", "inf", "1", "1", "0", "1"], "period must be a finite number"),
        (["acquire", "", "1", "1e6", "-1", "1", "0", "1"], "burst must be a finite number"),
        (["acquire", "", "1", "1e6", "1", "1", "0", "nan"], "cost must be a finite number"),
        (["acquire", "", "1", "1e6", "1", "1", "0", "0"], "cost must be greater than 0"),
        (["acquire", "", "1", "1e6", "1", "1", "0", "1", "1", "0", "2"], "cost must be at most 1, got 2"),
        (["acquire", "", "1", "1e6", "1", "1", "nan", "1"], "max_wait must be a finite number"),
        (["acquire", "", "1", "1e6", "1", "0", "0", "1"], "count must be a finite number of at least 1"),
        (["acquire", "-5", "1", "1e6", "1", "1", "0", "1"], "now must be a finite number"),
        (["steal", "", "1", "1e6", "1", "1", "0", "1"], "operation is unknown: steal"),
        (["acquire"], "now must be a finite number"),
    ],
)
def test_scripts_refuse_nonsense(plain_redis: Any, redis_prefix: str, arguments: list[str], reason: str) -> None:
    command = script_for("gcra").by_source([redis_prefix], arguments)
    with pytest.raises(ResponseError, match=f"RESILIENCE {reason}"):
        plain_redis.execute_command(*command)
    assert not plain_redis.exists(redis_prefix)
