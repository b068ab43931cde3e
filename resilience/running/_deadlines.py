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
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from .. import clock

if TYPE_CHECKING:
    import trio

    from ..call import Call


class Alarm(Protocol):
    """A deadline of the current task."""

    def disarm(self, error: BaseException | None) -> bool:
        """End the deadline; True if `error` is the cancellation by which it ended the work."""
        ...


def arm(seconds: float) -> Alarm:
    """Cancel what the current task does after `seconds`, unless disarmed before."""
    task = current_asyncio_task()
    return open_scopes((seconds,))[0] if task is None else AsyncioAlarm(task, seconds, task.cancelling())


def current_asyncio_task() -> asyncio.Task[Any] | None:
    """The asyncio task that runs this, or None under trio."""
    try:
        return asyncio.current_task()
    except RuntimeError:  # no asyncio loop in this thread
        return None


def current_deadline(task: asyncio.Task[Any] | None = None) -> float | None:
    """The earliest deadline that policies set for the current task, on `resilience.clock`; None without one.

    Also finds deadlines of pipelines further out, whose call records are not at hand. Tasks started inside a
    call are not covered: under asyncio they are not cancelled by its deadline either. `task` saves looking for it.
    """
    if not _alarms and not sweeps and task is not None:
        return None
    task = task or current_asyncio_task()
    if task is None:
        return _trio_deadline()
    earliest = math.inf
    for alarm in _alarms.get(task, ()):
        earliest = min(earliest, alarm.deadline)
    for sweep in sweeps:
        earliest = min(earliest, sweep.live.get(task, math.inf) + sweep.seconds, sweep.parts.get(task, math.inf))
    return None if earliest == math.inf else earliest


def deadline_of(call: Call, task: asyncio.Task[Any] | None = None) -> float:
    """The earliest end that anybody set for a call, infinite without one. For slow paths."""
    own = math.inf if call.deadline is None else call.deadline
    ambient = current_deadline(task)
    return own if ambient is None else min(own, ambient)


class Table(Protocol):
    """Calls that began at some time and all have the same number of seconds, and parts with deadlines."""

    live: dict[asyncio.Task[Any], float]
    parts: dict[asyncio.Task[Any], float]
    seconds: float


sweeps: list[Table] = []
"""The tables in which there are calls under way, or were a moment ago."""

_alarms: dict[asyncio.Task[Any], list[AsyncioAlarm]] = {}
"""The alarms of each task that has any."""


class AsyncioAlarm:
    """A deadline of an asyncio task, `seconds` from now; `cancelling` is the count that it found on entry."""

    __slots__ = ("_cancelling", "_fired", "_handle", "_task", "deadline")

    def __init__(self, task: asyncio.Task[Any], seconds: float, cancelling: int) -> None:
        self.deadline = clock.now() + seconds
        self._task = task
        self._cancelling = cancelling
        self._fired = False
        self._handle = task.get_loop().call_later(max(seconds, 0.0), self._fire)
        _alarms.setdefault(task, []).append(self)

    def _fire(self) -> None:
        self._fired = True
        self._task.cancel()

    def disarm(self, error: BaseException | None) -> bool:
        """End it; True if `error` is its own doing."""
        self._handle.cancel()
        others = _alarms[self._task]
        others.remove(self)
        if not others:
            del _alarms[self._task]
        if not self._fired:
            return False
        # Somebody else's cancellation may have arrived as well; then it is theirs to answer for.
        alone = self._task.uncancel() <= self._cancelling
        return alone and isinstance(error, asyncio.CancelledError)


class _TrioAlarm:
    __slots__ = ("_scope",)

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope
        scope.__enter__()

    def disarm(self, error: BaseException | None) -> bool:
        if error is None:
            self._scope.__exit__(None, None, None)
            return False
        return bool(self._scope.__exit__(type(error), error, error.__traceback__))


def in_trio() -> bool:
    """Whether a trio task is running here. Does not import trio: where it runs, somebody has."""
    module = sys.modules.get("trio")
    return module is not None and bool(module.lowlevel.in_trio_task())


def open_scopes(limits: Sequence[float]) -> list[_TrioAlarm]:
    """Alarms under trio after each of `limits` seconds, outermost first."""
    import trio

    now = trio.current_time()
    return [_TrioAlarm(trio.CancelScope(deadline=now + seconds)) for seconds in limits]


def close_scopes(scopes: list[_TrioAlarm]) -> None:
    """End alarms that did not go off."""
    for scope in reversed(scopes):
        scope.disarm(None)


def _trio_deadline() -> float | None:
    import trio

    deadline = trio.current_effective_deadline()
    return None if deadline == math.inf else clock.now() + deadline - trio.current_time()
