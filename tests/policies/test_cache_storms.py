"""Caches in a storm: callers, cancellations, errors and changes at random, and what must hold whatever happens."""

from __future__ import annotations

import itertools
from collections import Counter
from random import Random
from typing import Any

import anyio
import pytest

from resilience import Bulkhead, Cache, Pipeline, SingleFlight, Timeout, clock
from resilience.errors import ResilienceError
from resilience.policy import Policy
from tests.support.failures import DownError
from tests.support.remote_cache import Elsewhere
from tests.support.rules import LONG

ROUNDS = 40 if LONG else 8
CALLERS = 120

pytestmark = pytest.mark.anyio


class World:
    """Functions whose runs are numbered in the order of all that happens, and an account of them."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.order = itertools.count(1)
        self.changed: Counter[int] = Counter()
        """By key: when it was last invalidated or put."""
        self.running: Counter[int] = Counter()
        self.most = 0
        self.answers = 0
        self.bulkhead = Bulkhead(1000)

    async def run(self, key: int) -> list[int]:
        """Return when this run began; fails or is slow at times."""
        began = next(self.order)
        self.running[key] += 1
        self.most = max(self.most, self.running[key])
        try:
            await anyio.sleep(self.random.choice((0.0, 0.1, 0.5, 3.0)))
            if self.random.random() < 0.2:
                raise DownError
            return [key, began]
        finally:
            self.running[key] -= 1

    async def caller(self, protected: Policy, key: int) -> None:
        await anyio.sleep(self.random.random() * 20)
        with anyio.move_on_after(self.random.choice((0.05, 0.3, 1.0, 60.0))) as scope:
            outdated = self.changed[key]
            try:
                answer, began = await protected.call(fetch, key)
            except (DownError, ResilienceError):
                return
            assert answer == key
            assert began > outdated, "began before it was changed, and that before this call"
            self.answers += 1
        assert not scope.cancelled_caught or scope.deadline < 60

    async def changer(self, cache: Cache, key: int) -> None:
        await anyio.sleep(self.random.random() * 20)
        if self.random.random() < 0.5:
            await cache.invalidate(fetch, key)
            self.changed[key] = next(self.order)
        else:
            before = next(self.order)
            await cache.put([key, next(self.order)], fetch, key)
            self.changed[key] = max(self.changed[key], before)

    async def storm(self, protected: Policy, cache: Cache | None) -> None:
        global world
        world = self
        async with anyio.create_task_group() as group:
            for _ in range(CALLERS):
                group.start_soon(self.caller, protected, self.random.randrange(3))
            for _ in range(6 if cache is not None else 0):
                assert cache is not None
                group.start_soon(self.changer, cache, self.random.randrange(3))
        await anyio.sleep(10)  # what goes on in the background
        assert not +self.running
        assert self.bulkhead.in_use() == 0
        assert self.answers > CALLERS / 10


world = World(Random(0))


async def fetch(key: int) -> list[int]:
    return await world.run(key)


def options(random: Random) -> dict[str, Any]:
    return {
        "ttl": random.choice((0.5, 2, 10)),
        "stale_for": random.choice((0, 1, 5)),
        "stale_if_error": random.choice((0, 5)),
        "beta": random.choice((0, 1, 5)),
        "negative": random.choice((None, DownError)),
        "negative_ttl": 0.5,
        "max_entries": random.choice((1, 2, 100)),
        "random": random.random,
    }


def around(random: Random, policy: Policy, inner: Bulkhead) -> Policy:
    """With a deadline inside or outside at times."""
    parts: list[Policy] = [policy, inner]
    if random.random() < 0.3:
        parts.insert(0, Timeout(1.5))
    if random.random() < 0.3:
        parts.append(Timeout(1))
    return Pipeline(*parts)


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_single_flight(seed: int) -> None:
    world = World(Random(seed))
    flight = SingleFlight()
    await world.storm(around(world.random, flight, world.bulkhead), None)
    assert world.most <= 1
    assert not flight._flights._flights


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_cache(seed: int) -> None:
    world = World(Random(seed))
    cache = Cache(**options(world.random))
    await world.storm(around(world.random, cache, world.bulkhead), cache)
    assert not cache._local._flights._flights
    assert cache.size <= 100


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_cache_without_changes_never_runs_twice_at_once(seed: int) -> None:
    world = World(Random(seed))
    cache = Cache(**options(world.random))
    await world.storm(around(world.random, cache, world.bulkhead), None)
    assert world.most <= 1


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_shared_cache(seed: int) -> None:
    """Two processes; the store goes away for a while. What one changes holds for its own calls at once."""
    random = Random(seed)
    place, chosen = Elsewhere(delay=0.01), options(random)
    world = World(random)
    caches = [Cache(**chosen, name="users", store=place, lease=2) for _ in range(2)]

    async def blink() -> None:
        await anyio.sleep(random.random() * 20)
        place.away = True
        await anyio.sleep(random.random() * 5)
        place.away = False

    async with anyio.create_task_group() as group:
        if seed % 2:
            group.start_soon(blink)
        await world.storm(around(random, caches[0], world.bulkhead), None if seed % 2 else caches[0])
    assert not caches[0]._shared._flights._flights  # type: ignore[union-attr]
    await anyio.sleep(10)
    assert not place.watches
    assert all(entry.token == "" or clock.now() > entry.lease_until for entry in place.entries.values())
