"""Deadlines and hedges cancel requests at the worst of moments, and the pool is as good as new."""

from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import Any

import anyio
import httpcore
import httpx
import pytest
from httpcore._async.connection_pool import AsyncPoolRequest

from resilience import Bulkhead, Hedge, Pipeline, Policy, Timeout
from resilience_httpx.stranded import close_stranded
from tests.support.http_server import Answer, MisbehavingServer

from .support import always, connected, retry

pytestmark = pytest.mark.anyio

SILENT = Answer(0, ending="hang")


@pytest.mark.parametrize(
    "policy",
    [
        Pipeline(Timeout(0.02)),
        Pipeline(retry(2), Timeout(0.02)),
        Pipeline(retry(2), Hedge(0.01, at_most=2, budget=None), Bulkhead(500)),
    ],
    ids=["timeout", "retry", "hedge"],
)
async def test_requests_that_end_early_leave_no_connection_behind(
    lib: Any, server: MisbehavingServer, policy: Policy
) -> None:
    random = Random(3)
    slow, broken = Answer(200, b"x" * 100, pieces=3, pause=0.005), Answer(503)
    url = server.answer("/", *(random.choice([SILENT, slow, broken]) for _ in range(80)))
    async with connected(lib, policy) as client:

        async def one() -> None:
            await anyio.sleep(random.random() * 0.05)
            with suppress(lib.TransportError), anyio.move_on_after(random.random() * 0.08):
                async with client.stream("GET", url) as response:
                    await response.aread()

        async with anyio.create_task_group() as group:
            for _ in range(40):
                group.start_soon(one)


async def test_a_connection_that_its_request_left_before_it_was_opened_is_taken_out() -> None:
    transport: Any = httpx.AsyncHTTPTransport()
    pool = transport._pool
    taken, left = (pool.create_connection(httpcore.Origin(b"http", b"127.0.0.1", 1)) for _ in range(2))
    request = AsyncPoolRequest(httpcore.Request("GET", "http://127.0.0.1:1/"))
    request.assign_to_connection(taken)
    pool._connections, pool._requests = [taken, left], [request]
    await close_stranded(transport)
    assert pool.connections == [taken]


async def test_what_has_no_such_pool_is_left_alone(lib: Any) -> None:
    await close_stranded(lib.MockTransport(always(lib)))
    await close_stranded(object())
