"""A real HTTP/1.1 and HTTP/2 server on loopback that misbehaves on purpose and remembers everything it received.

    with MisbehavingServer() as server:
        server.answer("/orders", Answer(503), Answer(200, body=b"ok"))   # in turn; the last one is repeated
        ...  # two requests to server.url + "/orders"
        assert [request.body for request in server.received("/orders")] == [b"", b""]

Clients that begin with HTTP/2 ("prior knowledge") get it. It runs on an event loop in a thread of its own, so that
tests may run on any loop.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

import anyio

from .http2_connection import FIRST_LINE, serve_http2

Ending = Literal["complete", "cut", "reset", "hang"]


@dataclass(frozen=True)
class Answer:
    """One response. `body` is sent in `pieces` with `pause` seconds between them.

    `ending`: "complete"; "cut" closes the connection before the last byte; "reset" does so with a TCP reset;
    "hang" sends all but the last byte and then nothing, until the client goes away. With `status` 0 there is not
    even a status line: the ending is all that comes. In HTTP/2 "reset" resets the stream and not the connection.
    """

    status: int = 200
    body: bytes = b"ok"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    ending: Ending = "complete"
    pieces: int = 1
    pause: float = 0.0
    chunked: bool = False


@dataclass(frozen=True)
class Received:
    """One request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class MisbehavingServer:
    """Answers by script; a path without one gets `Answer()`."""

    def __init__(self) -> None:
        self.url = ""
        self.connections = 0
        """Connections open now."""
        self._requests: list[Received] = []
        self._scripts: dict[str, list[Answer]] = {}
        self._turns: defaultdict[str, int] = defaultdict(int)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)

    def __enter__(self) -> MisbehavingServer:
        self._thread.start()
        assert self._ready.wait(10), "the test server did not start"
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)

    def answer(self, path: str, *answers: Answer) -> str:
        """Script the answers of a path; returns its URL."""
        self._scripts[path] = list(answers)
        self._turns.pop(path, None)
        return self.url + path

    def forget(self) -> None:
        """Drop all scripts and all that was received."""
        self._scripts.clear()
        self._turns.clear()
        self._requests.clear()

    def received(self, path: str) -> list[Received]:
        """The requests to a path, oldest first."""
        return [request for request in self._requests if request.path == path]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so; fails after 5 s."""
        with anyio.fail_after(5):
            while not condition():
                await anyio.sleep(0.002)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stopped.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                line = await reader.readline()
                if line == FIRST_LINE:
                    await serve_http2(reader, writer, self._next_answer)
                while line and await self._serve(line, reader, writer):
                    line = await reader.readline()
        except asyncio.CancelledError:  # the server stops; asyncio would log what its callbacks raise
            pass
        finally:
            self.connections -= 1
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def _next_answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Remember a request; what it gets."""
        self._requests.append(Received(method, path, headers, body))
        script = self._scripts.get(path, [Answer()])
        turn = self._turns[path]
        self._turns[path] += 1
        return script[min(turn, len(script) - 1)]

    async def _serve(self, line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False ends the connection."""
        request = await _read_request(line, reader)
        answer = self._next_answer(*request)
        if answer.status:
            await _write(writer, answer, request[0])
        if answer.ending == "hang":
            await reader.read()
        elif answer.ending == "reset":
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return answer.ending == "complete"


async def _read_request(line: bytes, reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bytes]:
    if not line.endswith(b"\n"):
        raise asyncio.IncompleteReadError(line, None)
    method, path, _ = line.decode("ascii").split(" ", 2)
    headers: dict[str, str] = {}
    while (line := await reader.readuntil(b"\n")) != b"\r\n":
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return method, path, headers, body


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readuntil(b"\n"), 16):
        body += await reader.readexactly(size)
        await reader.readuntil(b"\n")
    await reader.readuntil(b"\n")
    return body


async def _write(writer: asyncio.StreamWriter, answer: Answer, method: str) -> None:
    head = [f"HTTP/1.1 {answer.status} Scripted", *(f"{name}: {value}" for name, value in answer.headers.items())]
    head.append("Transfer-Encoding: chunked" if answer.chunked else f"Content-Length: {len(answer.body)}")
    writer.write("\r\n".join([*head, "", ""]).encode("latin-1"))
    if method == "HEAD":
        return
    body = answer.body if answer.ending == "complete" else answer.body[:-1]
    size = max(1, -(-len(body) // answer.pieces))
    for start in range(0, len(body), size):
        if start:
            await writer.drain()
            await asyncio.sleep(answer.pause)
        piece = body[start : start + size]
        writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if answer.chunked else piece)
    if answer.chunked and answer.ending == "complete":
        writer.write(b"0\r\n\r\n")
    await writer.drain()
