"""Virtual time under trio: its own mock clock, and a watchdog for what that clock would wait for for ever."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import trio.abc
import trio.testing

from ._asyncio import DeadlockError

if TYPE_CHECKING:
    from .virtual_time import VirtualClock


def mock_clock(start: float) -> trio.testing.MockClock:
    """A clock that begins at `start` and jumps whenever nothing can run."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    clock.jump(start)
    return clock


class Watchdog(trio.abc.Instrument):
    """Cancels a trio run in which nothing can happen any more, and keeps the reason in `deadlock`.

    Without a deadline to jump to, the mock clock makes trio poll for I/O in a circle. After the clock's `patience`
    in real seconds, the run is cancelled.
    """

    def __init__(self, clock: VirtualClock) -> None:
        self.deadlock: DeadlockError | None = None
        self._clock = clock
        self._idle_since: float | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Something runs."""
        self._idle_since = None

    def before_io_wait(self, timeout: float) -> None:
        """Nothing runs: is there anything to come?"""
        statistics = trio.lowlevel.current_statistics()
        if statistics.tasks_runnable or statistics.seconds_to_next_deadline != math.inf:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = time.monotonic()
        elif time.monotonic() - self._idle_since > self._clock.patience:
            self._bark()

    def _bark(self) -> None:
        self._idle_since = None
        root = trio.lowlevel.current_root_task()
        if root is not None and self.deadlock is None:
            self.deadlock = DeadlockError(task.name for task in _below(root))
            for nursery in root.child_nurseries:
                nursery.cancel_scope.cancel()


def _below(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield child
            yield from _below(child)
