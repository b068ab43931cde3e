"""What processes share through a server, for those who want to see it, or to make an end of it.

    with connect("redis://localhost") as server:
        found = look(server, "resilience", most=1000)
        for entry in found.entries:
            print(entry.kind, entry.name, entry.key, entry.facts)

Looking changes nothing and holds up nobody. Each kind of policy has its reader here, beside what writes its keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from redis.exceptions import NoPermissionError, ResponseError

from resilience_redis.catalogue import catalogue_key
from resilience_redis.inspection.budgets import BudgetKind
from resilience_redis.inspection.cache import CacheKind
from resilience_redis.inspection.circuits import VIEWS, CircuitKind, close
from resilience_redis.inspection.connection import BATCH, Connection, connect
from resilience_redis.inspection.entry import Entry, Facts, Kind, Owner, place_of
from resilience_redis.inspection.limits import LimitKind
from resilience_redis.inspection.members import MemberKind
from resilience_redis.inspection.permits import PermitKind
from resilience_redis.inspection.reservations import ReservationKind
from resilience_redis.inspection.slices import SliceKind
from resilience_redis.store import _BRACES

__all__ = ["KINDS", "VIEWS", "Connection", "Entry", "Facts", "Found", "Owner", "connect", "forget", "look", "owners"]

_READERS: tuple[Kind, ...] = (
    MemberKind(),
    SliceKind(),
    LimitKind(),
    ReservationKind(),
    CircuitKind(),
    PermitKind(),
    BudgetKind(),
    CacheKind(),
)
"""The first that knows a key reads it."""

OTHER = "other"
"""The kind of keys in the namespace that no reader knows: of another version, or somebody else's."""

KINDS = (*(each.kind for each in _READERS), OTHER)


@dataclass(frozen=True, slots=True)
class Found:
    """What was found; `cut` if there was more."""

    entries: Sequence[Entry]
    cut: bool


def look(server: Connection, prefix: str, most: int) -> Found:
    """Read what is in a namespace, from at most so many keys. Raises redis.RedisError."""
    prefix = prefix.translate(_BRACES)
    groups: dict[Owner, list[str]] = {}
    cut = False
    for count, (owner, key) in enumerate(_scan(server, prefix)):
        if count >= most:
            cut = True
            break
        groups.setdefault(owner, []).append(key)
    now = server.now()
    entries = [entry for owner, keys in groups.items() for entry in _read(server, prefix, owner, keys, now)]
    return Found(sorted(entries, key=lambda each: (KINDS.index(each.kind), each.name, each.key, each.redis_keys)), cut)


def owners(server: Connection, prefix: str) -> Iterator[tuple[Owner, str]]:
    """Yield every Redis key of a namespace with what it is a part of."""
    yield from _scan(server, prefix.translate(_BRACES))


def _scan(server: Connection, prefix: str) -> Iterator[tuple[Owner, str]]:
    for key in server.scan(f"{{{prefix}:"):
        if key == catalogue_key(prefix):
            continue  # what every process has told once; without it nobody could read the limits
        place = place_of(prefix, key)
        found = (each.owner(place) for each in _READERS)
        yield next((owner for owner in found if owner), Owner(OTHER, key)), key


def forget(server: Connection, prefix: str, found: Iterable[tuple[Owner, str]]) -> int:
    """Make an end of what `owners` found: delete keys, close circuits; returns how many of both."""
    done, batch = 0, list[str]()
    for owner, key in found:
        if owner.kind != CircuitKind.kind:
            batch.append(key)
        elif owner.part != VIEWS:
            close(server, prefix.translate(_BRACES), owner, key)
            done += 1
        if len(batch) == BATCH:
            done += server.unlink(batch)
            batch.clear()
    return done + server.unlink(batch)


def _read(server: Connection, prefix: str, owner: Owner, keys: Sequence[str], now: float) -> Sequence[Entry]:
    for each in _READERS:
        if each.kind == owner.kind:
            try:
                return list(each.read(server, prefix, owner, keys, now))
            except NoPermissionError:
                raise
            except (ResponseError, ValueError) as error:  # somebody wrote there who is none of us
                return [Entry(owner.kind, owner.name, owner.key, {"error": str(error)}, tuple(keys))]
    return [Entry(OTHER, owner.name, "", {}, tuple(keys))] if owner.kind == OTHER else []
