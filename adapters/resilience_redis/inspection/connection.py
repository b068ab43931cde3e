"""A way to look at a server that holds up nobody: one small command at a time, and no other process waits for it.

with connect("redis://localhost") as server:
    for key in server.scan("{resilience:"):
        ...
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import redis

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from resilience_redis.scripts import Call

TIMEOUT = 5.0
"""Seconds that connecting, or any command, may take."""

BATCH = 500
"""Keys that one command looks at: a fraction of a millisecond for the server."""


class Connection:
    """A server, or every master of a cluster."""

    def __init__(self, client: Any, is_cluster: bool) -> None:
        self._client = client
        self._is_cluster = is_cluster

    def text(self, key: str) -> str:
        """A string; empty if there is none."""
        return self._client.get(key) or ""

    def hash(self, key: str) -> dict[str, str]:
        """A hash."""
        found: dict[str, str] = self._client.hgetall(key)
        return found

    def fields(self, key: str, *names: str) -> list[str]:
        """Some fields of a hash; those that it does not have are empty."""
        return [value or "" for value in self._client.hmget(key, names)]

    def length(self, key: str, name: str) -> int:
        """How many bytes are in a field of a hash."""
        return int(self._client.hstrlen(key, name))

    def ranked(self, key: str) -> list[tuple[str, float]]:
        """The members of a sorted set with their scores, lowest first."""
        return [(member, float(score)) for member, score in self._client.zrange(key, 0, -1, withscores=True)]

    def ends(self, key: str) -> list[str]:
        """The first item of a list, and the last."""
        return [item for item in (self._client.lindex(key, 0), self._client.lindex(key, -1)) if item is not None]

    def scan(self, start: str) -> Iterator[str]:
        """Yield every key that begins with this text, in no order, each once."""
        masters: list[Any] = self._client.get_primaries() if self._is_cluster else [None]
        for master in masters:
            seen: set[str] = set()  # a key may be reported twice while the server makes room
            where: dict[str, Any] = {"target_nodes": master} if master else {}
            for key in self._client.scan_iter(match=_glob(start) + "*", count=BATCH, **where):
                if key not in seen:
                    seen.add(key)
                    yield key

    def now(self) -> float:
        """The server's time in microseconds."""
        where: dict[str, Any] = {"target_nodes": self._client.get_primaries()[0]} if self._is_cluster else {}
        seconds, microseconds = self._client.time(**where)
        return float(seconds * 1_000_000 + microseconds)

    def run(self, call: Call) -> Any:
        """Run a script of the store."""
        script, keys, arguments = call
        return self._client.execute_command(*script.by_source(keys, arguments))

    def unlink(self, keys: Sequence[str]) -> int:
        """Delete keys, of any slots; returns how many there were."""
        if self._is_cluster:  # one by one, for each slot is perhaps elsewhere
            return sum(int(self._client.unlink(key)) for key in keys)
        return sum(int(self._client.unlink(*keys[at : at + BATCH])) for at in range(0, len(keys), BATCH))


@contextlib.contextmanager
def connect(url: str) -> Generator[Connection]:
    """Yield a connection to the server at `url`, to all masters if it is one of a cluster.

    Raises redis.RedisError or redis.exceptions.RedisClusterException if there is none, or none that lets us in, and
    ValueError for what is no URL.
    """
    options: dict[str, Any] = {
        "decode_responses": True,
        "encoding_errors": "surrogateescape",  # others may have put anything there
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
    }
    plain: Any = redis.Redis
    with plain.from_url(url, **options) as client:
        if client.info("cluster").get("cluster_enabled") != 1:
            yield Connection(client, False)
            return
    cluster: Any = redis.RedisCluster
    with cluster.from_url(url, **options) as client:
        yield Connection(client, True)


def _glob(text: str) -> str:
    """A pattern that means the text itself."""
    return "".join(f"\\{each}" if each in "*?[]\\^" else each for each in text)
