"""Ending background tasks, for good.

    await end(task)

A cancellation may be swallowed by what a task is waiting for: a client that takes it for a failed connection and goes
on. So it is repeated until the task has ended.
"""

from __future__ import annotations

import asyncio
from typing import Any

AGAIN = 0.05
"""Seconds after which a task that has not ended is cancelled once more."""


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended. How they ended is not looked at."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN)
