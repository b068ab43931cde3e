"""Which errors of Redis are outages, that time may cure, and which are mistakes, that it cannot."""

from __future__ import annotations

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
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
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    SlotNotCoveredError,
    TryAgainError,
    OSError,  # also the built-in TimeoutError
)
_CONFIGURATION = (AuthenticationError, AuthorizationError)  # although redis-py derives them from ConnectionError
_OUTAGE_REPLIES = ("BUSY ", "MISCONF ", "NOREPLICAS ")


def as_outage(error: Exception) -> Exception:
    """Return StoreUnavailableError for what time may cure, any other error as it is."""
    away = isinstance(error, _OUTAGES) and not isinstance(error, _CONFIGURATION)
    if not away and isinstance(error, ResponseError):
        away = str(error).startswith(_OUTAGE_REPLIES)
    if not away:
        return error
    what = str(error) if isinstance(error, RedisError) else type(error).__name__
    outage = StoreUnavailableError(f"Redis is not available: {what}")
    outage.__cause__ = error
    return outage
