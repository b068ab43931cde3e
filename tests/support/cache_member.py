"""One of several processes that share a cache: many callers of one function, whose runs are counted in Redis.

python -m tests.support.cache_member URL PREFIX NUMBER CALLERS SECONDS LEASE

Begins when `PREFIX:go` is set. A run counts itself in `PREFIX:begun`, notes its process in `PREFIX:leader`, and counts
itself in `PREFIX:completed`. Ten callers who came first are cancelled, one after another. When `PREFIX:quit` names this
process, all its callers are, and it prints "given up"; else how many callers got which run's value.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import Any

import redis.asyncio

from resilience import Cache
from resilience_redis import RedisStore

URL, PREFIX, NUMBER = (*sys.argv[1:4], "", "", "")[:3]


def client() -> Any:
    make: Any = redis.asyncio.Redis
    return make.from_url(URL, decode_responses=True)


async def fetch(key: int, seconds: float) -> dict[str, Any]:
    """Count the run, and take that long."""
    async with client() as redis:
        run = await redis.incr(f"{PREFIX}:begun")
        await redis.set(f"{PREFIX}:leader", NUMBER)
        await asyncio.sleep(seconds)
        await redis.incr(f"{PREFIX}:completed")
    return {"key": key, "run": run}


async def quit_when_told(calls: asyncio.Future[Any]) -> None:
    async with client() as redis:
        while await redis.get(f"{PREFIX}:quit") != NUMBER:
            await asyncio.sleep(0.01)
    calls.cancel()


async def cancel_one_by_one(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        await asyncio.sleep(0.05)
        task.cancel()


async def cancelled(task: asyncio.Task[Any]) -> bool:
    await asyncio.wait([task])
    return task.cancelled()


async def main(callers: int, seconds: float, lease: float) -> None:
    async with client() as redis, RedisStore.from_url(URL, prefix=PREFIX, timeout=10.0) as store:
        cache = Cache(600, name="fleet", store=store, lease=lease)
        await redis.incr(f"{PREFIX}:ready")
        while not await redis.exists(f"{PREFIX}:go"):
            await asyncio.sleep(0.005)
        first = [asyncio.create_task(cache.call(fetch, 7, seconds)) for _ in range(10)]
        calls = asyncio.gather(*(cache.call(fetch, 7, seconds) for _ in range(callers)))
        quitting = asyncio.create_task(quit_when_told(calls))
        cancelling = asyncio.create_task(cancel_one_by_one(first))
        try:
            results = await calls
        except asyncio.CancelledError:
            print(json.dumps("given up"))
            for task in first:
                task.cancel()
            await asyncio.wait(first)
        else:
            counts = Counter(str(result["run"]) for result in results)
            counts["cancelled"] = sum([await cancelled(task) for task in first])
            print(json.dumps(counts))
        cancelling.cancel()
        quitting.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[4]), float(sys.argv[5]), float(sys.argv[6])))
