"""One of several processes that use a fenced resource, each call with a shared permit, until it is killed.

python -m tests.support.permit_worker URL PREFIX PORT NAME LIMIT LEASE ON_LOST CALLERS HOLD
"""

from __future__ import annotations

import asyncio
import random
import sys
import time

from resilience import Bulkhead, PermitLostError
from resilience.errors import ResilienceError
from resilience_redis import RedisStore


class Caller:
    """Enters, stays a moment, leaves, again and again."""

    def __init__(self, bulkhead: Bulkhead, port: int, name: str, hold: float) -> None:
        self.bulkhead, self.port, self.name, self.hold = bulkhead, port, name, hold

    async def run(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)

        async def say(line: str) -> str:
            writer.write(f"{line}\n".encode())
            return (await reader.readline()).decode().strip()

        while True:
            asked = time.monotonic()
            try:
                async with self.bulkhead.guard() as call:
                    waited = time.monotonic() - asked
                    print(await say(f"enter {call.fencing_token} {waited:.6f} {self.name}"), flush=True)
                    await asyncio.sleep(self.hold * (0.5 + random.random()))
                    if self.hold >= 1:
                        print("write", await say(f"write {call.fencing_token}"), flush=True)
                    await say("exit")
            except PermitLostError:
                print("lost", flush=True)
                await say("exit")
            except ResilienceError as error:
                print(error, flush=True)
                await asyncio.sleep(0.05)


async def main(arguments: list[str]) -> None:
    url, prefix, port, name, limit, lease, on_lost, callers, hold = arguments
    async with RedisStore.from_url(url, prefix=prefix, timeout=2.0, connect_timeout=5.0) as store:
        bulkhead = Bulkhead(
            int(limit),
            queue=1000,
            lease=float(lease),
            on_lost="cancel" if on_lost == "cancel" else "ignore",
            on_outage="closed",
            name="fleet",
            store=store,
        )
        await asyncio.gather(*(Caller(bulkhead, int(port), name, float(hold)).run() for _ in range(int(callers))))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
