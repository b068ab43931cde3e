"""Run one call under a policy, and take the outcome as an exception or as a value."""

import asyncio

from resilience import Timeout

quick = Timeout(0.2)


async def fetch(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "here"


async def main() -> None:
    print(await quick.call(fetch, 0))
    try:
        await quick.call(fetch, 60)
    except TimeoutError as error:
        print(error)

    outcome = await quick.outcome(fetch, 60)
    print(outcome.value if outcome.ok else f"no answer: {type(outcome.error).__name__}")


asyncio.run(main())

# Prints:
# here
# Timeout did not finish within 0.2 s
# no answer: TimedOutError
