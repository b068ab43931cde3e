"""A way to a server that is slow, broken, or leads nowhere.

async with proxy_to(port) as proxy:
    store = RedisStore.from_url(proxy.url)
    proxy.delay = 0.01      # seconds, in each direction
    proxy.swallow()         # what is sent from now on never arrives, in either direction
    proxy.cut()             # all connections end, and new ones are refused
    proxy.restore()
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator


class Proxy:
    """Passes bytes on, on loopback."""

    def __init__(self, target: int) -> None:
        self.delay: float = 0.0
        self.port: int = 0
        self.accepted: int = 0
        """Connections so far."""
        self._target = target
        self._swallowing = False
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def open(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def swallow(self) -> None:
        """Keep connections, but pass nothing on; new ones are accepted and hear nothing."""
        self._swallowing = True

    def cut(self) -> None:
        """End all connections and refuse new ones."""
        if self._server is not None:
            self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def restore(self) -> None:
        """Be a good way again. What was swallowed stays lost, so connections of that time end."""
        if self._swallowing:
            self.cut()
        self._swallowing = False
        if self._server is None or not self._server.is_serving():
            await self.open()

    async def close(self) -> None:
        self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            to_server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, to_server[1]}
        self._start(reader, to_server[1])
        self._start(to_server[0], writer)

    def _start(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        for work in (self._read(reader, queue), self._write(writer, queue)):
            task = asyncio.get_running_loop().create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _read(self, reader: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not self._swallowing:
                    queue.put_nowait((asyncio.get_running_loop().time() + self.delay, data))
        queue.put_nowait((0.0, b""))

    async def _write(self, writer: asyncio.StreamWriter, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
        while True:
            due, data = await queue.get()
            if not data:
                break
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            writer.write(data)
        self._writers.discard(writer)
        writer.transport.abort()


@contextlib.asynccontextmanager
async def proxy_to(port: int) -> AsyncGenerator[Proxy]:
    """A proxy for the length of a block."""
    proxy = Proxy(port)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.close()
