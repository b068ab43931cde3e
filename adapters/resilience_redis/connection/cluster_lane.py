"""The way of one event loop to a cluster: every server has a lane of its own, so that one that is away harms no other.

Which server a request goes to is redis-py's knowledge; ours is only that what goes to one server travels together,
and that a server which does not answer is not waited for.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable, Sequence
from typing import Any

from redis.crc import key_slot
from redis.exceptions import MovedError, RedisError

from resilience_redis.connection.guard import Stop, tell
from resilience_redis.connection.lane import Lane
from resilience_redis.connection.target import Answer, Target
from resilience_redis.scripts import Script


class ClusterLane(Lane):
    """The lanes to the servers of a cluster."""

    def __init__(self, client: Any, timeout: float, connect_timeout: float) -> None:
        super().__init__(client, timeout, connect_timeout)
        self._nodes: Any = client.nodes_manager
        self._make: Callable[[str], Lane] = lambda name: _NodeLane(client, timeout, connect_timeout, name)
        self._lanes: dict[str, Lane] = {}
        self._listeners: list[Callable[[bool], None]] = []
        self._was_available = True

    @property
    def available(self) -> bool:
        """Whether every server answered last time."""
        return all(lane.available for lane in self._lanes.values())

    @property
    def outages(self) -> int:
        """How often a server went away."""
        return sum(lane.outages for lane in self._lanes.values())

    @property
    def away_for(self) -> float:
        """Seconds without the server that was away longest."""
        return max((lane.away_for for lane in self._lanes.values()), default=0.0)

    def on_change(self, listener: Callable[[bool], None]) -> Stop:
        """Call `listener` with False when the first server goes away, and with True when the last one is back."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def book(self, target: Target, costs: tuple[str, ...], max_wait: float) -> asyncio.Future[Answer]:
        """See `Lane.book`."""
        return self._to(target.keys[0]).book(target, costs, max_wait)

    def send(self, target: Target, operation: str, arguments: tuple[str, ...]) -> asyncio.Future[Any]:
        """See `Lane.send`."""
        return self._to(target.keys[0]).send(target, operation, arguments)

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str]) -> asyncio.Future[Any]:
        """See `Lane.run`."""
        return self._to(keys[0]).run(script, keys, arguments)

    async def drain(self) -> None:
        """Wait until everything that was sent has ended."""
        await asyncio.gather(*(lane.drain() for lane in self._lanes.values()))

    async def aclose(self) -> None:
        """See `Lane.aclose`."""
        await asyncio.gather(*(lane.aclose() for lane in self._lanes.values()))

    def _to(self, key: str) -> Lane:
        """Return the lane to the server of a key, as redis-py knows it now."""
        nodes = self._nodes.slots_cache.get(_slot(key))
        name: str = nodes[0].name if nodes else ""
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = self._make(name)
            lane.on_change(self._one_changed)
        return lane

    def _one_changed(self, _: bool) -> None:
        available = self.available
        if available is not self._was_available:
            self._was_available = available
            tell(self._listeners, available)


class _NodeLane(Lane):
    """The lane to one server of a cluster.

    While it is away its keys may get another server. Neither that nor its return is found out through redis-py's
    client, which has all its users wait while it asks for the slots anew.
    """

    def __init__(self, client: Any, timeout: float, connect_timeout: float, name: str) -> None:
        super().__init__(client, timeout, connect_timeout)
        self._name = name
        self._nodes: Any = client.nodes_manager

    async def _probe(self) -> None:
        known: dict[str, Any] = self._nodes.nodes_cache
        others = [node for name, node in known.items() if name != self._name]
        if self._name not in known:
            return await super()._probe()
        if others and await self._has_successor(random.choice(others)):
            return await self._learn()
        return await self._ask(known[self._name])

    async def _has_successor(self, witness: Any) -> bool:
        """Whether another server says that the key which failed is elsewhere now."""
        try:
            await self._ask(witness)
        except MovedError as error:
            moved: Any = error
            host, port = self._nodes.remap_host_port(moved.host, int(moved.port))
            return bool(f"{host}:{port}" != self._name)
        except (RedisError, OSError):
            return False
        return True

    async def _learn(self) -> None:
        async with asyncio.timeout(self._connect_timeout):
            await self._nodes.initialize()

    async def _ask(self, node: Any) -> None:
        connection = node.connection_class(**node.connection_kwargs)
        try:
            async with asyncio.timeout(self._connect_timeout):
                await connection.connect()
            async with asyncio.timeout(self._timeout):
                await connection.send_command(*self._question())
                await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)


@functools.lru_cache(maxsize=4096)
def _slot(key: str) -> int:
    slot: int = key_slot(key.encode())
    return slot
