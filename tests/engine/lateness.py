"""Callers that were kept waiting go on a little late, each by a time of its own: no two ever act at one instant.

    with late_wakes():
        late(retry)                 # before the pipeline is built
        LATENESS.set(0.001)         # in the task of a caller

One that waited in line is let in, or sent away, at the instant at which another left, and those who failed
together would come back together. Where they have the same deadline from there on, which of two timers goes off
first is nothing that anybody promises: the fused path sets its alarms later than the plain one.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import anyio

from resilience import Retry
from resilience.running import _parking
from resilience.running._parking import park

LATENESS: ContextVar[float] = ContextVar("LATENESS", default=0.0)
"""Seconds, of the current caller."""


class LateWaiter:
    """A parked task that goes on some time after it was woken."""

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        self._waiter = park(task)

    def __await__(self) -> Generator[Any, Any, Any]:
        answer = yield from self._waiter.__await__()
        yield from anyio.sleep(LATENESS.get()).__await__()
        return answer

    def done(self) -> bool:
        return self._waiter.done()

    def set_result(self, answer: Any) -> None:
        self._waiter.set_result(answer)


@contextmanager
def late_wakes() -> Generator[None]:
    """Inside the block, whatever parks a task parks it like that."""
    users = [vars(module) for name, module in sys.modules.items() if name.startswith("resilience")]
    users = [names for names in users if names.get("park") is park and names is not vars(_parking)]
    for names in users:
        names["park"] = LateWaiter
    try:
        yield
    finally:
        for names in users:
            names["park"] = park


def late(retry: Retry) -> None:
    """Lengthen the pauses of a Retry."""
    pause = retry._pause

    async def late_pause(sequence: Any, delay: float) -> None:
        await pause(sequence, delay + LATENESS.get())

    vars(retry)["_pause"] = late_pause
