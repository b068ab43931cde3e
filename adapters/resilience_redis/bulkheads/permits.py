"""The permits of a bulkhead in Redis: one script call takes them, one gives them back.

    permits = store.bulkheads(BulkheadSpec("reports", limit=3, queue=10))
    answer = await permits.acquire("tenant-7", weight=1, max_wait=2.0)

What this process holds or waits for, and its renewal, is in `holdings`; the record is in `scripts/permits.lua`.
All keys of a bulkhead are in one slot, so that one call renews everything that a process holds of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from resilience.permits.permits_state import BulkheadSpec, Grant, Occupancy
from resilience_redis.bulkheads.hold import Hold
from resilience_redis.bulkheads.holdings import Holdings
from resilience_redis.connection.replies import as_text

if TYPE_CHECKING:
    from resilience_redis.link import Link

VERSION = "v1"
"""Of the layout of records; a new layout gets new keys."""

_RESERVED = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D", ":": "%3A"})


class RedisPermits:
    """`RemotePermits` on a Redis server."""

    def __init__(self, spec: BulkheadSpec, prefix: str, link: Callable[[], Link]) -> None:
        self._spec = spec
        self._limit = spec.limit
        self._link = link
        self._tag = f"{{{prefix}:{escaped(spec.name)}}}:permits:{VERSION}:"
        self._holdings: dict[Link, Holdings] = {}

    async def acquire(self, key: str, weight: int, max_wait: float | None) -> Grant | Occupancy:
        """Take permits, or wait in the queue; what is in use if neither. Raises StoreUnavailableError."""
        return await self._here().acquire(key, weight, max_wait)

    def adopt(self, key: str, weight: int) -> Grant:
        """Count a call that was admitted without the store."""
        return self._here().adopt(key, weight)

    def release(self, grant: Grant) -> None:
        """Give permits back, without waiting."""
        if isinstance(grant, Hold):
            grant.home.release(grant)

    def resize(self, limit: int) -> None:
        """Ask with another limit from now on."""
        self._limit = limit
        for holdings in self._holdings.values():
            holdings.resize(limit)

    def share(self) -> int:
        """The limit divided by the number of live processes, rounded up."""
        return math.ceil(self._limit / self._here().link.members.count)

    async def peek(self, key: str) -> Occupancy:
        """What is in use and waiting now, in all processes. Raises StoreUnavailableError."""
        holdings = self._here()
        reply = await holdings.link.run(*holdings.call("peek", self.keys(key)))
        _, in_use, waiting = map(int, as_text(reply).split())
        return Occupancy(in_use, waiting)

    def keys(self, key: str) -> list[str]:
        """Return the Redis keys of one key's record."""
        base = self._tag + escaped(key)
        return [base, f"{base}:leases", f"{base}:queue"]

    def _here(self) -> Holdings:
        """What this process holds in the running event loop."""
        link = self._link()
        known = self._holdings.get(link)
        if known is None:
            self._holdings = {link: each for link, each in self._holdings.items() if not each.over}
            known = self._holdings[link] = Holdings(link, self._spec, self._limit, self.keys)
        return known


def escaped(name: str) -> str:
    """Return a name without the characters that mean something in keys."""
    return name.translate(_RESERVED)
