"""One of several processes that retry from one shared budget: prints what it spent, what it paid in, and when.

python -m tests.support.retrier URL PREFIX CAPACITY SECONDS SUCCESSES PROCESSES

`SUCCESSES` of a hundred calls succeed; the others fail, and each of their retries too.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time

from resilience import Backoff, Retry, TokenBudget
from resilience_redis import RedisStore
from tests.support.hammer import all_ready


async def main(arguments: list[str]) -> dict[str, float]:
    url, prefix, *numbers = arguments
    capacity, seconds, successes, processes = map(float, numbers)
    counts = {"retries": 0.0, "paid_in": 0.0, "calls": 0.0}

    async def work(attempts: list[int]) -> None:
        attempts.append(1)
        await asyncio.sleep(0.002)
        if random.random() * 100 >= successes:
            raise ConnectionError

    async with RedisStore.from_url(url, prefix=prefix, timeout=5.0) as store:
        retry = Retry(3, backoff=Backoff.none(), budget=TokenBudget(capacity), store=store, name="calls")
        await all_ready(url, prefix, processes)
        ends = time.monotonic() + seconds

        async def caller() -> None:
            while time.monotonic() < ends:
                attempts: list[int] = []
                outcome = await retry.outcome(work, attempts)
                counts["calls"] += 1
                counts["retries"] += len(attempts) - 1
                if outcome.ok:
                    counts["paid_in"] += 14.0 if len(attempts) > 1 else 1.0

        await asyncio.gather(*(caller() for _ in range(4)))
    return counts


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1:]))))
