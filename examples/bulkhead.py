"""Keep a slow dependency from taking everything: three at once, two in the queue, the rest refused."""

import asyncio

from resilience import Bulkhead

reports = Bulkhead(3, queue=2, max_wait=1)


async def render() -> None:
    await asyncio.sleep(0.01)


async def main() -> None:
    outcomes = await asyncio.gather(*(reports.outcome(render) for _ in range(8)))
    print("done:", sum(outcome.ok for outcome in outcomes))
    print("refused:", sum(outcome.rejected for outcome in outcomes))
    await reports.drain()  # for a graceful shutdown: nothing new from here on
    print((await reports.outcome(render)).error)


asyncio.run(main())

# Prints:
# done: 5
# refused: 3
# Bulkhead is being drained, 0 waiting
