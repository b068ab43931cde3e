"""One of several processes that share one limit and ask at an even pace: prints when it was let through.

python -m tests.support.leased_hammer URL PREFIX ALGORITHM LIMIT PERIOD BURST SURPLUS MAX_WAIT SECONDS PROCESSES PACE

PACE is how many calls a second this process makes; SURPLUS 0 is a strict limit. Calls do not wait for each other.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from resilience.limits.limiter_state import LimiterSpec
from resilience_redis import RedisStore
from tests.support.hammer import all_ready
from tests.support.rules import make_rule

TICK = 0.005
"""Calls of so many seconds are made together: an event loop does not sleep more exactly."""


async def hammer(arguments: list[str]) -> dict[str, Any]:
    """Make calls for so many seconds, from when all the processes are ready."""
    url, prefix, algorithm, *numbers = arguments
    limit, period, burst, surplus, max_wait, seconds, processes, pace = map(float, numbers)
    rule = make_rule(algorithm, limit, period, burst)
    admitted: list[float] = []
    calls = 0
    # A generous deadline: two cores serve all the processes and the server here.
    async with RedisStore.from_url(url, prefix=prefix, timeout=5.0) as store:
        limiter = store.limiter(LimiterSpec("hammer", (rule,), leased=surplus or None))

        async def call() -> None:
            booking = await limiter.acquire("one", (1,), max_wait)
            if booking.decision.allowed:
                if booking.decision.wait:
                    await asyncio.sleep(booking.decision.wait)
                admitted.append(time.monotonic())  # one clock for all processes of a machine

        await limiter.peek("one", (1,))
        await all_ready(url, prefix, processes)
        first = time.monotonic()
        async with asyncio.TaskGroup() as running:
            while (elapsed := time.monotonic() - first) < seconds:
                while calls < elapsed * pace:
                    running.create_task(call())
                    calls += 1
                await asyncio.sleep(TICK)
    return {"admitted": admitted, "calls": calls, "first": first}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(hammer(sys.argv[1:]))))
