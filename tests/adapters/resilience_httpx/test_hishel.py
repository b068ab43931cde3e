"""The caching of RFC 9111 around our transport: hits never reach the policies, everything else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hishel
import httpx
import pytest
from hishel.httpx import AsyncCacheTransport

from resilience import Bulkhead, Pipeline, Retry
from resilience_httpx import ResilientTransport
from tests.support.http_server import Answer, MisbehavingServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Its storage is one for asyncio."""
    return "asyncio"


async def test_hits_reach_no_policy_and_misses_all(server: MisbehavingServer, tmp_path: Path) -> None:
    fresh: dict[str, Any] = {"Cache-Control": "max-age=60"}
    url = server.answer("/", Answer(503), Answer(200, b"kept", headers=fresh), Answer(500))
    bulkhead = Bulkhead(5)
    inner = ResilientTransport(Pipeline(Retry(attempts=3), bulkhead))
    storage = hishel.AsyncSqliteStorage(database_path=tmp_path / "cache.db")
    async with httpx.AsyncClient(transport=AsyncCacheTransport(next_transport=inner, storage=storage)) as client:
        answers = [await client.get(url) for _ in range(3)]
    assert [answer.content for answer in answers] == [b"kept"] * 3
    assert len(server.received("/")) == 2, "a failure, its retry, and two hits"
    assert bulkhead.in_use() == 0
