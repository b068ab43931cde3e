"""The asyncio event loop of virtual time: instead of sleeping in its selector it moves the clock."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import math
import selectors
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVarTuple

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

    from .virtual_time import VirtualClock


class DeadlockError(RuntimeError):
    """In virtual time: no task can run, no timer is set, and nothing comes from outside."""

    def __init__(self, tasks: Iterable[str]) -> None:
        waiting = "".join(f"\n  {task}" for task in tasks)
        super().__init__(f"deadlock: nothing can run, no timer is set and no I/O arrives; waiting tasks:{waiting}")


Ts = TypeVarTuple("Ts")
_order = itertools.count()


class _Timer(asyncio.TimerHandle):
    order: int

    def __lt__(self, other: Any) -> bool:
        return (self.when(), self.order) < (other.when(), other.order)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is that of a `VirtualClock`."""

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Set a timer. Those of one virtual instant go off in the order in which they were set."""
        timer = _Timer(when, callback, args, self, context)
        timer.order = next(_order)
        scheduled: Any = self
        heapq.heappush(scheduled._scheduled, timer)
        vars_of: Any = timer
        vars_of._scheduled = True  # as the loop itself notes it
        return timer

    def __init__(self, clock: VirtualClock) -> None:
        self._virtual = clock
        super().__init__(_Selector(self._idle))

    def time(self) -> float:
        """Virtual seconds."""
        return self._virtual.now()

    def _idle(self, timeout: float | None, poll: Callable[[float], list[Any]]) -> list[Any]:
        """Nothing can run: jump to the next timer, or wait a little for the world outside."""
        timers: list[asyncio.TimerHandle] = vars(self)["_scheduled"]
        # anyio sleeps for ever by a timer that is never due.
        if timeout is None or timers[0].when() == math.inf:
            events = poll(self._virtual.patience)
            if not events:
                raise DeadlockError(_describe(task) for task in asyncio.all_tasks(self))
            return events
        # The timer's own moment, not now + timeout: the loop cuts long timeouts, and sums round.
        moment = max(timers[0].when(), self.time())
        self._virtual.jump_to(moment)
        # Timers are due when they are less than this ahead; at 0 the loop would find none, ever.
        vars(self)["_clock_resolution"] = max(1e-9, 2 * math.ulp(moment))
        return []


class _Selector(selectors.BaseSelector):
    """A real selector that never sleeps; `idle` decides what happens when it has nothing to tell."""

    def __init__(self, idle: Callable[[float | None, Callable[[float], list[Any]]], list[Any]]) -> None:
        self._real = selectors.DefaultSelector()
        self._idle = idle

    def register(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if ready or timeout == 0:
            return ready
        return self._idle(timeout, self._real.select)

    def close(self) -> None:
        self._real.close()

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return self._real.get_map()


def _describe(task: asyncio.Task[Any]) -> str:
    frames = task.get_stack(limit=1)
    where = f" at {frames[-1].f_code.co_filename}:{frames[-1].f_lineno}" if frames else ""
    return f"{task.get_name()}{where}"
