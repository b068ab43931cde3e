"""Deadlines for the price of a dictionary entry: one sweep per event loop serves all calls of a pipeline.

    sweep = Sweep(2.0)
    task = sweep.attach()                # None: not in an asyncio task
    sweep.live[task] = clock.now()       # the call begins
    ...
    del sweep.live[task]                 # the call is over

All calls of one sweep have the same number of seconds, so the dictionary, which keeps its order, is sorted by
deadline. While calls are under way a timer looks at the oldest of them every quarter of the time, and gives an
exact alarm only to those that come due before it looks again. Hence a deadline is as exact as a timer's.
"""

from __future__ import annotations

import asyncio
import math
import sys
from _thread import get_ident
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from . import clock
from ._deadlines import AsyncioAlarm

if sys.version_info >= (3, 12):
    current_task_of = asyncio.current_task
else:
    # What asyncio.current_task(loop) does in 3.11, without the Python frame around it.
    current_task_of: Callable[[Any], asyncio.Task[Any] | None] = asyncio.tasks._current_tasks.get  # type: ignore[attr-defined]

_sweeps: WeakSet[Sweep] = WeakSet()


class Sweep:
    """The calls under way with a deadline of `seconds` each, in one event loop at a time.

    A call may enter `live` by itself if `thread` and `loop` are where it runs, `ticking` is true and its task is
    not yet in `live`; otherwise it asks `attach`, and if that gives nothing it has to use an alarm of its own.
    """

    __slots__ = ("__weakref__", "alarms", "live", "loop", "seconds", "thread", "tick", "ticking")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.tick = seconds / 4
        self.live: dict[asyncio.Task[Any], float] = {}
        # The tasks that got an exact alarm; their entry in `live` is moved to the end and never due.
        self.alarms: dict[asyncio.Task[Any], AsyncioAlarm] = {}
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread = 0
        self.ticking = False
        _sweeps.add(self)

    def attach(self) -> asyncio.Task[Any] | None:
        """Make this sweep serve the running loop; the current task, or None if it cannot."""
        try:
            task = asyncio.current_task()
        except RuntimeError:  # no asyncio loop here
            return None
        if task is None:
            return None
        loop = task.get_loop()
        if loop is not self.loop:
            if self.live and self.loop is not None and not self.loop.is_closed():
                return None  # calls of a loop in another thread, or of one that will run again, are in the table
            self.live.clear()
            self.alarms.clear()
            self.loop, self.thread, self.ticking = loop, get_ident(), False
        if not self.ticking:
            self.ticking = True
            loop.call_later(self.tick, self._look, loop)
        return task

    def disarm(self, task: asyncio.Task[Any], error: BaseException | None) -> bool:
        """Forget the exact alarm of a task that has left; True if `error` is the alarm's doing."""
        alarm = self.alarms.pop(task, None)
        return alarm is not None and alarm.disarm(error)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self.loop:
            return  # the timer of a loop that is no longer served
        now = clock.now()
        soon = now + self.tick - self.seconds
        due: list[tuple[asyncio.Task[Any], float]] = []
        for task, started in self.live.items():
            if started > soon:
                break
            due.append((task, started))
        for task, started in due:
            del self.live[task]
            self.live[task] = math.inf
            self.alarms[task] = AsyncioAlarm(task, started + self.seconds - now, cancelling=0)
        self.ticking = bool(self.live)
        if self.ticking:
            loop.call_later(self.tick, self._look, loop)


def swept_deadline(task: asyncio.Task[Any]) -> float:
    """The earliest deadline of a task in any sweep that has no exact alarm yet; infinite without one."""
    entries = [(sweep.live.get(task, math.inf), sweep) for sweep in tuple(_sweeps)]
    return min((started + sweep.seconds for started, sweep in entries), default=math.inf)
