"""Deadlines of running calls: cancel a task at a moment, and know afterwards whose cancellation it was.

    alarm = arm(2.0)
    try:
        await work()
    except BaseException as error:
        if alarm.disarm(error): ...   # the alarm's own doing
        raise
    else:
        alarm.disarm(None)

Whoever set an alarm translates its cancellation, and nobody else. Under asyncio that follows the accounting of
`asyncio.timeout` (`Task.uncancel`); under trio an alarm is a cancel scope. Alarms of one task are disarmed in
the reverse order of arming.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from . import clock

if TYPE_CHECKING:
    import trio


class Alarm(Protocol):
    """A deadline of the current task."""

    def disarm(self, error: BaseException | None) -> bool:
        """End the deadline; True if `error` is the cancellation by which it ended the work."""
        ...


def arm(seconds: float) -> Alarm:
    """Cancel what the current task does after `seconds`, unless disarmed before."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no asyncio loop in this thread
        task = None
    return _TrioAlarm(seconds) if task is None else _AsyncioAlarm(task, seconds)


def current_deadline() -> float | None:
    """The earliest deadline that policies set for the current task, on `resilience.clock`; None without one.

    Also finds deadlines of pipelines further out, whose call records are not at hand. Tasks started inside a
    call are not covered: under asyncio they are not cancelled by its deadline either.
    """
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return _trio_deadline()
    if task is None:
        return _trio_deadline()
    alarm = _live.get(task)
    return None if alarm is None else alarm.earliest


_live: dict[asyncio.Task[Any], _AsyncioAlarm] = {}
"""The innermost alarm of each task that has one."""


class _AsyncioAlarm:
    __slots__ = ("_cancelling", "_fired", "_handle", "_outer", "_task", "earliest")

    earliest: float
    """The deadline of this alarm or, if one further out is due before it, of that one."""

    def __init__(self, task: asyncio.Task[Any], seconds: float) -> None:
        deadline = clock.now() + seconds
        outer = _live.get(task)
        self.earliest = deadline if outer is None else min(deadline, outer.earliest)
        self._outer = outer
        self._task = task
        self._cancelling = task.cancelling()
        self._fired = False
        self._handle = task.get_loop().call_later(max(seconds, 0.0), self._fire)
        _live[task] = self

    def _fire(self) -> None:
        self._fired = True
        self._task.cancel()

    def disarm(self, error: BaseException | None) -> bool:
        self._handle.cancel()
        if self._outer is None:
            _live.pop(self._task, None)
        else:
            _live[self._task] = self._outer
        if not self._fired:
            return False
        # Somebody else's cancellation may have arrived as well; then it is theirs to answer for.
        alone = self._task.uncancel() <= self._cancelling
        return alone and isinstance(error, asyncio.CancelledError)


class _TrioAlarm:
    __slots__ = ("_scope",)

    def __init__(self, seconds: float) -> None:
        import trio

        self._scope: trio.CancelScope = trio.CancelScope(deadline=trio.current_time() + seconds)
        self._scope.__enter__()

    def disarm(self, error: BaseException | None) -> bool:
        if error is None:
            self._scope.__exit__(None, None, None)
            return False
        return bool(self._scope.__exit__(type(error), error, error.__traceback__))


def _trio_deadline() -> float | None:
    import trio

    deadline = trio.current_effective_deadline()
    return None if deadline == float("inf") else clock.now() + deadline - trio.current_time()
