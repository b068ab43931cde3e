"""The slices of leased limits: what each process may give without asking."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from resilience_redis.inspection.connection import Connection
from resilience_redis.inspection.entry import Entry, Owner, Place, seconds


class SliceKind:
    """Reads what `leased.lua` writes: a hash beside the limits."""

    kind = "slices"

    def owner(self, place: Place) -> Owner | None:
        """The limiter and its key."""
        if len(place.tags) == 2 and len(place.rest) == 5 and place.rest[4] == "slices":
            return Owner(self.kind, *place.tags)
        return None

    def read(self, server: Connection, prefix: str, owner: Owner, keys: Sequence[str], now: float) -> Iterable[Entry]:
        """Those that have not ended; what was given back and waits for a taker is nobody's."""
        held: list[dict[str, float | str]] = []
        spare = 0.0
        for holder, stored in server.hash(keys[0]).items():
            units, until, wanted, *_ = map(float, stored.split())
            if until <= now:
                continue
            if holder == "-":
                spare = units
            elif units > 0:
                held.append({"process": holder, "units": units, "wanted": wanted, "lease": seconds(until, now)})
        facts = {"units": sum(float(each["units"]) for each in held), "spare": spare, "slices": held}
        yield Entry(self.kind, owner.name, owner.key, facts, tuple(keys))
