"""The entries of caches: how fresh they are, and which are being fetched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from resilience_redis.inspection.connection import Connection
from resilience_redis.inspection.entry import Entry, Owner, Place, seconds


class CacheKind:
    """Reads what `cache.lua` writes: a hash for each entry, of whose value only the length."""

    kind = "cache"

    def owner(self, place: Place) -> Owner | None:
        """The cache and the key."""
        if len(place.tags) == 2 and len(place.rest) == 3 and place.rest[:2] == ("cache", "v1"):
            return Owner(self.kind, *place.tags, place.rest[2])
        return None

    def read(self, server: Connection, prefix: str, owner: Owner, keys: Sequence[str], now: float) -> Iterable[Entry]:
        """Fresh, then stale, for so long; `fetching` is the rest of the lease of who fetches it."""
        expires, stale, lease = server.fields(keys[0], "e", "s", "l")
        facts: dict[str, Any] = {"codec": owner.part, "length": server.length(keys[0], "v")}
        for fact, until in (("fresh", expires), ("stale", stale), ("fetching", lease)):
            facts[fact] = max(0.0, seconds(float(until), now)) if until else 0.0
        yield Entry(self.kind, owner.name, owner.key, facts, tuple(keys))
