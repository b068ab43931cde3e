"""The permits of bulkheads: who holds them, who waits, and the fencing token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from resilience_redis.inspection.connection import Connection
from resilience_redis.inspection.entry import Entry, Owner, Place, seconds


class PermitKind:
    """Reads what `permits.lua` writes: a hash, its leases and its queue."""

    kind = "permits"

    def owner(self, place: Place) -> Owner | None:
        """The bulkhead and its key."""
        if len(place.tags) == 1 and len(place.rest) in (3, 4) and place.rest[:2] == ("permits", "v1"):
            return Owner(self.kind, place.tags[0], place.rest[2])
        return None

    def read(self, server: Connection, prefix: str, owner: Owner, keys: Sequence[str], now: float) -> Iterable[Entry]:
        """Those whose lease has ended hold nothing, although nobody has cleared them away yet."""
        base = keys[0].removesuffix(":leases").removesuffix(":queue")
        record = server.hash(base)
        holders: list[dict[str, float | str]] = []
        in_use = waiting = 0
        for id, until in server.ranked(f"{base}:leases"):
            weight, token = map(int, record.get(id, "0 -1").split())
            if until > now and token > 0:
                in_use += weight
                holders.append({"id": id, "weight": weight, "token": token, "lease": seconds(until, now)})
            elif until > now and token == 0:
                waiting += 1
        facts = {"in_use": in_use, "waiting": waiting, "fence": int(record.get("fence", 0)), "holders": holders}
        yield Entry(self.kind, owner.name, owner.key, facts, tuple(keys))
