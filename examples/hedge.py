"""Cut off the tail of latencies: ask a second time when an answer is late."""

from __future__ import annotations

import anyio

from resilience import Event, Hedge, Pipeline, Quantile, Retry, Timeout
from resilience.events import HedgeStarted, HedgeWon
from resilience.testing import VirtualClock


class Replicas:
    """A service that takes 20 ms, and a second for one request in fifty."""

    def __init__(self) -> None:
        self.asked = 0

    async def lookup(self, key: str) -> str:
        self.asked += 1
        await anyio.sleep(1.0 if self.asked % 50 == 0 else 0.02)
        return f"value of {key}"


def report(event: Event) -> None:
    match event:
        case HedgeStarted(waited=waited):
            print(f"no answer for {waited:.3f} s")
        case HedgeWon(duration=duration):
            print(f"the second attempt won after {duration:.3f} s")
        case _:
            pass


async def main(clock: VirtualClock) -> None:
    replicas = Replicas()
    retry = Retry()
    search = Pipeline(
        Timeout(2),
        retry,
        Hedge(Quantile(0.95), budget=retry),  # hedges and retries are paid from one budget
        Timeout(1.5),
        listeners=[report],
    )
    slowest = 0.0
    for number in range(150):
        began = clock.now()
        await search.call(replicas.lookup, f"key {number}")
        slowest = max(slowest, clock.now() - began)
    print(f"slowest of 150: {slowest:.3f} s, {replicas.asked} requests")


if __name__ == "__main__":
    with VirtualClock().installed() as virtual:
        virtual.run(main, virtual)

# Prints:
# no answer for 0.020 s
# the second attempt won after 0.040 s
# no answer for 0.020 s
# the second attempt won after 0.040 s
# no answer for 0.020 s
# the second attempt won after 0.040 s
# slowest of 150: 0.040 s, 153 requests
