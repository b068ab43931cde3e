"""A real server for tests: one per session (and xdist worker); each test has keys of its own."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
import redis

from resilience_redis.server import Server, start_server

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture(scope="session")
def redis_server() -> Generator[Server]:
    """The server that tests share; without any the tests fail, they do not skip."""
    with start_server() as server:
        yield server


@pytest.fixture
def own_server() -> Generator[Server]:
    """A server of the test's own, to be stopped, flushed or killed."""
    with start_server("--loglevel", "warning") as server:
        yield server


@pytest.fixture
def redis_prefix() -> str:
    """A namespace that no other test uses."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
def plain_redis(redis_server: Server) -> Generator[Any]:
    """A synchronous client, for looking behind the store's back."""
    with sync_client(redis_server.url) as client:
        yield client


def sync_client(url: str) -> Any:
    """A synchronous client; redis-py leaves much of it without types."""
    make: Any = redis.Redis
    return make.from_url(url)
