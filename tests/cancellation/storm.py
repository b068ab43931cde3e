"""The storm: callers come, and are cancelled at any step of the event loop or moment in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Protocol

import anyio
import anyio.abc
import anyio.lowlevel

from .world import World

CALM = 100.0
"""Seconds after which every limit in these worlds is fresh again."""


class Victim(Protocol):
    """A caller that can be cancelled."""

    def cancel(self) -> object: ...


class Storm:
    """Rounds of callers and cancellations in one world, until enough cancellations have hit."""

    def __init__(self, world: World, random: Random, native: bool) -> None:
        self.world = world
        self.random = random
        self.native = native
        """Cancel asyncio tasks themselves; otherwise anyio's scopes, half the time with a deadline."""
        self.hits = 0
        self.rounds = 0

    async def rage(self, hits: int) -> None:
        """Go on until so many callers were ended by a cancellation."""
        while self.hits < hits:
            self.rounds += 1
            await self._round()
            await self.world.check()
            if self.rounds % 4 == 0:
                await anyio.sleep(CALM)
                self.world.forget()

    async def _round(self) -> None:
        victims: list[Victim] = []
        async with anyio.create_task_group() as group:
            for _ in range(self.random.randint(1, 16)):
                victims.append(self._start(group))
                await self._pause(0.3)
            for _ in range(self.random.randint(1, 2 * len(victims))):
                self.random.choice(victims).cancel()
                await self._pause(0.7)

    def _start(self, group: anyio.abc.TaskGroup) -> Victim:
        if self.native:
            task = asyncio.create_task(self.world.caller())
            group.start_soon(self._join, task)
            return task
        scope = anyio.CancelScope()
        if self.random.random() < 0.2:
            scope.deadline = anyio.current_time() + self.random.random() * 0.05
        group.start_soon(self._scoped, scope)
        return scope

    async def _scoped(self, scope: anyio.CancelScope) -> None:
        with scope:
            await self.world.caller()
        self.hits += scope.cancelled_caught

    async def _join(self, task: asyncio.Task[None]) -> None:
        await asyncio.wait([task])
        if task.cancelled():
            self.hits += 1
        else:
            task.result()

    async def _pause(self, probability: float) -> None:
        """Some steps of the loop, or some virtual time."""
        if self.random.random() < probability:
            if self.random.random() < 0.6:
                for _ in range(self.random.randint(0, 6)):
                    await anyio.lowlevel.checkpoint()
            else:
                await anyio.sleep(self.random.random() * 0.02)


def raging(make: Callable[[Random], World], seed: int, native: bool, hits: int) -> Callable[[], Awaitable[Storm]]:
    """A main function for one storm; returns the storm."""

    async def main() -> Storm:
        random = Random(seed)
        storm = Storm(make(random), random, native)
        try:
            await storm.rage(hits)
        except BaseException as error:
            error.add_note(f"seed {seed}, round {storm.rounds}, after {storm.hits} cancellations")
            raise
        return storm

    return main
