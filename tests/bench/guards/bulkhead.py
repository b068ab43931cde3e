"""64 calls at once; one more is refused, or waits where the library cannot refuse."""

from __future__ import annotations

import asyncio
from typing import Any

from resilience import Bulkhead
from tests.bench.contest import OURS, Contestant, Setup, Wrap, fresh
from tests.bench.peers import module
from tests.bench.timing import Work


def ours(setup: Setup) -> Bulkhead:
    return Bulkhead(setup.permits)


def _nopanic(setup: Setup) -> Wrap:
    policy: Wrap = module("nopanic").bulkhead(setup.permits, max_wait=0)
    return policy


def _hyx(setup: Setup) -> Wrap:
    policy: Wrap = module("hyx", "bulkhead").bulkhead(setup.permits, setup.permits)
    return policy


def _pyresilience(setup: Setup) -> Wrap:
    library = module("pyresilience")
    policy: Wrap = library.resilient(bulkhead=library.BulkheadConfig(max_concurrent=setup.permits, max_wait=0.0))
    return policy


def _aioresilience(setup: Setup) -> Wrap:
    library = module("aioresilience")
    config = library.BulkheadConfig(max_concurrent=setup.permits, max_waiting=0)
    policy: Wrap = library.with_bulkhead(library.Bulkhead(fresh(), config))
    return policy


def _bulklink(setup: Setup) -> Wrap:
    policy: Wrap = module("bulklink").AsyncBulkhead(label=fresh(), parallelism=setup.permits)
    return policy


def _interlock(setup: Setup) -> Wrap:
    interlock: Any = module("interlock-cb")
    policy: Wrap = interlock.Pipeline(interlock.BulkheadStrategy(setup.permits))
    return policy


def _semaphore(setup: Setup) -> Wrap:
    permits = asyncio.Semaphore(setup.permits)

    def wrap(fn: Work) -> Work:
        async def guarded(order: int) -> object:
            async with permits:
                return await fn(order)

        return guarded

    return wrap


CONTESTANTS = [
    Contestant(OURS, ours),
    Contestant("nopanic", _nopanic),
    Contestant("hyx", _hyx),
    Contestant("pyresilience", _pyresilience),
    Contestant("aioresilience", _aioresilience),
    Contestant("bulklink", _bulklink),
    Contestant("interlock-cb", _interlock),
    Contestant("asyncio", _semaphore, "waits, cannot refuse", "Semaphore"),
]
