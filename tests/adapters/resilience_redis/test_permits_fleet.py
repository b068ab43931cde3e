"""Permits shared by processes that are killed and stopped at random."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process

import pytest

from resilience import Bulkhead
from resilience_redis import RedisStore
from resilience_redis.server import Server
from tests.support.fenced import FencedResource
from tests.support.rules import LONG

PROCESSES = 8 if LONG else 3
SECONDS = 20.0 if LONG else 5.0
LEASE = 1.0


async def worker(url: str, prefix: str, resource: FencedResource, name: str, *options: object) -> Process:
    command = ["-m", "tests.support.permit_worker", url, prefix, str(resource.port), name, *map(str, options)]
    return await asyncio.create_subprocess_exec(sys.executable, *command, stdin=DEVNULL, stdout=PIPE)


class Stalls:
    """How late this event loop was at most: what a busy machine adds to every duration here, and more to others'."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._task = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            self.longest = max(self.longest, time.monotonic() - began - 0.01)

    def end(self) -> float:
        self._task.cancel()
        return self.longest


async def ended(process: Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.communicate()


@pytest.mark.asyncio
@pytest.mark.long
async def test_no_more_than_the_limit_whoever_is_killed(own_server: Server, redis_prefix: str) -> None:
    limit = 3
    dice = random.Random(1)
    async with FencedResource(limit) as resource:
        names = [f"p{number}" for number in range(PROCESSES)]
        options = (limit, LEASE, "cancel", 2, 0.02)
        running = {name: await worker(own_server.url, redis_prefix, resource, name, *options) for name in names}
        async with asyncio.timeout(30):
            while set(resource.served) != set(names):
                await asyncio.sleep(0.01)
        resource.waits.clear()
        resource.changes.clear()
        kills: list[float] = []
        stalls = Stalls()
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            await asyncio.sleep(0.3 + dice.random())
            if resource.inside:
                name = dice.choice(sorted(resource.inside.values()))
                kills.append(time.monotonic())
                await ended(running.pop(name))
                again = f"p{len(names)}"
                names.append(again)
                running[again] = await worker(own_server.url, redis_prefix, resource, again, *options)
        async with asyncio.timeout(60):  # nobody starves, however long a process takes to start
            while not set(resource.served) >= set(names):
                await asyncio.sleep(0.01)
        async with RedisStore.from_url(own_server.url, prefix=redis_prefix, timeout=2.0) as store:
            in_use = (await Bulkhead(limit, name="fleet", store=store).peek()).in_use
        for process in running.values():
            await ended(process)
    # Between two calls there is room for a moment; a long gap is one that a kill has torn.
    back = max(end - max(kill for kill in kills if kill < end) for begin, end in resource.gaps() if end - begin > 0.2)
    stall = stalls.end()
    calls = sum(resource.served.values())
    print(
        f"{PROCESSES} processes, {len(kills)} holders killed: at most {resource.most} inside, {calls} calls, "
        f"all permits in use again after {back:.3f} s at the latest (lease {LEASE:g} s), "
        f"longest wait {max(resource.waits):.3f} s, refused {resource.refused}, "
        f"longest stall of this process {stall:.3f} s"
    )
    assert resource.most <= limit
    assert in_use <= limit
    assert resource.refused == 0
    assert back < LEASE + 0.1 + 20 * stall
    assert max(resource.waits) < 3 * LEASE + 20 * stall


@pytest.mark.asyncio
@pytest.mark.parametrize(("on_lost", "said"), [("ignore", "write refused"), ("cancel", "lost")])
async def test_a_process_that_was_asleep_finds_its_token_refused(
    own_server: Server, redis_prefix: str, on_lost: str, said: str
) -> None:
    """It holds its permit for all it knows, and meanwhile another has it, with a larger token."""
    async with FencedResource(1) as resource:
        options = (1, 0.6, on_lost, 1, 1.0 if on_lost == "ignore" else 10.0)  # seconds in the resource
        asleep = await worker(own_server.url, redis_prefix, resource, "asleep", *options)
        async with asyncio.timeout(30):
            while "asleep" not in resource.inside.values():
                await asyncio.sleep(0.005)
            asleep.send_signal(signal.SIGSTOP)
            heir = await worker(own_server.url, redis_prefix, resource, "heir", *options)
            while "heir" not in resource.inside.values():
                await asyncio.sleep(0.005)
            asleep.send_signal(signal.SIGCONT)
            assert asleep.stdout is not None
            heard = ""
            while said not in heard:
                heard += (await asleep.stdout.readline()).decode()
        assert resource.refused == (on_lost == "ignore")
        for process in (asleep, heir):
            await ended(process)


def test_it_works_in_a_second_run(redis_server: Server, redis_prefix: str) -> None:
    store = RedisStore.from_url(redis_server.url, prefix=redis_prefix, timeout=5.0)
    bulkhead = Bulkhead(1, queue=5, name="db", store=store)

    async def main() -> None:
        await asyncio.gather(*(bulkhead.call(asyncio.sleep, 0.01) for _ in range(5)))
        assert bulkhead.in_use() == 0
        await store.aclose()

    for _ in range(2):
        asyncio.run(main())
