"""What is found in a server, and who can read it.

entry = Entry("permits", "reports", "tenant-7", {"in_use": 2}, ("{resilience:reports}:permits:v1:tenant-7",))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias
from urllib.parse import unquote

from resilience_redis.inspection.connection import Connection

Facts: TypeAlias = Mapping[str, Any]
"""What JSON can say. Times are seconds from now, negative ones ago."""


class Owner(NamedTuple):
    """What a Redis key is a part of."""

    kind: str
    name: str = ""
    key: str = ""
    part: str = ""
    """Tells apart what has the same name and key, as several limits of one limiter."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that processes share, with the keys that hold it."""

    kind: str
    name: str
    key: str
    facts: Facts
    redis_keys: tuple[str, ...]


class Kind(Protocol):
    """Reads what one kind of policy keeps in a server."""

    @property
    def kind(self) -> str:
        """What its entries are called."""
        ...

    def owner(self, place: Place) -> Owner | None:
        """Return what a Redis key is a part of, or None if it is not of this kind."""
        ...

    def read(self, server: Connection, prefix: str, owner: Owner, keys: Sequence[str], now: float) -> Iterable[Entry]:
        """Read what those keys, all that were found of that owner, say; `now` is the server's, in microseconds."""
        ...


class Place(NamedTuple):
    """A Redis key: `{prefix:tag:tag}:rest:rest`, with what the namespace has in braces and what comes after."""

    redis_key: str
    tags: tuple[str, ...]
    rest: tuple[str, ...]


def place_of(prefix: str, redis_key: str) -> Place:
    """Take apart a key that begins with a brace and the prefix."""
    tags, _, rest = redis_key[len(prefix) + 2 :].partition("}")
    return Place(redis_key, tuple(map(unquote, tags.split(":"))), tuple(map(unquote, rest.split(":")[1:])))


def seconds(until: float, now: float) -> float:
    """The time from one moment to another, both in microseconds, for people: to the millisecond."""
    return round((until - now) / 1e6, 3)
