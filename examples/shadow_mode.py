"""Try a limit on live traffic before it refuses anything."""

import asyncio

from resilience import RateLimiter

limiter = RateLimiter("2/minute", max_wait=0, mode="shadow")
limiter.listen(lambda event: print(event.kind, "in earnest" if not getattr(event, "shadow", False) else "in shadow"))


async def search() -> str:
    return "found"


async def main() -> None:
    for _ in range(3):
        print(await limiter.call(search))
    print("would have refused:", limiter.rejected)
    limiter.mode = "enforce"
    print((await limiter.outcome(search)).rejected)


asyncio.run(main())

# Prints:
# found
# found
# call_rejected in shadow
# found
# would have refused: 1
# call_rejected in earnest
# True
