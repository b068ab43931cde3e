"""Retry budgets: what is in the bank, and what processes have taken from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from resilience_redis.inspection.connection import Connection
from resilience_redis.inspection.entry import Entry, Owner, Place, seconds


class BudgetKind:
    """Reads what `budget.lua` writes: a hash, and a sorted set of when slices are written off."""

    kind = "budgets"

    def owner(self, place: Place) -> Owner | None:
        """The budget."""
        if len(place.tags) == 1 and len(place.rest) in (2, 3) and place.rest[:2] == ("budget", "v1"):
            return Owner(self.kind, place.tags[0])
        return None

    def read(self, server: Connection, prefix: str, owner: Owner, keys: Sequence[str], now: float) -> Iterable[Entry]:
        """The slices that count, by process."""
        base = keys[0].removesuffix(":slices")
        record = server.hash(base)
        slices = [
            {"process": id, "tokens": float(record[id].split()[0]), "lease": seconds(until, now)}
            for id, until in server.ranked(f"{base}:slices")
            if until > now and id in record
        ]
        facts = {"tokens": float(record.get("tokens", 0)), "lent": float(record.get("lent", 0)), "slices": slices}
        yield Entry(self.kind, owner.name, "", facts, tuple(keys))
