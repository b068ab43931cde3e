"""A child process, seen from the parent.

    async with children(("resilience.cli.demo.worker", Job(16.0))) as [worker]:
        worker.begin(time.monotonic())
        async for message in worker.messages(): ...

However the block is left, the children are gone afterwards: first their input ends, then they are killed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Any

from .child import Job

GRACE = 3.0
"""Seconds that a child has to end by itself."""

_LONGEST_LINE = 2**24


class ChildError(Exception):
    """A child process did not do its part."""


class Child:
    """One running child."""

    def __init__(self, module: str, process: asyncio.subprocess.Process) -> None:
        self.module = module
        self.pid: int = process.pid
        self._process = process

    def begin(self, at: float) -> None:
        """Tell the child that its time counts from `at`, on the monotonic clock."""
        self._write(f"{at!r}\n")

    async def ready(self) -> dict[str, Any]:
        """The child's first message. Raises ChildError if it ended instead."""
        message = await self._next()
        if message is None:
            raise ChildError(f"{self.module} ended before it was ready")
        return message

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        """What the child tells, until it ends. Raises ChildError if it ends badly."""
        while (message := await self._next()) is not None:
            yield message
        if status := await self._process.wait():
            raise ChildError(f"{self.module} ended with status {status}")

    def release(self) -> None:
        """Let the child end: it does when its input does."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def end(self) -> None:
        """Return when the process is gone."""
        self.release()
        try:
            await asyncio.wait_for(self._process.wait(), GRACE)
        except (TimeoutError, asyncio.CancelledError):
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def _next(self) -> dict[str, Any] | None:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        message: dict[str, Any] | None = json.loads(line) if line else None
        return message

    def _write(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())


@asynccontextmanager
async def children(*wanted: tuple[str, Job]) -> AsyncGenerator[list[Child]]:
    """Start a process per module and job, and end all of them afterwards."""
    running: list[Child] = []
    try:
        for module, job in wanted:
            running.append(await _start(module, job))
        yield running
    finally:
        for child in running:
            child.release()
        await asyncio.gather(*(child.end() for child in running))


async def _start(module: str, job: Job) -> Child:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
        start_new_session=True,  # Ctrl-C in the terminal is for the parent, which then ends its children
    )
    child = Child(module, process)
    child._write(json.dumps(asdict(job)) + "\n")
    return child
