"""Lines of requests, one for each key: the first asks the limiter, the others wait for their turn.

    async with turns.turn("gpt-5", patience=60.0) as left:
        await limiter.reserve(key="gpt-5", max_wait=left)

First come first served. A lock lives as long as somebody stands in its line: it belongs to an event loop, and these
lines to none.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from resilience import clock


@dataclass(slots=True)
class _Queue:
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    users: int = 0


class Turns:
    """The lines of one object of limits."""

    def __init__(self) -> None:
        self._lines: dict[str, _Queue] = {}

    @asynccontextmanager
    async def turn(self, key: str, patience: float) -> AsyncGenerator[float]:
        """Wait for one's turn, and keep it for the block; gives the seconds that are left of `patience`.

        Who has waited all of them enters at once, with none left: to be admitted at once or refused.
        """
        line = self._lines.setdefault(key, _Queue())
        line.users += 1
        since, ours = clock.now(), False
        try:
            with anyio.move_on_after(patience):
                await line.lock.acquire()
                ours = True
            yield max(0.0, since + patience - clock.now()) if ours else 0.0
        finally:
            if ours:
                line.lock.release()
            line.users -= 1
            if not line.users:
                del self._lines[key]
