"""State of policies in Redis (or Valkey), shared by every process that uses it.

store = RedisStore.from_url("redis://localhost")
limiter = RateLimiter("100/s", name="search", store=store)
"""

from __future__ import annotations

try:
    import redis as _redis  # noqa: F401
except ImportError as error:  # the message is the point: say what to install
    raise ImportError("resilience_redis needs redis-py: pip install 'anyresilience[redis]'") from error

from resilience_redis.store import RedisStore

__all__ = ["RedisStore"]
