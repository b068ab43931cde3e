"""No more than so many calls in a time: whoever cannot go yet waits in line, or is refused at once."""

import asyncio
import time

from resilience import RateLimitedError, RateLimiter

waiting = RateLimiter("100/s", burst=5)
refusing = RateLimiter("5/minute", "100/h", max_wait=0)


async def main() -> None:
    began = time.monotonic()
    for _ in range(15):
        async with waiting.guard():
            pass
    print("5 at once, 10 more took 0.1 s or longer:", time.monotonic() - began >= 0.0999)

    sent = 0
    try:
        while True:
            async with refusing.guard():
                sent += 1
    except RateLimitedError as error:
        print(f"{sent} sent, the next within 12 s:", 0 < (error.retry_after or 0) <= 12)
    print("left now:", int((await refusing.peek()).remaining[0]))


asyncio.run(main())

# Prints:
# 5 at once, 10 more took 0.1 s or longer: True
# 5 sent, the next within 12 s: True
# left now: 0
