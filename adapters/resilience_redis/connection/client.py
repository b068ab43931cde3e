"""The client a store talks through: the user's own, or one made from a URL; never one that retries.

A command that timed out was most often carried out. A client that then sends it again charges a limit twice,
so calls that change state go through a client without retries: a plain client that retries gets a twin with
the same settings and no retries; for others (Cluster, Sentinel, pools of one's own) retrying is refused.
"""

from __future__ import annotations

from typing import Any

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from resilience_redis.connection.traffic import WIDTH


def client_from_url(url: str, connect_timeout: float, options: dict[str, Any]) -> Any:
    """Return a client with a modest pool that waits instead of raising, and no retries."""
    settings = {
        "max_connections": WIDTH,
        "timeout": None,
        "socket_connect_timeout": connect_timeout,
        "socket_timeout": None,  # the store has a deadline of its own, and redis-py's costs 20 us a command
        "retry": no_retries(),
    }
    make_pool: Any = BlockingConnectionPool
    return Redis.from_pool(make_pool.from_url(url, **(settings | options)))


def retries_of(client: Any) -> int:
    """Return how often a client repeats a command that failed."""
    retry = client.retry if hasattr(client, "retry") else client.get_retry()
    return 0 if retry is None else retry.get_retries()


def can_have_twin(client: Any) -> bool:
    """Return whether `client` is a plain one, with a pool that can be made again from its settings."""
    pool = getattr(client, "connection_pool", None)
    return type(pool) in (ConnectionPool, BlockingConnectionPool)


def check_client(client: Any) -> None:
    """Raise TypeError for what is no asyncio client, ValueError for one that would charge twice."""
    if not type(client).__module__.startswith("redis.asyncio") and not isinstance(client, Redis):
        raise TypeError(f"client must be a redis.asyncio client, got {type(client).__name__}")
    if retries_of(client) and not can_have_twin(client):
        raise ValueError(
            f"client must not retry, this one does so {retries_of(client)} times: a command repeated after a "
            "timeout is charged twice. Build it with retry=Retry(NoBackoff(), 0)"
        )


def twin_of(client: Any) -> Any:
    """Return a client with the settings of `client` and connections of its own that never retry.

    Commands have the store's deadline instead of a timeout of the socket.
    """
    pool = client.connection_pool
    settings = {key: value for key, value in pool.connection_kwargs.items() if key not in _OF_ONE_POOL}
    settings |= {"retry": no_retries(), "socket_timeout": None, "max_connections": WIDTH, "timeout": None}
    return Redis.from_pool(BlockingConnectionPool(connection_class=pool.connection_class, **settings))


def no_retries() -> Retry:
    """Return redis-py's word for one try."""
    return Retry(NoBackoff(), 0)


# Objects that belong to the pool whose settings they are among, and settings that add retries of their own.
_OF_ONE_POOL = frozenset({"event_dispatcher", "himport_registry", "retry", "retry_on_error", "retry_on_timeout"})
