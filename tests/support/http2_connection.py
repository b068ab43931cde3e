"""One HTTP/2 connection of the server that misbehaves on purpose: the same answers, cut, reset and withheld.

if await reader.readline() == FIRST_LINE:
    await serve_http2(reader, writer, answer_for)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

if TYPE_CHECKING:
    from .http_server import Answer

AnswerFor = Callable[[str, str, Mapping[str, str], bytes], "Answer"]

FIRST_LINE = b"PRI * HTTP/2.0\r\n"


async def serve_http2(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer_for: AnswerFor) -> None:
    """Answer the requests of a connection, all at the same time, until the client goes away or an answer is cut."""
    await Connection(reader, writer, answer_for).serve()


class Connection:
    """A connection, and the requests that are still coming in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer_for: AnswerFor) -> None:
        self._reader = reader
        self._writer = writer
        self._answer_for = answer_for
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="latin-1"))
        self._headers: dict[int, dict[str, str]] = {}
        self._bodies: dict[int, bytes] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._room = asyncio.Event()
        """Set whenever the client has made room for more data."""

    async def serve(self) -> None:
        """Read until nothing comes any more."""
        self._h2.initiate_connection()
        self._flush()
        data = FIRST_LINE
        try:
            while data:
                for event in self._h2.receive_data(data):
                    self._react(event)
                self._flush()
                data = await self._reader.read(65_536)
        except h2.exceptions.ProtocolError:
            pass
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _react(self, event: h2.events.Event) -> None:
        stream: int = getattr(event, "stream_id", 0) or 0
        if isinstance(event, h2.events.RequestReceived):
            self._headers[stream] = {str(name): str(value) for name, value in event.headers or ()}
            self._bodies[stream] = b""
        elif isinstance(event, h2.events.DataReceived):
            self._bodies[stream] += event.data or b""
            self._h2.acknowledge_received_data(event.flow_controlled_length or 0, stream)
        elif isinstance(event, h2.events.StreamEnded):
            self._tasks[stream] = asyncio.create_task(self._answer(stream))
        elif isinstance(event, h2.events.StreamReset) and (task := self._tasks.pop(stream, None)):
            task.cancel()
        self._room.set()

    async def _answer(self, stream: int) -> None:
        headers = self._headers.pop(stream)
        method, path = headers[":method"], headers[":path"]
        answer = self._answer_for(method, path, headers, self._bodies.pop(stream))
        if answer.status:
            await self._send(stream, answer, method)
        if answer.ending == "hang":
            await asyncio.Event().wait()
        elif answer.ending == "cut":
            self._writer.close()
        elif answer.ending == "reset":
            self._h2.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
            self._flush()

    async def _send(self, stream: int, answer: Answer, method: str) -> None:
        head = [(":status", str(answer.status)), *((name.lower(), value) for name, value in answer.headers.items())]
        if not answer.chunked:
            head.append(("content-length", str(len(answer.body))))
        body = answer.body if answer.ending == "complete" else answer.body[:-1]
        whole = answer.ending == "complete"
        if method == "HEAD":
            body = b""
        self._h2.send_headers(stream, head, end_stream=whole and not body)
        size = max(1, -(-len(body) // answer.pieces))
        for start in range(0, len(body), size):
            if start:
                await asyncio.sleep(answer.pause)
            piece = body[start : start + size]
            await self._send_data(stream, piece, end=whole and start + size >= len(body))
        self._flush()

    async def _send_data(self, stream: int, data: bytes, end: bool) -> None:
        while data:
            room = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
            if room <= 0:
                self._flush()
                self._room.clear()
                await self._room.wait()
                continue
            self._h2.send_data(stream, data[:room], end_stream=end and len(data) <= room)
            data = data[room:]
        self._flush()
        await self._writer.drain()

    def _flush(self) -> None:
        self._writer.write(self._h2.data_to_send())
