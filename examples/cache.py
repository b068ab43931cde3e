"""Keep what a function returned: one run for all who ask, stale values while it is refreshed or fails.

In virtual time, so that the minutes pass at once.
"""

import anyio

from resilience import Cache, Retry
from resilience.events import CacheHit, Event
from resilience.testing import run

healthy = True
runs = 0


def listener(event: Event) -> None:
    if isinstance(event, CacheHit) and event.freshness != "fresh":
        print("served", event.freshness)


profiles = Cache(60, stale_for=60, stale_if_error=3600, listeners=[listener])


@profiles
@Retry(attempts=2)
async def profile(user: str) -> str:
    global runs
    runs += 1
    await anyio.sleep(1)
    if not healthy:
        raise ConnectionError("down")
    return f"{user}, run {runs}"


async def main() -> None:
    global healthy
    async with anyio.create_task_group() as group:
        for _ in range(1000):
            group.start_soon(profile, "ann")
    print(runs, "run for 1000 callers")
    await anyio.sleep(90)
    print(await profile("ann"))  # and refreshed meanwhile
    await anyio.sleep(2)
    print(await profile("ann"))
    healthy = False
    await anyio.sleep(600)
    print(await profile("ann"))
    healthy = True
    await profiles.invalidate(profile, "ann")
    print(await profile("ann"))


run(main)

# Prints:
# 1 run for 1000 callers
# served stale
# ann, run 1
# ann, run 2
# served spare
# ann, run 2
# ann, run 5
