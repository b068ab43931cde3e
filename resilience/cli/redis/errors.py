"""What can go wrong between here and a server, said in one line."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from urllib.parse import urlsplit

from redis.exceptions import RedisClusterException, RedisError

from resilience_redis.inspection import Connection, connect


class ServerError(Exception):
    """There is no server, or none that does what is asked of it."""


@contextlib.contextmanager
def server_at(url: str) -> Generator[Connection]:
    """Yield a connection. Raises ServerError for all that goes wrong with it."""
    try:
        with connect(url) as server:
            yield server
    except (RedisError, RedisClusterException, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ServerError(f"{without_password(url)}: {reason or type(error).__name__}") from error


def without_password(url: str) -> str:
    """A URL that may be shown."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return parts._replace(netloc=f"{parts.username}:***@{parts.netloc.rpartition('@')[2]}").geturl()
