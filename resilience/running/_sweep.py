"""Deadlines for the price of a dictionary entry: one sweep per event loop serves all calls of a pipeline.

    sweep = Sweep([10.0, 2.0])           # nested deadlines, outermost first, that begin together
    task = sweep.attach()                # None: not in an asyncio task
    sweep.live[task] = clock.now()       # the call begins
    ...
    del sweep.live[task]                 # the call is over

    alarm = sweep.whole(clock.now())     # the same as an alarm; None: the call needs one of its own
    alarm = sweep.part(deadline)         # for a part of a result that lives on
    ...
    alarm.disarm(None)                   # or alarm.disarm(error)

All calls of one sweep have the same number of seconds, so the dictionary, which keeps its order, is sorted by
deadline. While calls are under way a timer looks at the oldest of them every quarter of the shortest time, and
gives exact alarms only to those that come due before it looks again. Hence a deadline is as exact as a timer's.
Parts are in a table of their own, in no order, and it looks at them all.
"""

from __future__ import annotations

import asyncio
import math
import sys
from _thread import get_ident
from collections.abc import Callable, Sequence
from typing import Any

from .. import clock
from ._deadlines import AsyncioAlarm, sweeps

if sys.version_info >= (3, 12):
    current_task_of = asyncio.current_task
else:
    # What asyncio.current_task(loop) does in 3.11, without the Python frame around it.
    current_task_of: Callable[[Any], asyncio.Task[Any] | None] = asyncio.tasks._current_tasks.get  # type: ignore[attr-defined]

# Looking the method up in a task costs more than calling it; only tasks that are no asyncio.Task have another.
cancelling_of: Callable[[Any], int] = vars(asyncio.Task)["cancelling"]


class Sweep:
    """The calls under way with the same `limits`, deadlines in seconds, in one event loop at a time.

    A call may enter `live` by itself if `thread` (0 while no timer runs) and `loop` are where it runs and its task
    is not yet in `live`; otherwise it asks `attach`, and if that gives nothing it has to use an alarm of its own.
    """

    __slots__ = ("_turn", "alarms", "limits", "live", "loop", "parts", "seconds", "thread", "tick", "ticking")

    def __init__(self, limits: Sequence[float]) -> None:
        self.limits: tuple[float, ...] = tuple(limits)
        self.seconds: float = min(limits)
        self.tick: float = self.seconds / 4
        self.live: dict[asyncio.Task[Any], float] = {}
        self.parts: dict[asyncio.Task[Any], float] = {}
        # The tasks that got exact alarms, one for each limit: what outlives the shortest is ended by the others.
        # Their entry in `live` is moved to the end and never due.
        self.alarms: dict[asyncio.Task[Any], list[AsyncioAlarm]] = {}
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread: int = 0
        self.ticking: bool = False
        self._turn = 0

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
            if (self.live or self.parts) and not self.over:
                return None  # calls of a loop in another thread, or of one that will run again, are in the table
            self.live.clear()
            self.parts.clear()
            for abandoned in tuple(self.alarms):
                self.disarm(abandoned)
            self.loop = loop
            self._turn += 1
            for sweep in [self, *(other for other in sweeps if isinstance(other, Sweep) and other.over)]:
                sweep._tick(False)
        self.thread = get_ident()
        if not self.ticking:
            self._tick(True)
            loop.call_later(self.tick, self._look, loop, self._turn)
        return task

    def whole(self, moment: float) -> Swept | None:
        """An alarm for a call of the current task that begins now, at `moment`."""
        task = self._free_task()
        return None if task is None else Swept(self, self.live, task, moment)

    def part(self, deadline: float) -> Swept | None:
        """An alarm for a part for which the current task waits, if there is time to look before the deadline."""
        if deadline <= clock.now() + self.tick:
            return None
        task = self._free_task()
        return None if task is None else Swept(self, self.parts, task, deadline)

    def _free_task(self) -> asyncio.Task[Any] | None:
        """The current task, unless it is in a table already, or being cancelled."""
        task = (current_task_of(self.loop) if get_ident() == self.thread else None) or self.attach()
        if task is None or task in self.live or task in self.parts or task.cancelling():
            return None
        return task

    @property
    def over(self) -> bool:
        """Whether the loop it served is closed: what is still in its table will never go on."""
        return self.loop is not None and self.loop.is_closed()

    def disarm(self, task: asyncio.Task[Any]) -> None:
        """Forget the exact alarms, if any, of a task that has returned."""
        for alarm in reversed(self.alarms.pop(task, ())):
            alarm.disarm(None)

    def _look(self, loop: asyncio.AbstractEventLoop, turn: int) -> None:
        if turn != self._turn:
            return  # a timer from before the sweep went to another loop, and perhaps came back
        now = clock.now()
        soon = now + self.tick - self.seconds
        due: list[tuple[asyncio.Task[Any], float]] = []
        for task, started in self.live.items():
            if started <= soon:
                due.append((task, started))
            elif started < math.inf:  # behind those that have their alarms and linger, there may be others
                break
        for task, started in due:
            del self.live[task]
            self.live[task] = math.inf
            self.alarms[task] = [AsyncioAlarm(task, started + limit - now, cancelling=0) for limit in self.limits]
        for task in [task for task, deadline in self.parts.items() if deadline <= now + self.tick]:
            self.alarms[task] = [AsyncioAlarm(task, self.parts[task] - now, cancelling=0)]
            self.parts[task] = math.inf
        self._tick(bool(self.live or self.parts))
        if self.ticking:
            loop.call_later(self.tick, self._look, loop, turn)

    def _tick(self, ticking: bool) -> None:
        if ticking is not self.ticking:
            self.ticking = ticking
            self.thread = get_ident() if ticking else 0
            (sweeps.append if ticking else sweeps.remove)(self)


class Swept:
    """An `Alarm` that only exists once it is about to go off."""

    __slots__ = ("_sweep", "_table", "_task")

    def __init__(
        self, sweep: Sweep, table: dict[asyncio.Task[Any], float], task: asyncio.Task[Any], moment: float
    ) -> None:
        self._sweep = sweep
        self._table = table
        self._task = task
        table[task] = moment

    def disarm(self, error: BaseException | None) -> bool:
        """End it; True if `error` is its own doing."""
        self._table.pop(self._task, None)  # a task destroyed with its loop may find the table in use by another
        alarms = self._sweep.alarms
        own = alarms.pop(self._task, None) if alarms else None
        return own is not None and own[0].disarm(error)
