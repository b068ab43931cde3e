"""Tasks of their own: work that goes on when whoever began it is cancelled.

    job = begin(work)          # await work() in a new task, in a copy of the current context
    await job.stop()           # cancel it, and wait until it has ended

Under asyncio a task of the loop, under trio a system task. It is in no task group and no scope of the caller. It ends
with the event loop at the latest.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

import anyio

from ._deadlines import current_asyncio_task

if TYPE_CHECKING:
    import trio

logger: logging.Logger = logging.getLogger("resilience")

Work = Callable[[], Awaitable[None]]
"""Hands its results and errors to somebody; what it raises all the same is logged."""


class Job(Protocol):
    """Work under way."""

    home: object
    """The event loop or trio run that it is a part of."""

    @property
    def abandoned(self) -> bool:
        """Whether its event loop was closed over it."""
        ...

    def cancel(self) -> None:
        """Cancel it, once; does nothing if it has ended."""
        ...

    async def stop(self) -> None:
        """Cancel it and wait until it has ended, also if the caller is cancelled meanwhile."""
        ...


def begin(work: Work, loop: asyncio.AbstractEventLoop | None = None) -> Job:
    """Await `work()` in a new task. It has not begun when this returns.

    In a callback of an asyncio loop, where no task is running, that `loop` has to be given.
    """
    if loop is None and (task := current_asyncio_task()) is not None:
        loop = task.get_loop()
    return _TrioJob(work) if loop is None else _AsyncioJob(work, loop)


def home() -> object:
    """What identifies the event loop or trio run that this is called in."""
    task = current_asyncio_task()
    if task is not None:
        return task.get_loop()
    import trio

    return trio.lowlevel.current_trio_token()


def is_cancellation(error: BaseException) -> bool:
    """Whether an error is a cancellation of either event loop; also where no loop is running."""
    if isinstance(error, asyncio.CancelledError):
        return True
    trio = sys.modules.get("trio")
    return trio is not None and isinstance(error, trio.Cancelled)


_jobs: set[asyncio.Task[None]] = set()
"""Asyncio itself keeps no task alive."""

_latest: weakref.ref[asyncio.AbstractEventLoop] | None = None
"""The event loop of the last job."""


def _keep(task: asyncio.Task[None], loop: asyncio.AbstractEventLoop) -> None:
    """Keep a task alive until it has ended, or another event loop is used after its own was closed."""
    global _latest
    if _latest is None or _latest() is not loop:
        _latest = weakref.ref(loop)
        _jobs.difference_update([each for each in _jobs if each.get_loop().is_closed()])
    _jobs.add(task)
    task.add_done_callback(_over)


class _AsyncioJob:
    __slots__ = ("_task", "home")

    def __init__(self, work: Work, loop: asyncio.AbstractEventLoop) -> None:
        self.home: object = loop
        self._task: asyncio.Task[None] = loop.create_task(_run(work))
        _keep(self._task, loop)

    @property
    def abandoned(self) -> bool:
        return self._task.get_loop().is_closed()

    def cancel(self) -> None:
        self._task.cancel()

    async def stop(self) -> None:
        self._task.cancel()
        with anyio.CancelScope(shield=True):
            while not self._task.done():
                try:
                    await asyncio.wait([self._task])
                except asyncio.CancelledError:  # the caller raises its own when the work has ended
                    self._task.cancel()


async def _run(work: Work) -> None:
    await work()


def _over(task: asyncio.Task[None]) -> None:
    _jobs.discard(task)
    error = None if task.cancelled() else task.exception()
    if error is not None:
        logger.error("work in the background failed", exc_info=error)


class _TrioJob:
    __slots__ = ("_ended", "_scope", "home")

    def __init__(self, work: Work) -> None:
        import trio

        self.home: object = trio.lowlevel.current_trio_token()
        self._scope: trio.CancelScope = trio.CancelScope()
        self._ended: trio.Event = trio.Event()
        trio.lowlevel.spawn_system_task(self._run, work, context=contextvars.copy_context())

    @property
    def abandoned(self) -> bool:
        return False  # a run does not end before its tasks

    async def _run(self, work: Work) -> None:
        import trio

        try:
            with self._scope:
                await work()
        except trio.Cancelled:  # the run is over
            raise
        except BaseException:  # would end the whole run
            logger.exception("work in the background failed")
        finally:
            self._ended.set()

    def cancel(self) -> None:
        self._scope.cancel()

    async def stop(self) -> None:
        self._scope.cancel()
        with anyio.CancelScope(shield=True):
            await self._ended.wait()
