"""One of several processes that use one limit as hard as they can: prints what it was granted.

python -m tests.support.hammer URL PREFIX ALGORITHM LIMIT PERIOD BURST MAX_WAIT SECONDS PROCESSES
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import redis.asyncio

from resilience.limits.limiter_state import LimiterSpec
from resilience_redis import RedisStore
from tests.support.rules import make_rule


async def hammer(arguments: list[str]) -> dict[str, float]:
    """Acquire one unit after another for so many seconds, from when all the processes are ready."""
    url, prefix, algorithm, *numbers = arguments
    limit, period, burst, max_wait, seconds, processes = map(float, numbers)
    rule = make_rule(algorithm, limit, period, burst)
    admitted = calls = 0
    # A generous deadline: two cores serve eight processes and the server here.
    async with RedisStore.from_url(url, prefix=prefix, timeout=5.0) as store:
        limiter = store.limiter(LimiterSpec("hammer", (rule,)))
        await limiter.peek("one", (1,))
        await all_ready(url, prefix, processes)
        began = time.time()  # as the server's own clock says, on this machine
        first = last = time.monotonic()  # one clock for all processes of a machine
        while time.monotonic() < first + seconds:
            booking = await limiter.acquire("one", (1,), max_wait)
            calls += 1
            if booking.decision.allowed:
                admitted += 1
                await asyncio.sleep(booking.decision.wait)
                last = time.monotonic()
    return {"admitted": admitted, "calls": calls, "first": first, "last": last, "began": began, "ended": time.time()}


async def all_ready(url: str, prefix: str, processes: float) -> None:
    """Wait until so many processes have come this far."""
    make: Any = redis.asyncio.Redis
    async with make.from_url(url) as client:
        await client.incr(f"{prefix}:ready")
        while int(await client.get(f"{prefix}:ready")) < processes:
            await asyncio.sleep(0.005)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(hammer(sys.argv[1:]))))
