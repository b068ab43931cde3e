"""Work in the background that begins with the first use and ends with the event loop, or when it is told to.

keeper = Keeper([resolve_again, check_health])     # endless coroutine functions
keeper.keep()                                       # begins them, unless they are under way
await keeper.stop()
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import anyio

from resilience.running._jobs import Job, begin, home


class Keeper:
    """Endless work in one job; it survives the end of an event loop by beginning again in the next."""

    def __init__(self, works: Sequence[Callable[[], Coroutine[Any, Any, None]]]) -> None:
        self._works = works
        self._job: Job | None = None

    def keep(self) -> None:
        """Begin the work unless it is under way; call it in an event loop."""
        job = self._job
        if not self._works or (job is not None and not job.abandoned):
            return

        async def run() -> None:
            try:
                await self._work()
            finally:
                if self._job is begun:  # and not the work that was begun while this ended
                    self._job = None

        # Not in the caller's context: its deadline and its call are none of the work's.
        self._job = begun = contextvars.Context().run(begin, run)

    async def stop(self) -> None:
        """End the work and wait for it."""
        job, self._job = self._job, None
        if job is not None and job.home is home():
            await job.stop()

    async def _work(self) -> None:
        async with anyio.create_task_group() as tasks:
            for work in self._works:
                tasks.start_soon(work)
