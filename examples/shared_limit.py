"""One limit for several processes, kept in Redis: two workers, ten units between them."""

import asyncio
import subprocess
import sys

from resilience import RateLimiter
from resilience_redis import RedisStore
from resilience_redis.server import start_server


async def work(url: str) -> None:
    """What each process does: ask for ten, and see how many it gets."""
    async with RedisStore.from_url(url, timeout=1.0) as store:
        limiter = RateLimiter("10/h", max_wait=0, name="emails", store=store)
        outcomes = [await limiter.outcome(asyncio.sleep, 0) for _ in range(10)]
    print(sum(outcome.ok for outcome in outcomes))


def main() -> None:
    with start_server() as server:  # or the Redis you have
        command = [sys.executable, __file__, server.url]
        workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        sent = [int(worker.communicate()[0]) for worker in workers]
    print("sent by both together:", sum(sent))


if len(sys.argv) > 1:
    asyncio.run(work(sys.argv[1]))
else:
    main()

# Prints:
# sent by both together: 10
