"""The live processes of a store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from resilience_redis.inspection.connection import Connection
from resilience_redis.inspection.entry import Entry, Owner, Place, seconds


class MemberKind:
    """Reads what `members.lua` writes: one sorted set."""

    kind = "members"

    def owner(self, place: Place) -> Owner | None:
        """All are in one key."""
        return Owner(self.kind) if (place.tags, place.rest) == (("members",), ()) else None

    def read(self, server: Connection, prefix: str, owner: Owner, keys: Sequence[str], now: float) -> Iterable[Entry]:
        """Those whose last sign of life is recent enough."""
        alive = {member: seconds(until, now) for member, until in server.ranked(keys[0]) if until > now}
        yield Entry(self.kind, "", "", {"processes": len(alive), "counted_for": alive}, tuple(keys))
