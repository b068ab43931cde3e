"""A dependency on loopback that fails, hangs or recovers on command, and knows who has called it when."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import NamedTuple, Self


class Arrival(NamedTuple):
    """One request."""

    at: float
    """By the clock that all processes of a machine share."""
    who: str
    what: str
    """The rest of the line: what the caller knew when it asked."""


class Upstream:
    """Each line is a request, whose first word says who asks; the answer is `good` or `bad`, or none at all."""

    def __init__(self, delay: float = 0.02) -> None:
        self.delay = delay
        self.mode = "good"
        """`good`, `bad` or `hang`."""
        self.modes: dict[str, str] = {}
        """The same for some of those who ask."""
        self.arrivals: list[Arrival] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1")
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._open:
            writer.transport.abort()
        while self._open:
            await asyncio.sleep(0.001)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with contextlib.suppress(OSError):
                while line := await reader.readline():
                    who, _, what = line.decode().strip().partition(" ")
                    self.arrivals.append(Arrival(time.monotonic(), who, what))
                    mode = self.modes.get(who, self.mode)
                    if mode == "hang":
                        await reader.read()
                        return
                    await asyncio.sleep(self.delay)
                    writer.write(f"{mode}\n".encode())
                    await writer.drain()
        finally:
            self._open.discard(writer)
            writer.close()


async def ask(port: int, line: str) -> None:
    """Make one request. Raises ConnectionError for a bad answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{line}\n".encode())
        if await reader.readline() != b"good\n":
            raise ConnectionError("the dependency is down")
    finally:
        writer.transport.abort()
