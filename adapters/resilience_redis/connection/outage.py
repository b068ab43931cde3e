"""Which errors of Redis are outages, that time may cure, and which are mistakes, that it cannot."""

from __future__ import annotations

import re

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterError,
    MaxConnectionsError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    SlotNotCoveredError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from resilience.errors import StoreUnavailableError

_OUTAGES = (
    RedisConnectionError,
    RedisTimeoutError,
    ClusterError,  # the cluster is down, or redis-py followed a moving slot until it had enough
    OutOfMemoryError,
    ReadOnlyError,
    SlotNotCoveredError,
    TryAgainError,
    OSError,  # also the built-in TimeoutError
)
_CONFIGURATION = (AuthenticationError, AuthorizationError)  # although redis-py derives them from ConnectionError
_OUTAGE_REPLIES = re.compile(
    r"(BUSY|MISCONF|NOREPLICAS) "
    r"|All slots are not covered|startup_nodes could not agree|No targets were found"  # redis-py on a cluster
    r"|Error running script .*: -(MISCONF|NOREPLICAS|OOM|READONLY) "  # as servers before 7.0 say it
)


def as_outage(error: Exception) -> Exception:
    """Return StoreUnavailableError for what time may cure, a new one each time; any other error as it is."""
    if isinstance(error, StoreUnavailableError):
        return StoreUnavailableError(str(error))
    if not _is_outage(error):
        return error
    what = str(error) if isinstance(error, (RedisError, RedisClusterException)) else type(error).__name__
    outage = StoreUnavailableError(f"Redis is not available: {what}")
    outage.__cause__ = error
    return outage


def _is_outage(error: BaseException) -> bool:
    if isinstance(error, _CONFIGURATION):
        return False
    if isinstance(error, _OUTAGES):
        return True
    if isinstance(error, RedisClusterException) and error.__cause__ is not None:
        return _is_outage(error.__cause__)  # why no server told redis-py where the slots are
    return isinstance(error, (ResponseError, RedisClusterException)) and bool(_OUTAGE_REPLIES.match(str(error)))


def means_away(error: Exception) -> bool | None:
    """Whether the next command will fare no better; False: only if this goes on; None: it says nothing of the server.

    A pool that is empty, or a slot that is on the move, is no reason to spare the server other commands.
    """
    if not _is_outage(error) or isinstance(error, (MaxConnectionsError, TryAgainError)):
        return None
    return isinstance(error, (RedisConnectionError, RedisTimeoutError, ReadOnlyError, OSError))
