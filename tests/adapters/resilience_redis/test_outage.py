"""What is an outage and what a mistake, in the words of all servers; most are also heard from real ones."""

from __future__ import annotations

import pytest
from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    ClusterError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from resilience.errors import StoreUnavailableError
from resilience_redis.connection.outage import as_outage

IN_SCRIPT = "Error running script (call to f_0558e9): @user_script:84: @user_script: 84: "
"""How servers before 7.0 begin."""


def no_server(cause: Exception) -> RedisClusterException:
    """What redis-py says when no server of a cluster told it anything."""
    error = RedisClusterException(f"Redis Cluster cannot be connected. {cause}")
    error.__cause__ = cause
    return error


OUTAGES = [
    RedisConnectionError("Error 111 connecting to 127.0.0.1:1."),
    OSError("no route"),
    TimeoutError(),
    OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
    ReadOnlyError("You can't write against a read only replica."),
    ClusterDownError("The cluster is down"),
    ClusterError("TTL exhausted."),
    ResponseError("BUSY Redis is busy running a script."),
    ResponseError("NOREPLICAS Not enough good replicas to write."),
    ResponseError("MISCONF Redis is configured to save RDB snapshots"),
    ResponseError(IN_SCRIPT + "-OOM command not allowed when used memory > 'maxmemory'."),
    ResponseError(IN_SCRIPT + "-READONLY You can't write against a read only replica."),
    ResponseError(IN_SCRIPT + "-NOREPLICAS Not enough good replicas to write."),
    ResponseError(IN_SCRIPT + "-MISCONF Redis is configured to save RDB snapshots"),
    RedisClusterException("All slots are not covered after query all startup_nodes. 10923 of 16384 covered..."),
    no_server(RedisConnectionError("Error 111 connecting to 127.0.0.1:1.")),
    no_server(TimeoutError()),
]
MISTAKES = [
    AuthenticationError("invalid username-password pair"),
    NoPermissionError("this user has no permissions to run the 'evalsha' command"),
    ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
    ResponseError(IN_SCRIPT.removesuffix("@user_script: 84: ") + "WRONGTYPE Operation against a key"),
    ResponseError(IN_SCRIPT + "The user executing the script can't run this command or subcommand"),
    ResponseError("RESILIENCE limit must be greater than 0, got -OOM "),
    RedisClusterException("EVALSHA - all keys must map to the same key slot"),
    no_server(RedisClusterException("Cluster mode is not enabled on this node")),
    no_server(AuthenticationError("invalid username-password pair")),
    ValueError("no answer of Redis at all"),
]


@pytest.mark.parametrize("error", OUTAGES, ids=repr)
def test_time_may_cure_an_outage(error: Exception) -> None:
    outage = as_outage(error)
    assert isinstance(outage, StoreUnavailableError)
    assert outage.__cause__ is error


@pytest.mark.parametrize("error", MISTAKES, ids=repr)
def test_time_cannot_cure_a_mistake(error: Exception) -> None:
    assert as_outage(error) is error
