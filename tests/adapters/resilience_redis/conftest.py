from tests.support.redis import own_server, plain_redis, redis_prefix, redis_server

__all__ = ["own_server", "plain_redis", "redis_prefix", "redis_server"]
