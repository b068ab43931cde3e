"""The circuits of breakers: their states, how the processes find what they protect, and who probes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from resilience.machines.breaker_records import BreakerRule, BreakerState
from resilience_redis.breakers.circuit_wire import STATES, identity_of, rule_line
from resilience_redis.breakers.fleet import Fleet
from resilience_redis.inspection.connection import Connection
from resilience_redis.inspection.entry import Entry, Owner, Place, seconds
from resilience_redis.scripts import script_of

if TYPE_CHECKING:
    from resilience_redis.link import Link

VIEWS = "views"
"""The part that holds no circuit by itself."""

_LIFETIME = 60.0
_EVERYTHING = "9e15"
"""The version of one who wants to hear no news."""


class CircuitKind:
    """Reads what `breaker.lua` writes: a hash for each circuit, and the views of all."""

    kind = "circuits"

    def owner(self, place: Place) -> Owner | None:
        """The breaker and its key; the views have neither."""
        if place.tags != ("breakers",) or place.rest[:1] != ("v1",):
            return None
        if len(place.rest) == 4 and place.rest[1] == "circuit":
            return Owner(self.kind, *place.rest[2:])
        return Owner(self.kind, part=VIEWS)

    def read(self, server: Connection, prefix: str, owner: Owner, keys: Sequence[str], now: float) -> Iterable[Entry]:
        """Each circuit from its own hash, where there is more than in the view of it."""
        if owner.part == VIEWS:
            return
        record = server.hash(keys[0])
        words = record.get("s", "0 0 0 0 0 0 0 0").split()
        state, moment = STATES[int(words[0])], float(words[2])
        facts: dict[str, Any] = {"state": state.value, "generation": int(float(words[1]))}
        if state is BreakerState.OPEN:
            facts |= {"until": seconds(moment, now), "opened": int(words[4])}
        if state is BreakerState.HALF_OPEN:
            probes = [float(until) for field, until in record.items() if field.startswith("l")]
            facts |= {"probes": len(probes), "probed": int(words[5]), "failures": int(words[6]), "slow": int(words[7])}
        if state is BreakerState.CLOSED:
            facts |= _votes([vote.split() for field, vote in record.items() if field.startswith("w")], now)
        yield Entry(self.kind, owner.name, owner.key, facts, tuple(keys))


def close(server: Connection, prefix: str, owner: Owner, key: str) -> None:
    """Close a circuit as an operator does in a process, so that every process hears of it.

    Deleting it would leave it open, or isolated, in those that know it so.
    """
    fleet = Fleet(_no_link, prefix)
    asks = [identity_of(owner.name, owner.key), rule_line(BreakerRule(), _LIFETIME), "1", "z"]
    script = script_of("_prelude", "breaker")
    server.run((script, [*fleet.keys, key], ["", "operator", fleet.channel, _EVERYTHING, "0", *asks]))


def _no_link() -> Link:
    raise RuntimeError("nothing is sent through here")


def _votes(votes: Sequence[Sequence[str]], now: float) -> dict[str, int]:
    current = [vote for vote in votes if float(vote[3]) > now]
    calls, failures, slow = (sum(int(vote[index]) for vote in current) for index in range(3))
    return {"processes": len(current), "calls": calls, "failures": failures, "slow": slow}
