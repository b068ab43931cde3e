"""The Redis store passes the conformance kit, on a real server and in real time."""

from __future__ import annotations

from typing import Any

import pytest

from resilience.machines.rate_limiter import Rule
from resilience.testing import LEDGER_CHECKS, LIMITER_CHECKS
from resilience_redis import RedisStore
from resilience_redis.server import Server
from tests.support.redis import redis_prefix, redis_server
from tests.testing.test_stores import RULES

__all__ = ["redis_prefix", "redis_server"]


@pytest.mark.asyncio
@pytest.mark.parametrize("rule", RULES, ids=repr)
async def test_the_redis_store_passes(rule: Rule[Any], redis_server: Server, redis_prefix: str) -> None:
    async with RedisStore.from_url(redis_server.url, prefix=redis_prefix) as store:
        for check in (*LIMITER_CHECKS, *LEDGER_CHECKS):
            await check(store, rule)
