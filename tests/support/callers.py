"""Those who ask a store again and again, and keep account of how long it took and what they were told."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable

from resilience.errors import StoreUnavailableError
from resilience.limits.limiter_state import LimiterSpec
from resilience.machines.rate_limiter import GCRA
from resilience_redis import RedisStore
from tests.support.servers import PATIENCE

SPEC = LimiterSpec("callers", (GCRA(1_000_000, 1.0),))
"""A limit that nobody meets."""


class Caller:
    """One who acquires a unit of a key every few milliseconds once it runs."""

    def __init__(self, store: RedisStore, key: str = "a") -> None:
        self.limiter = store.limiter(SPEC)
        self.key = key
        self.longest = 0.0
        """Seconds that one call took."""
        self.answered = self.refused = 0
        self.last_refused = 0.0
        self.mistakes: list[Exception] = []
        """What it heard that was no outage."""

    async def ask(self) -> bool:
        """One call: whether the store answered."""
        began = time.monotonic()
        try:
            await self.limiter.acquire(self.key, (1,), 0.0)
            answered = True
        except StoreUnavailableError:
            answered, self.last_refused = False, time.monotonic()
        self.longest = max(self.longest, time.monotonic() - began)
        self.answered += answered
        self.refused += not answered
        return answered

    async def run(self) -> None:
        while True:
            try:
                await self.ask()
            except Exception as error:
                self.mistakes.append(error)
            await asyncio.sleep(0.002)

    async def until_answered(self) -> None:
        """Ask until the store answers."""
        async with asyncio.timeout(PATIENCE):
            while not await self.ask():
                await asyncio.sleep(0.005)


class Stalls:
    """How long the event loop was held up, by a busy machine or by whoever does not yield."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.monotonic() - began - 0.001)


@contextlib.asynccontextmanager
async def callers(
    store: RedisStore, fault: str, keys: tuple[str, ...] = ("a",) * 5, *, at_most: float
) -> AsyncGenerator[list[Caller]]:
    """Callers at work around a fault; nobody waits for the store longer than `at_most`, nor hears of a mistake."""
    everybody = [Caller(store, key) for key in keys]
    for each in everybody:
        await each.until_answered()
        each.longest, each.refused = 0.0, 0  # connecting has a budget of its own
    stalls = Stalls()
    tasks = [asyncio.create_task(work) for work in (stalls.run(), *(each.run() for each in everybody))]
    try:
        yield everybody
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    longest, refused = max(each.longest for each in everybody), sum(each.refused for each in everybody)
    print(
        f"\n{fault}: longest delay of a call {longest * 1000:.0f} ms, of anything {stalls.longest * 1000:.0f} ms; "
        f"{refused} calls without the store"
    )
    assert not [each.mistakes for each in everybody if each.mistakes]
    assert longest < at_most + 2 * stalls.longest


async def all_answered(everybody: list[Caller], times: int = 5) -> float:
    """Wait until everybody was answered so often; seconds until the last refusal before that."""
    began = time.monotonic()
    wanted = [each.answered + times for each in everybody]
    async with asyncio.timeout(PATIENCE):
        while any(each.answered < number for each, number in zip(everybody, wanted, strict=True)):
            await asyncio.sleep(0.005)
    return max(0.0, max(each.last_refused for each in everybody) - began)


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)
