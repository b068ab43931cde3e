"""Tests with `lib` run with httpx and with httpx2, on asyncio and on trio, in real time."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.http_server import MisbehavingServer
from tests.support.redis import own_server, redis_prefix, redis_server

__all__ = ["own_server", "redis_prefix", "redis_server"]


@pytest.fixture(params=["httpx", "httpx2"])
def lib(request: pytest.FixtureRequest) -> Any:
    """The client library, as a module."""
    return importlib.import_module(request.param)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def running_server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer() as server:
        yield server


@pytest.fixture
def server(running_server: MisbehavingServer) -> MisbehavingServer:
    """A server that remembers nothing of other tests."""
    running_server.forget()
    return running_server
