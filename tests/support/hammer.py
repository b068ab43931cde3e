"""One of several processes that use one limit as hard as they can: prints what it was granted.

python -m tests.support.hammer URL PREFIX ALGORITHM LIMIT PERIOD BURST MAX_WAIT START SECONDS
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from resilience.limiter_state import LimiterSpec
from resilience_redis import RedisStore
from tests.support.rules import make_rule


async def hammer(arguments: list[str]) -> dict[str, float]:
    """Acquire one unit after another until the time is over. `START` is a monotonic time, for all the same."""
    url, prefix, algorithm, *numbers = arguments
    limit, period, burst, max_wait, start, seconds = map(float, numbers)
    rule = make_rule(algorithm, limit, period, burst)
    admitted = calls = 0
    last = start
    # A generous deadline: two cores serve eight processes and the server here.
    async with RedisStore.from_url(url, prefix=prefix, timeout=5.0) as store:
        limiter = store.limiter(LimiterSpec("hammer", (rule,)))
        await limiter.peek("one", (1,))
        await asyncio.sleep(max(0.0, start - time.monotonic()))
        while time.monotonic() < start + seconds:
            booking = await limiter.acquire("one", (1,), max_wait)
            calls += 1
            if booking.decision.allowed:
                admitted += 1
                await asyncio.sleep(booking.decision.wait)
                last = time.monotonic()
    return {"admitted": admitted, "calls": calls, "last": last}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(hammer(sys.argv[1:]))))
