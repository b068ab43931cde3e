"""What is sent twice, and that it is the same both times. A body that cannot be replayed is never sent again."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from resilience import Pipeline, Timeout
from tests.support.http_server import Answer, MisbehavingServer

from .support import connected, retry

pytestmark = pytest.mark.anyio


class Pipe(io.RawIOBase):
    """A file that cannot seek."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._content.readinto(buffer)


class Chunks:
    """An async iterator that is no generator: a second round would silently send nothing."""

    def __init__(self) -> None:
        self._chunks = iter((b"on", b"ce"))

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for chunk in self._chunks:
            return chunk
        raise StopAsyncIteration


async def generated() -> AsyncIterator[bytes]:
    for chunk in (b"on", b"ce"):
        yield chunk


async def sent(server: MisbehavingServer, lib: Any, method: str, *, policy: Any = None, **options: Any) -> list[bytes]:
    """The bodies that arrive when the first answer is a 503 and the second a 200."""
    transport = options.pop("transport", {})
    url = server.answer("/", Answer(503, b"no"), Answer(200, b"yes"))
    async with connected(lib, policy or Pipeline(Timeout(5), retry(3)), **transport) as client:
        response = await client.request(method, url, **options)
    bodies = [request.body for request in server.received("/")]
    assert response.content == (b"no" if len(bodies) == 1 else b"yes")
    assert response.extensions["resilience"].attempts == len(bodies)
    return bodies


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"])
async def test_idempotent_methods_are_sent_again(lib: Any, server: MisbehavingServer, method: str) -> None:
    url = server.answer("/", Answer(503), Answer(200))
    async with connected(lib, retry()) as client:
        assert (await client.request(method, url)).status_code == 200
    assert [request.method for request in server.received("/")] == [method] * 2


@pytest.mark.parametrize("method", ["POST", "PATCH", "PURGE"])
async def test_other_methods_are_sent_once_unless_told_otherwise(
    lib: Any, server: MisbehavingServer, method: str
) -> None:
    again = [b"body"] * 2
    assert await sent(server, lib, method, content=b"body") == [b"body"]
    server.forget()
    assert await sent(server, lib, method, content=b"body", headers={"Idempotency-Key": "1"}) == again
    server.forget()
    assert await sent(server, lib, method, content=b"body", extensions={"resilience": {"retry": True}}) == again
    server.forget()
    assert await sent(server, lib, method, content=b"body", transport={"retry_methods": [method.lower()]}) == again


async def test_a_request_may_forbid_to_be_sent_again(lib: Any, server: MisbehavingServer) -> None:
    extensions = {"resilience": {"retry": False}}
    headers = {"Idempotency-Key": "1"}
    assert await sent(server, lib, "PUT", content=b"body", headers=headers, extensions=extensions) == [b"body"]


@pytest.mark.parametrize(
    ("options", "body"),
    [
        ({"content": b"bytes"}, b"bytes"),
        ({"content": "text"}, b"text"),
        ({"json": {"a": 1}}, b"1}"),
        ({"data": {"a": "1"}}, b"a=1"),
        ({"files": {"a": b"of bytes"}}, b"of bytes"),
        ({"files": {"a": ("name", io.BytesIO(b"of a file"))}}, b"of a file"),
        ({"files": {"a": io.BytesIO(bytes(300_000))}, "data": {"b": "2"}}, bytes(300_000)),
    ],
    ids=["bytes", "text", "json", "form", "multipart", "file", "large file"],
)
async def test_bodies_that_are_sent_again_unchanged(
    lib: Any, server: MisbehavingServer, options: dict[str, Any], body: bytes
) -> None:
    bodies = await sent(server, lib, "PUT", **options)
    assert len(bodies) == 2
    assert bodies[0] == bodies[1]
    assert body in bodies[0]


def one_shot_bodies() -> Iterator[dict[str, Any]]:
    yield {"content": generated()}
    yield {"content": Chunks()}
    yield {"files": {"a": ("name", Pipe(b"once"))}}
    yield {"files": {"a": io.BytesIO(b"twice"), "b": ("name", Pipe(b"once"))}}


@pytest.mark.parametrize("kind", range(4), ids=["generator", "iterator", "pipe", "file and pipe"])
@pytest.mark.parametrize("told", [None, True])
async def test_bodies_that_cannot_be_replayed_are_sent_once(
    lib: Any, server: MisbehavingServer, kind: int, told: bool | None
) -> None:
    options = list(one_shot_bodies())[kind]
    extensions = {} if told is None else {"resilience": {"retry": told}}
    bodies = await sent(server, lib, "PUT", extensions=extensions, **options)
    assert len(bodies) == 1
    assert b"once" in bodies[0]


async def test_the_error_is_not_masked_by_a_body_that_is_used_up(lib: Any, server: MisbehavingServer) -> None:
    url = server.answer("/", Answer(0, ending="cut"))
    async with connected(lib, retry()) as client:
        with pytest.raises(lib.RemoteProtocolError) as raised:
            await client.put(url, content=generated())
    assert raised.value.__notes__ == ["Retry gave up after 1 attempt: not repeatable"]
    assert [request.body for request in server.received("/")] == [b"once"]


async def test_a_generator_that_was_read_into_memory_is_sent_again(lib: Any, server: MisbehavingServer) -> None:
    url = server.answer("/", Answer(503), Answer(200))
    async with connected(lib, retry()) as client:
        request = client.build_request("PUT", url, content=generated())
        await request.aread()
        await client.send(request)
    assert [request.body for request in server.received("/")] == [b"once"] * 2
