"""HTTP/2 against a server of somebody else: many streams of one connection, retried, limited and given up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import hypercorn.asyncio
import hypercorn.config
import pytest

from resilience import Bulkhead, Pipeline, Timeout
from resilience_httpx import ResilientTransport

from .support import assert_idle, retry

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The server is one for asyncio."""
    return "asyncio"


class App:
    """Fails every request the first time; `/slow` does not answer before the test is `over`."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.bodies: dict[str, list[bytes]] = {}
        self.versions: set[str] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        seen = self.bodies.setdefault(scope["path"], [])
        seen.append(body)
        self.versions.add(scope["http_version"])
        if scope["path"] == "/slow":
            await self.over.wait()
        await send({"type": "http.response.start", "status": 503 if len(seen) == 1 else 200, "headers": []})
        for piece in (b"a", bytes(100_000)):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"z"})


@asynccontextmanager
async def served(app: App) -> AsyncGenerator[str]:
    config = hypercorn.config.Config()
    config.loglevel, config.graceful_timeout = "CRITICAL", 0.1
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        config.bind = [f"fd://{listener.detach()}"]
    stop = asyncio.Event()
    async with anyio.create_task_group() as group:
        serve: Any = getattr(hypercorn.asyncio, "serve")  # noqa: B009  (its types are not all known)
        group.start_soon(partial(serve, app, config, shutdown_trigger=stop.wait))
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            app.over.set()
            stop.set()


async def test_many_streams_of_one_connection(lib: Any) -> None:
    app, bulkhead = App(), Bulkhead(5, queue=100)
    policy = Pipeline(Timeout(10), retry(3, budget=None), bulkhead)
    inner = lib.AsyncHTTPTransport(http1=False, http2=True)
    answers: list[Any] = []
    async with served(app) as url, lib.AsyncClient(transport=ResilientTransport(policy, inner)) as client:

        async def put(number: int) -> None:
            answers.append(await client.put(f"{url}/{number}", content=b"%d" % number * 1000))

        async with anyio.create_task_group() as group:
            for number in range(30):
                group.start_soon(put, number)
        assert bulkhead.in_use() == 0
        assert_idle(inner)
        assert len(inner._pool.connections) == 1
    assert [answer.status_code for answer in answers] == [200] * 30
    assert {len(answer.content) for answer in answers} == {100_002}
    assert {answer.extensions["resilience"].attempts for answer in answers} == {2}
    assert app.bodies == {f"/{number}": [b"%d" % number * 1000] * 2 for number in range(30)}
    assert app.versions == {"2"}


async def test_a_stream_that_is_given_up_leaves_the_others_alone(lib: Any) -> None:
    app = App()
    inner = lib.AsyncHTTPTransport(http1=False, http2=True)
    async with served(app) as url, lib.AsyncClient(transport=ResilientTransport(retry(2), inner)) as client:
        async with client.stream("GET", f"{url}/a") as reading:
            with pytest.raises(lib.TimeoutException):
                await client.get(f"{url}/slow", extensions={"resilience": {"policy": Timeout(0.1)}})
            assert len(await reading.aread()) == 100_002
        assert_idle(inner)
