"""Requests cancelled anywhere on their way: no connection stays busy, no place in a line taken."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest

from resilience_llm import LimitedTransport, LLMLimits
from resilience_redis import RedisStore
from resilience_redis.server import Server
from tests.support.http_server import Answer, MisbehavingServer

from .support import ASKED, WHOLE, charged, limits_of

RUNS = 60


async def cancelled_runs(lib: Any, limits: LLMLimits, url: str) -> int:
    """Ask again and again, and give up a little later each time; how many were not answered in time."""
    inner, cancelled = lib.AsyncHTTPTransport(limits=lib.Limits(max_connections=2)), 0
    async with lib.AsyncClient(transport=LimitedTransport(limits, inner)) as client:
        await client.post(url, json=ASKED)
        await limits.limiter.reset(key="m")
        for run in range(RUNS):
            tasks = [asyncio.create_task(client.post(url, json=ASKED)) for _ in range(3)]
            for _ in range(run % 20):
                await asyncio.sleep(0)
            await asyncio.sleep(run // 20 * 0.003)
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            cancelled += sum(isinstance(each, asyncio.CancelledError) for each in outcomes)
        assert all(each.is_idle() or each.is_closed() for each in inner._pool.connections)
        assert not inner._pool._requests
    assert limits._turns._lines == {}
    return cancelled


@pytest.mark.asyncio
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("status", [200, 429])
async def test_nothing_is_left_behind(
    lib: Any, server: MisbehavingServer, redis_server: Server, redis_prefix: str, shared: bool, status: int
) -> None:
    body = json.dumps(WHOLE).encode()
    url = server.answer("/v1/chat/completions", Answer(status, body=body, pieces=3, pause=0.001))
    async with contextlib.AsyncExitStack() as stack:
        store = RedisStore.from_url(redis_server.url, prefix=redis_prefix, timeout=5.0) if shared else None
        if store is not None:
            await stack.enter_async_context(store)
        limits = limits_of(requests="900/d", tokens="900000/d", max_wait=5.0, store=store)
        cancelled = await cancelled_runs(lib, limits, url)
        assert cancelled > RUNS / 2
        arrived = len(server.received("/v1/chat/completions")) - 1
        if status == 200:
            requests, tokens = await charged(limits)
            # Those that arrived, and perhaps some that were about to; at most the estimate of each.
            assert arrived <= requests <= 3 * RUNS
            assert 100 * (3 * RUNS - cancelled) <= tokens <= 524 * requests
