"""Timeout: ends a call that takes too long.

    @Timeout(2.0)
    async def fetch(url): ...

Outermost in a pipeline it limits the whole operation, innermost each attempt.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from .. import clock
from .._validate import positive
from ..call import Call, Leasing
from ..errors import TimedOutError
from ..events import CallTimedOut, Listener
from ..policy import Guard
from ..running._deadlines import Alarm, arm
from ..running._sweep import Sweep

T = TypeVar("T")


class Armed:
    """One call under a Timeout; `alarm` is None once the result lives on in a lease."""

    __slots__ = ("alarm", "deadline")

    def __init__(self, alarm: Alarm | None, deadline: float) -> None:
        self.alarm: Alarm | None = alarm
        self.deadline: float = deadline


class Timeout(Guard[Armed]):
    """Cancel the call after `seconds` and raise `TimedOutError` (also a `TimeoutError`).

    Of nested timeouts the one whose deadline passed raises; a cancellation from outside is never disguised as
    a timeout. Policies inside the timeout know the deadline: no retry sleeps past it, no queue waits past it.
    Around an async generator or a streamed response the seconds count while the next item is being awaited, up
    to one deadline for all of them.

    Raises ValueError at construction unless `seconds` is positive and finite.
    """

    def __init__(self, seconds: float, *, name: str | None = None, listeners: Sequence[Listener] = ()) -> None:
        super().__init__(name, listeners)
        self.seconds: float = positive("seconds", seconds)
        self._sweep: Sweep | None = None

    def enter(self, call: Call) -> Armed:
        """Set the deadline."""
        now = clock.now()
        return Armed(self._swept().whole(now) or arm(self.seconds), now + self.seconds)

    def leave(self, call: Call, token: Armed, result: Any, error: BaseException | None) -> None:
        """Take the deadline back. Raises TimedOutError if it ended the call."""
        if token.alarm is not None and token.alarm.disarm(error):
            raise self._timed_out(call) from error

    def suspend(self, call: Call, token: Armed) -> Armed:
        """Hand the rest of the deadline to the lease, which has one task per step."""
        if call.lease is not None:
            call.lease.limit(token.deadline, self)
        self.leave(call, token, None, None)
        token.alarm = None
        return token

    async def run_until(self, lease: Leasing, deadline: float, step: Callable[[], Awaitable[T]]) -> T:
        """Await one step of a result that is still alive. Raises TimedOutError at `deadline`."""
        alarm = self._swept().part(deadline) or arm(deadline - clock.now())
        try:
            result = await step()
        except BaseException as error:
            if alarm.disarm(error):
                assert lease.call is not None, "what has a deadline has a call"
                timed_out = self._timed_out(lease.call)
                lease.expire(self, timed_out, error)
                raise timed_out from error
            raise
        alarm.disarm(None)
        return result

    def _swept(self) -> Sweep:
        if self._sweep is None:
            self._sweep = Sweep([self.seconds])
        return self._sweep

    def _timed_out(self, call: Call) -> TimedOutError:
        if self.listeners:
            self.emit(CallTimedOut(call.operation.name, self.name, self.seconds))
        return TimedOutError(
            f"{call.operation.name} did not finish within {self.seconds:g} s",
            policy=self.name,
            seconds=self.seconds,
        )
