"""A resource that knows who is inside of it and refuses those whose time is over, on TCP.

    async with FencedResource() as resource:
        resource.port

One line per request, one connection per caller. `enter TOKEN WAITED NAME` is refused if the token is not new, and,
for a resource that only one may use, if a larger one has been seen. `write TOKEN` is refused if a larger one has
been seen. `exit` leaves; so does closing the connection, and so does dying.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from types import TracebackType


class FencedResource:
    """What happened is in the attributes."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.inside: dict[asyncio.StreamWriter, str] = {}
        self.most = 0
        self.refused = 0
        self.served: Counter[str] = Counter()
        self.waits: list[float] = []
        self.changes: list[tuple[float, int]] = []
        """How many were inside, since when."""
        self._seen: set[int] = set()
        self._largest = 0
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> FencedResource:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                answer = self._answer(writer, line.decode().split())
                writer.write(b"ok\n" if answer else b"refused\n")
        except ConnectionError:
            pass
        finally:
            self._leave(writer)
            writer.close()

    def _answer(self, writer: asyncio.StreamWriter, words: list[str]) -> bool:
        if words[0] == "exit":
            self._leave(writer)
            return True
        token = int(words[1])
        stale = token < self._largest and (self.capacity == 1 or words[0] == "write")
        if stale or (words[0] == "enter" and token in self._seen):
            self.refused += 1
            return False
        self._seen.add(token)
        self._largest = max(self._largest, token)
        if words[0] == "enter":
            self.waits.append(float(words[2]))
            self.served[words[3]] += 1
            self.inside[writer] = words[3]
            self._note()
        return True

    def _leave(self, writer: asyncio.StreamWriter) -> None:
        if self.inside.pop(writer, None) is not None:
            self._note()

    def _note(self) -> None:
        self.most = max(self.most, len(self.inside))
        self.changes.append((time.monotonic(), len(self.inside)))

    def gaps(self) -> list[tuple[float, float]]:
        """Begin and end of the times in which there was room, of those that came to an end."""
        found: list[tuple[float, float]] = []
        since: float | None = None
        for moment, inside in self.changes:
            if inside < self.capacity:
                since = moment if since is None else since
            elif since is not None:
                found.append((since, moment))
                since = None
        return found
