"""State of policies in Redis (or Valkey), shared by every process that uses it.

store = RedisStore.from_url("redis://localhost")
limiter = RateLimiter("100/s", name="search", store=store)
"""

from __future__ import annotations

try:
    from resilience_redis.store import RedisStore
except ModuleNotFoundError as error:
    if error.name != "redis":
        raise
    raise ImportError("resilience_redis needs redis-py: pip install 'anyresilience[redis]'") from error

__all__ = ["RedisStore"]
