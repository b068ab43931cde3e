"""What is sent besides the request itself, and what may be sent again because it never left."""

from __future__ import annotations

import io
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from resilience import Hedge, Pipeline, Timeout
from resilience_httpx import ResilientTransport
from tests.support.http_server import Answer, MisbehavingServer

from .support import always, connected, mocked, retry

pytestmark = pytest.mark.anyio

KEY = "idempotency-key"


async def generated() -> AsyncIterator[bytes]:
    yield b"once"


class Seen:
    """A handler that fails with each of `outcomes` in turn (a status, or an error) and notes what it was sent."""

    def __init__(self, lib: Any, *outcomes: Any) -> None:
        self.headers: list[Any] = []
        self._lib = lib
        self._outcomes = list(outcomes)

    def __call__(self, request: Any) -> Any:
        self.headers.append(request.headers)
        outcome = self._outcomes.pop(0) if self._outcomes else 200
        if isinstance(outcome, int):
            return self._lib.Response(outcome)
        raise getattr(self._lib, outcome)("no", request=request)


async def test_an_idempotency_key_is_made_once_and_makes_a_post_repeatable(lib: Any) -> None:
    seen = Seen(lib, 503, 503)
    async with mocked(lib, retry(3), seen, idempotency_key=True) as client:
        assert (await client.post("http://a/", content=b"body")).status_code == 200
        keys = [headers[KEY] for headers in seen.headers]
        assert len(keys) == 3
        assert len(set(keys)) == 1
        assert len(keys[0]) == 36
        await client.post("http://a/", content=b"body")
        assert seen.headers[-1][KEY] != keys[0]
        await client.get("http://a/")
        assert KEY not in seen.headers[-1], "a GET needs none"
        await client.post("http://a/", headers={"Idempotency-Key": "mine"})
        assert seen.headers[-1].get_list(KEY) == ["mine"]


async def test_an_idempotency_key_by_function_and_by_request(lib: Any) -> None:
    def key(request: Any) -> str:
        return f"to {request.url.host}"

    seen = Seen(lib, 503)
    async with mocked(lib, retry(2), seen, idempotency_key=key) as client:
        await client.patch("http://a/")
        assert [headers[KEY] for headers in seen.headers] == ["to a", "to a"]
        await client.patch("http://a/", extensions={"resilience": {"idempotency_key": False}})
        assert KEY not in seen.headers[-1]
    seen = Seen(lib, 503)
    async with mocked(lib, retry(2), seen) as client:
        await client.post("http://a/", extensions={"resilience": {"idempotency_key": "order 7"}})
        assert [headers[KEY] for headers in seen.headers] == ["order 7", "order 7"]
        await client.post("http://a/", extensions={"resilience": {"idempotency_key": True}})
        assert len(seen.headers[-1][KEY]) == 36


async def test_an_idempotency_key_stays_the_same_where_a_request_is_redirected(
    lib: Any, server: MisbehavingServer
) -> None:
    server.answer("/old", Answer(503), Answer(307, headers={"Location": "/new"}))
    server.answer("/new", Answer(503), Answer(200))
    async with connected(lib, retry(2), idempotency_key=True) as client:
        response = await client.post(server.url + "/old", content=b"body", follow_redirects=True)
    sent = [*server.received("/old"), *server.received("/new")]
    assert response.status_code == 200
    assert [request.body for request in sent] == [b"body"] * 4
    assert len({request.headers[KEY] for request in sent}) == 1


async def test_a_key_does_not_make_a_generator_repeatable(lib: Any) -> None:
    seen = Seen(lib, 503)
    async with mocked(lib, retry(2), seen, idempotency_key=True) as client:
        assert (await client.post("http://a/", content=generated())).status_code == 503


@pytest.mark.parametrize("error", ["ConnectError", "ConnectTimeout", "PoolTimeout"])
async def test_what_was_never_sent_is_sent_whatever_its_method(lib: Any, error: str) -> None:
    seen = Seen(lib, error, error)
    async with mocked(lib, retry(3), seen) as client:
        assert (await client.post("http://a/", content=b"body")).status_code == 200
    assert len(seen.headers) == 3


@pytest.mark.parametrize(
    ("outcomes", "sends"),
    [
        (["ReadError"], 1),
        (["WriteError"], 1),
        ([503], 1),
        (["ConnectError", 503], 2),
        (["ConnectError", "ReadError"], 2),
    ],
)
async def test_once_sent_it_is_not_sent_again(lib: Any, outcomes: list[Any], sends: int) -> None:
    seen = Seen(lib, *outcomes)
    async with mocked(lib, Pipeline(retry(5)), seen) as client:
        if isinstance(outcomes[-1], int):
            assert (await client.post("http://a/")).status_code == outcomes[-1]
        else:
            with pytest.raises(getattr(lib, outcomes[-1])):
                await client.post("http://a/")
    assert len(seen.headers) == sends


@pytest.mark.parametrize(
    ("options", "request_options"),
    [
        ({"retry_unsent": False}, {}),
        ({}, {"extensions": {"resilience": {"retry": False}}}),
        ({}, {"content": generated}),
    ],
    ids=["by option", "by request", "one-shot body"],
)
async def test_what_was_never_sent_may_be_left_so(
    lib: Any, options: dict[str, Any], request_options: dict[str, Any]
) -> None:
    if "content" in request_options:
        request_options = {"content": generated()}
    seen = Seen(lib, "ConnectError")
    async with mocked(lib, retry(3), seen, **options) as client:
        with pytest.raises(lib.ConnectError):
            await client.post("http://a/", **request_options)


