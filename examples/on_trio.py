"""The same objects on trio; made at import time, outside any event loop."""

import trio

from resilience import Bulkhead, Pipeline, TimedOutError, Timeout

limited = Pipeline(Bulkhead(2, queue=10), Timeout(0.5))


@limited
async def work(seconds: float) -> None:
    await trio.sleep(seconds)


async def attempt(seconds: float) -> None:
    try:
        await work(seconds)
        print("done")
    except TimedOutError:
        print("timed out")


async def main() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(attempt, 0.01)
        nursery.start_soon(attempt, 60)


trio.run(main)

# Prints:
# done
# timed out
