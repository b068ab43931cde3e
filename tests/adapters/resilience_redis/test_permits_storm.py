"""Cancellations at every await of a shared permit, with and without a server that hangs: nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from typing import Any

import pytest

from resilience import Bulkhead
from resilience.errors import ResilienceError
from resilience_redis import RedisStore
from resilience_redis.server import Server
from tests.support.rules import LONG

KEYS = ("", "a", "b")
LEASE = 0.5


class Storm:
    """Two bulkheads on stores of their own, as good as two processes."""

    def __init__(self, url: str, prefix: str, seed: int, timeout: float, **options: Any) -> None:
        self.random = random.Random(seed)
        self.stores = [RedisStore.from_url(url, prefix=prefix, timeout=each) for each in (timeout, timeout, 5.0)]
        *self.bulkheads, self.observer = [
            Bulkhead(3, weight=self._weight, lease=LEASE, name="storm", store=store, **options) for store in self.stores
        ]
        self.hits = self.most = 0
        self.inside: Counter[str] = Counter()

    def _weight(self, call: Any) -> int:
        return int(call.cost)

    async def _work(self, key: str, units: int) -> None:
        self.inside[key] += units
        self.most = max(self.most, self.inside[key])
        try:
            await self._pause()
        finally:
            self.inside[key] -= units

    async def _pause(self) -> None:
        if self.random.random() < 0.5:
            for _ in range(self.random.randint(0, 8)):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(self.random.random() * 0.01)

    async def _call(self, key: str) -> None:
        bulkhead, units = self.random.choice(self.bulkheads), self.random.choice([1, 1, 2, 3])
        with contextlib.suppress(ResilienceError):
            if self.random.random() < 0.5:
                await bulkhead.bind(key=key, cost=units).call(self._work, key, units)
            else:
                async with bulkhead.guard(key=key, cost=units):
                    await self._work(key, units)

    async def rage(self, callers: int) -> None:
        """So many calls, two thirds of which are cancelled at some point."""
        tasks = [asyncio.ensure_future(self._call(self.random.choice(KEYS))) for _ in range(callers)]
        for task in self.random.sample(tasks, 2 * callers // 3):
            await self._pause()
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            self.hits += task.cancelled()
            if not task.cancelled():
                task.result()

    async def check(self, patience: float) -> None:
        """Nobody has anything any more, here or in the store."""
        async with asyncio.timeout(patience):
            for key in KEYS:
                while await self.observer.peek(key) != (0, 0):
                    await asyncio.sleep(0.005)
        for bulkhead in self.bulkheads:
            for key in KEYS:
                assert (bulkhead.in_use(key), bulkhead.waiting(key)) == (0, 0)
            assert bulkhead.remote is not None
            permits: Any = bulkhead.remote.permits
            assert [hold.id for home in permits._holdings.values() for hold in home.holds.values()] == []

    async def end(self) -> None:
        for store in self.stores:
            await store.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "options",
    [{"queue": 50}, {"queue": 5, "max_wait": 0.005}, {"queue": 50, "on_lost": "cancel"}, {"queue": 0}],
    ids=["queue", "impatient", "cancel", "no queue"],
)
async def test_nothing_is_missing_after_a_storm(
    redis_server: Server, redis_prefix: str, options: dict[str, Any]
) -> None:
    storm = Storm(redis_server.url, redis_prefix, 1, 5.0, **options)
    wanted = 2_000 if LONG else 150
    while storm.hits < wanted:
        await storm.rage(30)
        await storm.check(2.0)
    assert storm.most == 3
    await storm.end()


@pytest.mark.asyncio
@pytest.mark.parametrize("on_outage", ["local", "open", "closed"])
@pytest.mark.parametrize("on_lost", ["ignore", "cancel"])
async def test_nothing_is_missing_after_a_storm_with_a_server_that_hangs(
    own_server: Server, redis_prefix: str, on_outage: Any, on_lost: Any
) -> None:
    assert own_server.pid is not None
    storm = Storm(own_server.url, redis_prefix, 2, 0.02, queue=20, on_outage=on_outage, on_lost=on_lost)
    for _ in range(20 if LONG else 2):
        raging = asyncio.ensure_future(storm.rage(60))
        for _ in range(3):
            await asyncio.sleep(storm.random.random() * 0.05)
            os.kill(own_server.pid, signal.SIGSTOP)
            await asyncio.sleep(storm.random.random() * 0.1)
            os.kill(own_server.pid, signal.SIGCONT)
        await raging
        await storm.check(LEASE + 2.0)
    if on_outage == "closed":
        assert storm.most <= 3
    await storm.end()
