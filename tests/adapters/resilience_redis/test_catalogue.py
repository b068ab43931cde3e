"""The server knows what the limits are, and nobody pays for it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from resilience.errors import StoreUnavailableError
from resilience.limits.limiter_state import LimiterSpec
from resilience.machines.rate_limiter import GCRA, FixedWindow
from resilience_redis import RedisStore
from resilience_redis.catalogue import catalogue_key, describe, spec_of
from resilience_redis.scripts import script_of
from resilience_redis.server import Server
from tests.support.rules import ALGORITHMS, make_rule

PATIENT = 5.0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_limits_are_what_they_were(algorithm: str) -> None:
    rules = (make_rule(algorithm, 1.1, 1 / 3, 7.0), make_rule(algorithm, 1e6, 3600.0, 1e7))
    spec = LimiterSpec("search", rules, common=(1,))
    assert spec_of("search", describe(spec)) == spec


@pytest.mark.parametrize("text", ["", "rubbish", "{}", '{"algorithm": "none", "rules": [[1, 1]], "common": []}', "[1]"])
def test_what_describes_no_limit_is_an_error(text: str) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        spec_of("search", text)


def told(client: Any, prefix: str) -> dict[str, list[float]]:
    found = client.hgetall(catalogue_key(prefix))
    return {name.decode(): json.loads(text)["rules"][0] for name, text in found.items()}


def test_each_limiter_is_told_once_whenever_it_was_made(
    redis_server: Server, redis_prefix: str, plain_redis: Any
) -> None:
    store = RedisStore.from_url(redis_server.url, prefix=redis_prefix, timeout=PATIENT)
    first = store.limiter(LimiterSpec("first", (GCRA(1, 1.0),)))
    assert told(plain_redis, redis_prefix) == {}

    async def use() -> None:
        async with store:
            await first.acquire("a", (1,), 0.0)
            second = store.limiter(LimiterSpec("second", (FixedWindow(2, 2.0),)))
            await second.peek("a", (1,))
            assert told(plain_redis, redis_prefix) == {"first": [1, 1, 1], "second": [2, 2]}
            before = plain_redis.info("commandstats")["cmdstat_hset"]["calls"]
            store.limiter(LimiterSpec("second", (FixedWindow(2, 2.0),)))
            await second.peek("a", (1,))
            assert plain_redis.info("commandstats")["cmdstat_hset"]["calls"] == before
            store.limiter(LimiterSpec("second", (FixedWindow(3, 2.0),)))
            await second.peek("a", (1,))
            assert told(plain_redis, redis_prefix)["second"] == [3, 2]

    asyncio.run(use())
    plain_redis.delete(catalogue_key(redis_prefix))
    asyncio.run(use())
    assert 29 * 86400 < plain_redis.ttl(catalogue_key(redis_prefix)) < 31 * 86400


@pytest.mark.asyncio
async def test_nobody_hears_of_it_when_it_fails() -> None:
    async with RedisStore.from_url("redis://127.0.0.1:1") as store:
        limiter = store.limiter(LimiterSpec("search", (GCRA(1, 1.0),)))
        with pytest.raises(StoreUnavailableError):
            await limiter.acquire("a", (1,), 0.0)


def test_names_without_end_are_not_kept(plain_redis: Any, redis_prefix: str) -> None:
    script, key = script_of("_prelude", "catalogue"), catalogue_key(redis_prefix)
    plain_redis.hset(key, mapping={str(number): "" for number in range(10_000)})
    assert plain_redis.execute_command(*script.by_source([key], ["", "one more", "{}"])) == 0
    assert plain_redis.hlen(key) == 10_000