async def test_a_refused_connection_is_tried_again_for_a_post(lib: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with connected(lib, retry(3)) as client:
            with pytest.raises(lib.ConnectError) as raised:
                await client.post(f"http://127.0.0.1:{unused.getsockname()[1]}/", content=b"body")
    assert raised.value.__notes__ == ["Retry gave up after 3 attempts: attempts"]


async def test_attempts_and_the_time_left_are_announced_by_option(lib: Any) -> None:
    seen = Seen(lib, 503, 503)
    policy = Pipeline(Timeout(60), retry(3), Timeout(2))
    options = {"attempt_header": "X-Attempt", "deadline_header": "X-Time-Left"}
    async with mocked(lib, policy, seen, **options) as client:
        response = await client.get("http://a/", headers={"x-attempt": "9"})
    assert [headers.get_list("x-attempt") for headers in seen.headers] == [["1"], ["2"], ["3"]]
    assert all(1.5 < float(headers["x-time-left"]) <= 2 for headers in seen.headers)
    assert response.request.headers["x-attempt"] == "9", "the caller's request is not written to"
    seen = Seen(lib)
    async with mocked(lib, Timeout(60), seen, deadline_header="x-timeout-ms") as client:
        await client.get("http://a/")
    assert 59_000 < int(seen.headers[0]["x-timeout-ms"]) <= 60_000
    seen = Seen(lib)
    async with mocked(lib, retry(), seen, deadline_header="X-Time-Left") as client:
        await client.get("http://a/")
    assert "x-time-left" not in seen.headers[0], "there is no deadline"
    assert not {"x-attempt", "x-time-left"} & set(seen.headers[0])


async def test_the_deadline_of_a_caller_further_out_is_announced(lib: Any) -> None:
    seen = Seen(lib)
    async with mocked(lib, retry(), seen, deadline_header="x-left") as client:
        await Timeout(7).call(client.get, "http://a/")
    assert 6 < float(seen.headers[0]["x-left"]) <= 7


@pytest.mark.parametrize("kind", ["async file", "seekable"])
async def test_files_are_sent_again_from_where_they_stood(
    lib: Any, server: MisbehavingServer, tmp_path: Path, kind: str
) -> None:
    content = bytes(range(256)) * 300
    (tmp_path / "body").write_bytes(content)
    url = server.answer("/", Answer(503), Answer(0, ending="cut"), Answer(200))
    async with connected(lib, retry(3)) as client, await anyio.open_file(tmp_path / "body", "rb") as file:
        await file.seek(1000)
        body: Any = file if kind == "async file" else Seekable(content, 1000)
        assert (await client.put(url, content=body)).status_code == 200
    assert [request.body for request in server.received("/")] == [content[1000:]] * 3


class Seekable:
    """A file whose reading has to be awaited and whose seeking has not."""

    def __init__(self, content: bytes, position: int) -> None:
        self._file = io.BytesIO(content)
        self._file.seek(position)
        self.seek, self.tell = self._file.seek, self._file.tell

    def __aiter__(self) -> AsyncIterator[bytes]:
        raise AssertionError("files are read")

    async def aread(self, size: int) -> bytes:
        return self._file.read(size)


class Stuck:
    """An async file that cannot seek after all."""

    def tell(self) -> int:
        raise io.UnsupportedOperation("tell")

    seek = tell

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"once"


async def test_a_file_that_cannot_seek_is_sent_once(lib: Any, server: MisbehavingServer) -> None:
    url = server.answer("/", Answer(503), Answer(200))
    async with connected(lib, retry(3)) as client:
        assert (await client.put(url, content=Stuck())).status_code == 503
    assert [request.body for request in server.received("/")] == [b"once"]


@pytest.mark.parametrize(
    ("files", "sends"), [({"a": b"bytes"}, 2), ({"a": ("name", io.BytesIO(b"file"))}, 1)], ids=["bytes", "file"]
)
async def test_a_hedge_never_reads_the_file_that_the_first_attempt_is_sending(lib: Any, files: Any, sends: int) -> None:
    sent: list[bytes] = []

    async def handler(request: Any) -> Any:
        sent.append(await request.aread())
        await anyio.sleep(0.05)
        return lib.Response(200)

    transport = ResilientTransport(Hedge(0.01), lib.MockTransport(handler))
    async with lib.AsyncClient(transport=transport) as client:
        assert (await client.put("http://a/", files=files)).status_code == 200
    assert len(sent) == sends


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"retry_unsent": 1}, TypeError, "retry_unsent must be a bool, got 1"),
        ({"idempotency_key": "k"}, TypeError, "idempotency_key must be a bool or a function, got 'k'"),
        ({"attempt_header": ""}, ValueError, "attempt_header must be the name of a header, got ''"),
        ({"deadline_header": "a b"}, ValueError, "deadline_header must be the name of a header"),
        ({"deadline_header": 1}, ValueError, "deadline_header must be the name of a header"),
        ({"stream_timeout": 5}, TypeError, "stream_timeout must be a StreamTimeout, got 5"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ResilientTransport(retry(), **options)


async def test_wrong_overrides_are_refused(lib: Any) -> None:
    async with mocked(lib, retry(), always(lib)) as client:
        with pytest.raises(TypeError, match="idempotency_key must be a str or bool, got 7"):
            await client.get("http://a/", extensions={"resilience": {"idempotency_key": 7}})
        with pytest.raises(TypeError, match="stream_timeout must be a StreamTimeout or None, got 7"):
            await client.get("http://a/", extensions={"resilience": {"stream_timeout": 7}})
