"""One of several processes that reserve and settle over a bad network: calls are lost, repeated and reordered.

    python -m tests.support.settlers URL PREFIX ALGORITHM OPERATIONS PROCESSES PROCESS

Everybody works out the same list of messages from the same seed, sends those that fall to it, and does not look at
the answers. `expected` says what all of it must come to.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

from resilience import Limit, RateLimiter
from resilience_redis import RedisStore
from tests.support.hammer import all_ready

TENANTS = ("north", "south", "east", "west")


class Message(NamedTuple):
    kind: str
    id: str
    tenant: str
    requests: int
    tokens: int
    process: int


def messages(operations: int, processes: int) -> list[Message]:
    """Up to four copies of each of two messages for every id, none of some, in any order."""
    random = Random(operations)
    found: list[Message] = []
    number = 0
    while len(found) < operations:
        number += 1
        tenant = random.choice(TENANTS)
        for kind in ("reserve", "settle"):
            requests, tokens = random.choice((0, 1, 1, 2)), random.randint(1, 5000)
            found.extend(
                Message(kind, f"id-{number}", tenant, requests, tokens, random.randrange(processes))
                for _ in range(random.choice((0, 1, 1, 2, 3, 4)))
            )
    random.shuffle(found)
    return found[:operations]


def expected(operations: int, processes: int) -> dict[str, tuple[int, int]]:
    """Requests and tokens by tenant: what was settled, or else what was reserved, of each id once."""
    charged: dict[str, Message] = {}
    for message in messages(operations, processes):
        if message.id not in charged or message.kind == "settle":
            charged[message.id] = message
    return {
        tenant: (
            sum(message.requests for message in charged.values() if message.tenant == tenant),
            sum(message.tokens for message in charged.values() if message.tenant == tenant),
        )
        for tenant in TENANTS
    }


def limiter_of(store: RedisStore, algorithm: Any) -> RateLimiter:
    """Limits that never refuse and give nothing back in the time of a test."""
    rate = "1000000000/12000d"  # windows are aligned, and the next of these begins in 2035
    return RateLimiter(
        Limit(rate),
        Limit(rate, dimension="tokens"),
        Limit(rate, dimension="tokens", keyed=False, name="everybody"),
        algorithm=algorithm,
        max_wait=0,
        name="settlers",
        store=store,
    )


async def settle(url: str, prefix: str, algorithm: str, operations: int, processes: int, process: int) -> None:
    """Send this process's messages, a few at a time."""
    async with RedisStore.from_url(url, prefix=prefix, timeout=30.0) as store:
        limiter = limiter_of(store, algorithm)
        await limiter.peek()
        await all_ready(url, prefix, processes)
        mine = (message for message in messages(operations, processes) if message.process == process)
        await asyncio.gather(*(_send(limiter, mine) for _ in range(10)))


async def _send(limiter: RateLimiter, mine: Iterator[Message]) -> None:
    random = Random()
    for message in mine:
        cost = {"requests": message.requests, "tokens": message.tokens}
        if random.random() < 0.3:  # later than those that come after
            await asyncio.sleep(random.random() * 0.01)
        if message.kind == "reserve":
            await limiter.reserve(key=message.tenant, cost=cost, id=message.id)
        else:
            await limiter.settle(message.id, key=message.tenant, actual=cost)


if __name__ == "__main__":
    _, url, prefix, algorithm, *numbers = sys.argv
    asyncio.run(settle(url, prefix, algorithm, *map(int, numbers)))
