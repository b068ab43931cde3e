"""What goes wrong with a server, done to a real one: who waits, for how long, and how it is found back."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Generator
from typing import Any

import pytest
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from resilience.errors import StoreUnavailableError
from resilience.limits.limiter_state import LimiterSpec
from resilience.machines.rate_limiter import GCRA, SlidingLog
from resilience_redis import RedisStore
from resilience_redis.link import Link
from resilience_redis.scripts import script_for
from resilience_redis.server import Server
from tests.support.callers import SPEC, Caller, all_answered, callers, until
from tests.support.proxy import Proxy, proxy_to
from tests.support.servers import PATIENCE, Node, node

TIMEOUT = 0.05
SLACK = 0.2  # seconds that a busy test machine may add
RECOVERY = 2.0  # seconds after which everything is as before


@pytest.fixture
def server() -> Generator[Node]:
    """A server of the test's own."""
    with node() as server:
        yield server


def store_at(url: str, timeout: float = TIMEOUT) -> RedisStore:
    return RedisStore.from_url(url, timeout=timeout)


async def warm(store: RedisStore) -> Link:
    """Have a connection, whatever the machine is busy with; return the link."""
    await Caller(store).until_answered()
    return store.link()


@pytest.mark.asyncio
@pytest.mark.parametrize("seconds", [0.3, pytest.param(3.0, marks=pytest.mark.long)])
async def test_a_hung_server_holds_nobody_longer_than_the_deadline(server: Node, seconds: float) -> None:
    async with store_at(server.url) as store:
        fault = f"SIGSTOP for {seconds:g} s"
        async with callers(store, fault, at_most=TIMEOUT + SLACK) as everybody:
            link = store.link()
            with server.paused():
                await until(lambda: not link.available)
                await asyncio.sleep(TIMEOUT)  # who was on the way then
                assert not await everybody[0].ask()
                refused = Caller(store)
                for _ in range(100):
                    assert not await refused.ask()
                await asyncio.sleep(seconds)
            assert await all_answered(everybody) < RECOVERY
        assert link.available
        assert link.away_for >= seconds
        assert refused.longest < TIMEOUT, "once it is known nobody waits"


@pytest.mark.asyncio
async def test_what_was_granted_by_a_server_that_hung_is_given_back(server: Node) -> None:
    async with store_at(server.url) as store:
        limiter = store.limiter(LimiterSpec("late", (GCRA(1000, 1e6),)))
        await warm(store)
        with server.paused():
            answers = await asyncio.gather(
                *(limiter.acquire("a", (1,), 0.0) for _ in range(50)), return_exceptions=True
            )
            assert {type(each) for each in answers} == {StoreUnavailableError}
        await store._lane().drain()
    async with store_at(server.url, timeout=5.0) as again:
        assert (await again.limiter(LimiterSpec("late", (GCRA(1000, 1e6),))).peek("a", (1,))).remaining[0] >= 999


@pytest.mark.asyncio
async def test_a_killed_server_is_an_outage_at_once_and_its_return_is_noticed(server: Node) -> None:
    async with (
        store_at(server.url) as store,
        callers(store, "SIGKILL, and back empty", at_most=TIMEOUT + SLACK) as everybody,
    ):
        heard: list[bool] = []
        store.link().on_change(heard.append)
        server.kill()
        await until(lambda: not store.link().available)
        await asyncio.sleep(0.25)
        await asyncio.to_thread(server.restart, empty=True)
        assert await all_answered(everybody) < RECOVERY
        assert heard == [False, True]
        assert store.link().outages == 1


@pytest.mark.asyncio
async def test_nobody_listening_is_an_outage_that_costs_no_time() -> None:
    async with store_at("redis://127.0.0.1:1", timeout=1.0) as store:
        caller = Caller(store)
        for _ in range(20):
            assert not await caller.ask()
        assert caller.longest < 0.9


@pytest.mark.asyncio
async def test_a_replica_is_of_no_use_until_it_is_a_master(server: Node) -> None:
    with node() as master:
        async with (
            store_at(server.url) as store,
            callers(store, "read-only replica", at_most=TIMEOUT + SLACK) as everybody,
        ):
            await asyncio.to_thread(server.replicate, master)
            await until(lambda: not store.link().available)
            await asyncio.sleep(0.3)
            assert not store.link().available, "it answers, but it cannot write"
            await asyncio.to_thread(server.replicate, None)
            assert await all_answered(everybody) < RECOVERY


@pytest.mark.asyncio
async def test_full_memory_is_an_outage_until_there_is_room(server: Node) -> None:
    async with store_at(server.url) as store, callers(store, "maxmemory reached", at_most=TIMEOUT + SLACK) as everybody:
        with server.full():
            await until(lambda: not store.link().available)
            with pytest.raises(StoreUnavailableError, match=r"OOM|maxmemory"):
                await store.limiter(SPEC).acquire("a", (1,), 0.0)
            await asyncio.sleep(0.2)
            assert not store.link().available
        assert await all_answered(everybody) < RECOVERY


@pytest.mark.asyncio
async def test_a_flushed_script_cache_is_no_outage(server: Node) -> None:
    async with store_at(server.url, timeout=5.0) as store:
        caller = Caller(store)
        with server.client() as admin:
            for _ in range(5):
                admin.script_flush()
                assert await caller.ask()
        assert store.link().outages == 0


@pytest.mark.asyncio
async def test_a_way_of_twenty_milliseconds_is_no_outage(server: Node) -> None:
    async with proxy_to(server.port) as proxy, store_at(proxy.url, timeout=5.0) as store:
        proxy.delay = 0.01
        caller = Caller(store)
        assert await caller.ask()
        began = time.monotonic()
        answers = await asyncio.gather(*(caller.ask() for _ in range(1000)))
        assert all(answers)
        print(f"\n20 ms of way: 1000 calls in {(time.monotonic() - began) * 1000:.0f} ms")
        assert time.monotonic() - began < 1.0, "they travel together"
        assert proxy.accepted == 1
        assert store.link().outages == 0


