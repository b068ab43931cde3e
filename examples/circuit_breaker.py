"""Stop calling what fails; let a probe find out when it is back."""

import asyncio

from resilience import CircuitBreaker, CircuitOpenError

healthy = False
breaker = CircuitBreaker(failure_rate=0.5, minimum_calls=4, open_for=0.3, probes=1, name="search")


@breaker
async def search() -> str:
    if not healthy:
        raise ConnectionError("down")
    return "found"


async def attempt() -> None:
    try:
        print(await search())
    except CircuitOpenError:
        print("not even tried")
    except ConnectionError as error:
        print(error)


async def main() -> None:
    global healthy
    for _ in range(5):
        await attempt()
    healthy = True
    await asyncio.sleep(0.4)  # longer than open_for and its jitter
    await attempt()
    print(breaker.state().value)


asyncio.run(main())

# Prints:
# down
# down
# down
# down
# not even tried
# found
# closed
