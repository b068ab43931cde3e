"""Reservations of rate limiters: what ids were charged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from resilience_redis.inspection.connection import Connection
from resilience_redis.inspection.entry import Entry, Owner, Place


class ReservationKind:
    """Reads what `_ledger.lua` writes: a key for each id."""

    kind = "reservations"

    def owner(self, place: Place) -> Owner | None:
        """The limiter, its key and the id."""
        if len(place.tags) != 2 or len(place.rest) not in (3, 4) or place.rest[0] != "reserved":
            return None
        name, key = place.tags
        return Owner(self.kind, name, place.rest[3] if len(place.rest) == 4 else key, place.rest[2])

    def read(self, server: Connection, prefix: str, owner: Owner, keys: Sequence[str], now: float) -> Iterable[Entry]:
        """What each limit was charged; what is not settled stays charged when the record is gone."""
        settled, _, _, *rest = server.text(keys[0]).split(",")
        charged = rest if settled == "1" else rest[: len(rest) // 2]
        facts = {"id": owner.part, "settled": settled == "1", "charged": [float(each) for each in charged]}
        yield Entry(self.kind, owner.name, owner.key, facts, tuple(keys))
