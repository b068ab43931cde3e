"""The Redis of the demonstration: the one that was asked for, one that is found, one that is started, or none."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any


class NoRedisError(Exception):
    """The server that was asked for does not answer, or the one that was started."""


@contextmanager
def redis_server(url: str | None) -> Generator[str | None]:
    """The URL of a server that answers, or None if there is none; one that is started here is stopped."""
    with ExitStack() as stack:
        if url is None:
            url = _found(stack)
        if url is not None:
            _check(url)
        yield url


def _found(stack: ExitStack) -> str | None:
    """A server that runs already or is started here; None without any, or without its client."""
    try:
        from resilience_redis.server import start_server

        return stack.enter_context(start_server()).url
    except (ImportError, FileNotFoundError):
        return None
    except TimeoutError as error:
        raise NoRedisError(str(error)) from None


def _check(url: str) -> None:
    try:
        from redis import Redis, RedisError
    except ImportError:
        raise NoRedisError("--redis needs redis-py: pip install 'anyresilience[redis]'") from None
    client: Any = Redis  # its methods are typed in part only
    try:
        with client.from_url(url, socket_timeout=2.0, socket_connect_timeout=2.0) as connected:
            connected.ping()
    except (RedisError, ValueError) as error:
        raise NoRedisError(f"no answer from {url}: {error}") from None
