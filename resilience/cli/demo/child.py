"""A child process, seen from inside: a job comes in, one line of JSON per message goes out.

    run_child(work)         # `async def work(job: Job, link: Link) -> None`

The parent writes the job as the first line of our input, and the second when it is time to begin. When our
input ends, for whatever reason, so do we: no child outlives its parent.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .plan import Plan


@dataclass(frozen=True, slots=True)
class Job:
    """What a child is told: the plan, and for callers whom to call and how."""

    seconds: float
    url: str = ""
    protected: bool = False
    index: int = 0
    workers: int = 1
    redis: str | None = None
    name: str = ""

    @property
    def plan(self) -> Plan:
        """The plan of the whole demonstration."""
        return Plan(self.seconds)


class Link:
    """The line to the parent."""

    def __init__(self, lines: asyncio.StreamReader) -> None:
        self._lines = lines
        self._began = 0.0
        self._watch: asyncio.Task[None] | None = None

    def tell(self, **message: Any) -> None:
        """Send one message."""
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    async def begin(self, **ready: Any) -> None:
        """Say that we are ready and wait for the parent's word: a reading of the clock that all processes share."""
        self.tell(ready=True, **ready)
        line = await self._lines.readline()
        if not line:
            raise asyncio.CancelledError("the parent is gone")
        self._began = float(line)
        self._watch = asyncio.create_task(self._end_with_parent(asyncio.current_task()))

    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    async def until(self, at: float) -> None:
        """Sleep until that many seconds have elapsed."""
        await asyncio.sleep(max(0.0, at - self.elapsed()))

    async def _end_with_parent(self, work: asyncio.Task[Any] | None) -> None:
        while await self._lines.read(1024):
            pass
        if work is not None:
            work.cancel()


Work = Callable[[Job, Link], Awaitable[None]]


def run_child(work: Work) -> None:
    """Do the work that the parent describes, and end when it is done or the parent is gone."""
    with suppress(KeyboardInterrupt, asyncio.CancelledError, BrokenPipeError):
        asyncio.run(_serve(work))


async def _serve(work: Work) -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    await work(Job(**json.loads(await lines.readline())), Link(lines))
