"""Ten seconds for the call; it is cancelled and a timeout raised."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio

from resilience import Timeout
from tests.bench.contest import OURS, Contestant, Setup, Wrap
from tests.bench.peers import module
from tests.bench.timing import Work


def ours(setup: Setup) -> Timeout:
    return Timeout(setup.seconds)


def _nopanic(setup: Setup) -> Wrap:
    policy: Wrap = module("nopanic").timeout(setup.seconds)
    return policy


def _hyx(setup: Setup) -> Wrap:
    policy: Wrap = module("hyx", "timeout").timeout(setup.seconds)
    return policy


def _pyresilience(setup: Setup) -> Wrap:
    library = module("pyresilience")
    policy: Wrap = library.resilient(timeout=library.TimeoutConfig(seconds=setup.seconds))
    return policy


def _aioresilience(setup: Setup) -> Wrap:
    policy: Wrap = module("aioresilience").timeout(setup.seconds)
    return policy


def _interlock(setup: Setup) -> Wrap:
    interlock: Any = module("interlock-cb")
    policy: Wrap = interlock.Pipeline(interlock.TimeoutStrategy(setup.seconds))
    return policy


def _timeout(setup: Setup) -> Wrap:
    seconds = setup.seconds

    def wrap(fn: Work) -> Work:
        async def guarded(order: int) -> object:
            async with asyncio.timeout(seconds):
                return await fn(order)

        return guarded

    return wrap


def _wait_for(setup: Setup) -> Wrap:
    seconds = setup.seconds

    def wrap(fn: Work) -> Work:
        async def guarded(order: int) -> object:
            return await asyncio.wait_for(fn(order), seconds)

        return guarded

    return wrap


def _fail_after(setup: Setup) -> Wrap:
    seconds = setup.seconds

    def wrap(fn: Work) -> Work:
        async def guarded(order: int) -> object:
            with anyio.fail_after(seconds):
                return await fn(order)

        return guarded

    return wrap


CONTESTANTS = [
    Contestant(OURS, ours),
    Contestant("nopanic", _nopanic),
    Contestant("hyx", _hyx),
    Contestant("pyresilience", _pyresilience),
    Contestant("aioresilience", _aioresilience),
    Contestant("interlock-cb", _interlock),
    Contestant("asyncio", _timeout, how="timeout"),
    Contestant("asyncio", _wait_for, how="wait_for"),
    Contestant("anyio", _fail_after, how="fail_after"),
]
