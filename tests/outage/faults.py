"""What may happen to a store: each fault is a world with servers in it, and what is done to them.

async with FAULTS["killed"].world() as stage:
    await stage.begin()
    await asyncio.sleep(stage.lasts)
    await stage.end()
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

from tests.support.cluster import cluster
from tests.support.proxy import proxy_to
from tests.support.sentinels import sentinels
from tests.support.servers import DURABLE, Node, node, replica_of

Step: TypeAlias = Callable[[], Awaitable[Any]]


@dataclass
class Stage:
    """A store that works, and what to do to it."""

    kind: str
    ports: list[int]
    begin: Step
    end: Step
    lasts: float = 3.0
    """Seconds between the two; 0 for what is over at once."""
    away: bool = True
    """Whether nobody can use the store meanwhile."""


async def _nothing() -> None:
    """There is nothing to do."""


def _threaded(work: Callable[[], Any]) -> Step:
    """Waiting for servers blocks."""
    return lambda: asyncio.to_thread(work)


@contextlib.asynccontextmanager
async def _one(*options: str) -> AsyncGenerator[Node]:
    with contextlib.ExitStack() as running:
        yield await asyncio.to_thread(running.enter_context, node(*options))


@contextlib.asynccontextmanager
async def killed() -> AsyncGenerator[Stage]:
    """SIGKILL; three seconds later it is back with its data."""
    async with _one(*DURABLE) as server:
        yield Stage("one", [server.port], _threaded(server.kill), _threaded(server.start))


@contextlib.asynccontextmanager
async def hung() -> AsyncGenerator[Stage]:
    """SIGSTOP for three seconds."""
    async with _one() as server:
        yield Stage("one", [server.port], _threaded(server.pause), _threaded(server.resume))


@contextlib.asynccontextmanager
async def emptied() -> AsyncGenerator[Stage]:
    """Restarted without its data."""
    async with _one() as server:
        restart = _threaded(lambda: server.restart(empty=True))
        yield Stage("one", [server.port], restart, _nothing, lasts=0.0)


@contextlib.asynccontextmanager
async def scripts_flushed() -> AsyncGenerator[Stage]:
    """SCRIPT FLUSH."""
    async with _one() as server:

        def flush() -> None:
            with server.client() as admin:
                admin.script_flush()

        yield Stage("one", [server.port], _threaded(flush), _nothing, lasts=0.0, away=False)


@contextlib.asynccontextmanager
async def out_of_memory() -> AsyncGenerator[Stage]:
    """maxmemory reached, and nothing may be evicted."""
    async with _one() as server:
        full = contextlib.ExitStack()
        yield Stage("one", [server.port], _threaded(lambda: full.enter_context(server.full())), _threaded(full.close))


@contextlib.asynccontextmanager
async def read_only() -> AsyncGenerator[Stage]:
    """Made a replica of another server, and a master again three seconds later."""
    async with _one() as server, _one() as other:
        demote, promote = _threaded(lambda: server.replicate(other)), _threaded(lambda: server.replicate(None))
        yield Stage("one", [server.port], demote, promote)


@contextlib.asynccontextmanager
async def slow_network() -> AsyncGenerator[Stage]:
    """Twenty milliseconds more for every round trip."""
    async with _one() as server, proxy_to(server.port) as line:

        async def slow() -> None:
            line.delay = 0.02

        async def fast() -> None:
            line.delay = 0.0

        yield Stage("one", [line.port], slow, fast, away=False)


@contextlib.asynccontextmanager
async def sentinel_failover() -> AsyncGenerator[Stage]:
    """The master dies, and Sentinels make the replica the master."""
    with contextlib.ExitStack() as running:
        master = await asyncio.to_thread(running.enter_context, node())
        replica = await asyncio.to_thread(running.enter_context, replica_of(master))
        watch = await asyncio.to_thread(running.enter_context, sentinels(master, [replica]))
        moved = _threaded(watch.wait_for_another_master)
        yield Stage("sentinels", watch.ports, _threaded(master.kill), moved, lasts=0.0)


@contextlib.asynccontextmanager
async def cluster_master_killed() -> AsyncGenerator[Stage]:
    """A master of a cluster dies; its replica takes over."""
    with contextlib.ExitStack() as running:
        it = await asyncio.to_thread(running.enter_context, cluster(masters=3, replicas=1))
        victim = await asyncio.to_thread(it.master_of, KEY)
        healthy = _threaded(it.wait_until_healthy)
        yield Stage("cluster", [each.port for each in it.nodes], _threaded(victim.kill), healthy, lasts=0.0)


@contextlib.asynccontextmanager
async def slot_migrated() -> AsyncGenerator[Stage]:
    """The slot of the limit moves to another master."""
    with contextlib.ExitStack() as running:
        it = await asyncio.to_thread(running.enter_context, cluster(masters=3))

        def move() -> None:
            source = it.master_of(KEY)
            it.move(it.slot_of(KEY), next(each for each in it.masters() if each is not source))

        ports = [each.port for each in it.nodes]
        yield Stage("cluster", ports, _threaded(move), _nothing, lasts=0.0, away=False)


PREFIX = "outage"
KEY = f"{{{PREFIX}:strict:}}"
"""In the slot of the strict limit."""

FAULTS: dict[str, Callable[[], AbstractAsyncContextManager[Stage]]] = {
    world.__name__: world
    for world in (
        killed,
        hung,
        emptied,
        scripts_flushed,
        sentinel_failover,
        cluster_master_killed,
        slot_migrated,
        out_of_memory,
        read_only,
        slow_network,
    )
}
