"""Several processes of one program that tell what happens to them, line by line."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Self


class Workers:
    """Start them, hear them, stop or kill them; what is left at the end is killed."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.told: list[dict[str, Any]] = []
        """All that was told, in order of arrival; `who` says by whom."""
        self.running: dict[str, asyncio.subprocess.Process] = {}
        self._readers: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for name in tuple(self.running):
            await self.kill(name)

    async def start(self, name: str, plan: dict[str, Any]) -> None:
        """Start one and return when it is ready."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self.program,
            name,
            json.dumps(plan),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**26,  # the longest line
        )
        self.running[name] = process
        self._readers[name] = asyncio.create_task(self._read(name, process))
        await self.until(lambda: bool(self.events("ready", name)), 30.0)

    async def kill(self, name: str) -> None:
        """SIGKILL."""
        process = self.running.pop(name)
        process.kill()
        await process.wait()
        await self._readers.pop(name)

    async def stop(self) -> None:
        """Let all of them end and say what they have to say."""
        for process in self.running.values():
            assert process.stdin is not None
            process.stdin.close()
        for name, process in tuple(self.running.items()):
            assert await asyncio.wait_for(process.wait(), 30.0) == 0, name
            await self._readers.pop(name)
            del self.running[name]

    def events(self, event: str, who: str | None = None) -> list[dict[str, Any]]:
        """What was told of one kind."""
        return [each for each in self.told if each["event"] == event and who in (None, each["who"])]

    async def until(self, condition: Any, seconds: float) -> None:
        """Wait until something has come true. Raises AssertionError when it does not."""
        for _ in range(int(seconds / 0.005)):
            if condition():
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"did not come true within {seconds} seconds; told: {self.told[-20:]}")

    async def _read(self, name: str, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self.told.append({"who": name, **json.loads(line)})