@pytest.mark.asyncio
async def test_a_way_that_swallows_everything_is_left_for_a_new_one(server: Node) -> None:
    async with proxy_to(server.port) as proxy, store_at(proxy.url) as store:
        async with callers(store, "packets lost", at_most=TIMEOUT + SLACK) as everybody:
            proxy.swallow()
            await asyncio.sleep(0.4)
            assert not store.link().available
            await proxy.restore()
            assert await all_answered(everybody) < RECOVERY


@pytest.mark.asyncio
async def test_a_cut_way_is_noticed_at_once_and_taken_again(server: Node) -> None:
    async with proxy_to(server.port) as proxy, store_at(proxy.url, timeout=5.0) as store:
        link = await warm(store)
        await cut_and_restored(proxy, link)
        await cut_and_restored(proxy, link)
        assert link.outages == 2


async def cut_and_restored(proxy: Proxy, link: Link) -> None:
    proxy.cut()
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        await link.run(script_for("gcra"), ["{a}"], ["peek", "", "1", "1", "1", "1"])
    assert time.monotonic() - began < 2.0, "no deadline is needed to know it"
    await proxy.restore()
    await until(lambda: link.available)
    assert await link.run(script_for("gcra"), ["{a}"], ["peek", "", "1", "1", "1", "1"])
    assert time.monotonic() - began < RECOVERY + 2.0


@pytest.mark.asyncio
async def test_a_key_of_another_type_is_a_mistake_and_no_outage(
    redis_server: Server, redis_prefix: str, plain_redis: Any
) -> None:
    async with RedisStore.from_url(redis_server.url, prefix=redis_prefix, timeout=5.0) as store:
        for rule in (GCRA(1, 1.0), SlidingLog(1, 1.0)):
            limiter = store.limiter(LimiterSpec("type", (rule,)))
            plain_redis.hset(limiter.keys("a")[0], "field", "value")
            for _ in range(5):
                with pytest.raises(ResponseError, match="WRONGTYPE"):
                    await limiter.acquire("a", (1,), 0.0)
            good, bad = await asyncio.gather(
                limiter.acquire("b", (1,), 0.0), limiter.acquire("a", (1,), 0.0), return_exceptions=True
            )
            assert isinstance(bad, ResponseError)
            assert not isinstance(good, BaseException)
        assert store.link().outages == 0


@pytest.mark.asyncio
async def test_wrong_credentials_are_a_mistake_and_no_outage(server: Node) -> None:
    url = server.url_of_user("reader", "~*", "+get", "+ping")
    for address, error in ((url.replace("secret", "wrong"), AuthenticationError), (url, NoPermissionError)):
        async with store_at(address, timeout=5.0) as store:
            for _ in range(3):
                with pytest.raises(error):
                    await store.limiter(SPEC).acquire("a", (1,), 0.0)
            assert store.link().available


@pytest.mark.asyncio
async def test_credentials_that_are_withdrawn_during_an_outage_are_a_mistake_too(server: Node) -> None:
    async with store_at(server.url_of_user("worker", "~*", "&*", "+@all")) as store:
        link = await warm(store)
        server.kill()
        while link.available:
            with pytest.raises(StoreUnavailableError):
                await store.limiter(SPEC).acquire("a", (1,), 0.0)
        await asyncio.to_thread(server.restart, empty=True)  # users are gone with the rest
        await until(lambda: link.available)
        with pytest.raises(AuthenticationError):
            await store.limiter(SPEC).acquire("a", (1,), 0.0)


def test_a_store_works_in_a_second_loop_after_an_outage_in_the_first(server: Node) -> None:
    store = store_at(server.url)

    async def lose() -> None:
        await warm(store)
        server.kill()
        with pytest.raises(StoreUnavailableError):
            await store.limiter(SPEC).acquire("a", (1,), 0.0)
        await store.aclose()

    async def work() -> None:
        async with store:
            await warm(store)

    asyncio.run(lose())
    server.start()
    asyncio.run(work())


ENDING = """
    import asyncio, os, signal, sys
    from resilience.errors import StoreUnavailableError
    from resilience.limits.limiter_state import LimiterSpec
    from resilience.machines.rate_limiter import GCRA
    from resilience_redis import RedisStore

    async def main(url, pid, number, close):
        store = RedisStore.from_url(url)
        limiter = store.limiter(LimiterSpec("end", (GCRA(1000, 1.0),)))
        link = store.link()
        link.members.join()
        link.subscribe("news", lambda message: None)
        while True:
            try:
                await limiter.acquire("a", (1,), 0.0)
                break
            except StoreUnavailableError:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        os.kill(pid, number)
        while link.available:
            try:
                await limiter.acquire("a", (1,), 0.0)
            except StoreUnavailableError:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        if close:
            await store.aclose()

    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "close"))
"""


@pytest.mark.parametrize("way", ["close", "leave"])
@pytest.mark.parametrize("signal_name", ["SIGKILL", "SIGSTOP"])
def test_a_program_ends_quietly_while_the_server_is_away(server: Node, signal_name: str, way: str) -> None:
    number = str(int(getattr(signal, signal_name)))
    arguments = [server.url, str(server.pid), number, way]
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(ENDING), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    expected = ("Redis is away", "Executing ")  # the latter on a machine that is busy, says asyncio
    noise = [line for line in ended.stderr.splitlines() if not line.startswith(expected)]
    assert (ended.returncode, noise) == (0, [])


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
