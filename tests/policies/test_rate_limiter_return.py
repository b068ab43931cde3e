"""Four processes whose store was away and is back: nobody notices it at the same moment, and no second sees a burst."""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence

import anyio
import pytest

from resilience import RateLimiter, clock
from resilience.errors import RateLimitedError, StoreUnavailableError
from resilience.limits.limiter_state import Booking, Fleet, LimiterSpec
from resilience.limits.memory_ledger import MemoryLedger
from resilience.machines.rate_limiter import Decision
from resilience.store import Store

pytestmark = pytest.mark.anyio

PROCESSES, RATE, BURST = 4, 100, 10


class Process(Store):
    """The store of one process; it notices by itself when the server is there again."""

    def __init__(self, server: dict[str, MemoryLedger]) -> None:
        self.server = server
        self.up = True
        self.count = PROCESSES
        self.returned: list[Callable[[bool | None], None]] = []

    def limiter(self, spec: LimiterSpec) -> Remote:
        ledger = self.server.setdefault(spec.name, MemoryLedger(spec.rules, spec.max_keys, spec.common))
        return Remote(self, ledger)

    def join(self, returned: Callable[[bool | None], None]) -> None:
        self.returned.append(returned)

    async def come_back(self, forgotten: bool) -> None:
        self.up = True
        for each in self.returned:
            each(None)
        await anyio.sleep(0.001)
        for each in self.returned:
            each(forgotten)


class Remote:
    """A limiter's state, as far as this needs it."""

    def __init__(self, process: Process, ledger: MemoryLedger) -> None:
        self._process = process
        self._ledger = ledger

    def fleet(self) -> Fleet:
        return self._process

    async def acquire(self, key: str, costs: Sequence[float], max_wait: float) -> Booking:
        await anyio.sleep(0.0005)
        self.reach()
        return self._ledger.acquire(key, costs, max_wait)

    async def peek(self, key: str, costs: Sequence[float]) -> Decision:
        return self._ledger.peek(key, costs)

    async def refund(self, key: str, costs: Sequence[float], stamp: object = None) -> None:
        self._ledger.refund(key, costs, stamp)

    async def reset(self, key: str) -> None:
        self._ledger.reset(key)

    async def observe(self, key: str, said: Sequence[tuple[float, float] | None]) -> None:
        self._ledger.observe(key, said)

    async def drain(self, key: str, seconds: Sequence[float | None]) -> None:
        self._ledger.drain(key, seconds)

    async def reserve(self, *_: object) -> object:
        raise NotImplementedError

    async def settle(self, *_: object) -> bool:
        raise NotImplementedError

    def charge(self, key: str, costs: Sequence[float]) -> None:
        self.reach()
        self._ledger.charge(key, costs)

    def void(self, *_: object) -> None:
        raise NotImplementedError

    def reach(self) -> None:
        if not self._process.up:
            raise StoreUnavailableError("gone")


@pytest.mark.parametrize("forgotten", [False, True])
@pytest.mark.parametrize("noticed", [(0.0, 0.0, 0.0, 0.0), (0.0, 0.08, 0.16, 0.24), (0.24, 0.0, 0.0, 0.0)])
async def test_no_second_is_fuller_than_promised(noticed: tuple[float, ...], forgotten: bool) -> None:
    server: dict[str, MemoryLedger] = {}
    processes = [Process(server) for _ in range(PROCESSES)]
    admitted: list[float] = []
    back = 0.0
    async with anyio.create_task_group() as group:
        for number, process in enumerate(processes):
            limiter = RateLimiter(f"{RATE}/s", burst=BURST, name="api", store=process, max_wait=0)
            group.start_soon(overload, limiter, 0.001 * number, admitted)
        await anyio.sleep(1.5)
        for process in processes:
            process.up = False
        await anyio.sleep(2.0)
        back = clock.now()
        if forgotten:
            for ledger in server.values():
                ledger.reset("")
        for process, delay in zip(processes, noticed, strict=True):
            group.start_soon(later, delay, process.come_back, forgotten)
    fullest = max(bisect_right(admitted, at + 1.0) - index for index, at in enumerate(admitted))
    since = sum(at > back for at in admitted)
    assert fullest <= RATE + BURST + 1
    assert since >= 0.9 * RATE * (clock.now() - back)


async def overload(limiter: RateLimiter, offset: float, admitted: list[float]) -> None:
    """Ask a hundred times a second."""

    async def work() -> None:
        admitted.append(clock.now())

    await anyio.sleep(offset)
    for _ in range(600):
        with contextlib.suppress(RateLimitedError):
            await limiter.call(work)
        await anyio.sleep(0.01)


async def later(delay: float, work: Callable[[bool], Awaitable[None]], forgotten: bool) -> None:
    await anyio.sleep(delay)
    await work(forgotten)
