"""From the frame back to the hooks: everything that is not a plain success ends here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from .. import clock
from .._deadlines import AsyncioAlarm
from .._sweep import Sweep
from ..call import Call, Handler
from ..policies.retry import Retry
from ..policies.timeout import Armed, Timeout
from ..policy import Guard
from .fragments import Fragment


@dataclass(frozen=True, slots=True)
class Step:
    """One policy of a frame, and the plain handler of everything inside it."""

    fragment: Fragment
    inside: Handler


class Unwinder:
    """Lets the policies of a frame leave, innermost first, exactly as their hooks would have."""

    def __init__(self, steps: Sequence[Step], owner: Timeout | None, sweep: Sweep | None) -> None:
        self._steps = steps
        self._owner = owner
        self._sweep = sweep

    async def unwind(
        self,
        call: Call,
        moment: float,
        kept: Sequence[Any],
        task: asyncio.Task[Any] | None,
        result: Any,
        error: BaseException | None,
    ) -> Any:
        """Go on from an attempt that began at `moment` and returned `result` or raised `error`.

        `kept` is what the frame noted for each step. Returns or raises what the whole pipeline does, after more
        attempts if a Retry wants them.
        """
        tokens = self._tokens(moment, kept, task, error)
        for step, token in zip(self._steps, tokens, strict=True):
            policy = step.fragment.policy
            try:
                if isinstance(policy, Retry):
                    result = await policy.resume(call, step.inside, result, error)
                    error = None
                else:
                    guard = cast("Guard[Any]", policy)
                    if error is None and call.lease is not None:
                        call.lease.hold(guard, call, token, result)
                    else:
                        guard.leave(call, token, result, error)
            except BaseException as raised:
                error = raised
        if error is None:
            return result
        try:
            raise error
        finally:
            error = None  # a frame and a traceback that hold each other would wait for the collector

    def _tokens(
        self, moment: float, kept: Sequence[Any], task: asyncio.Task[Any] | None, error: BaseException | None
    ) -> list[Any]:
        """What the hooks would have made on entry."""
        outside_of_retry = False
        tokens: list[Any] = []
        for step, note in zip(self._steps, kept, strict=True):
            part = step.fragment
            if isinstance(part.policy, Timeout):
                tokens.append(self._armed(part.policy, moment, task, error, outside_of_retry))
            else:
                tokens.append(None if part.token is None else part.token(note, moment))
            outside_of_retry = outside_of_retry or isinstance(part.policy, Retry)
        return tokens

    def _armed(
        self,
        timeout: Timeout,
        moment: float,
        task: asyncio.Task[Any] | None,
        error: BaseException | None,
        goes_on: bool,
    ) -> Armed:
        """The deadline of one Timeout: expired, still to come if a Retry inside it may go on, or over."""
        deadline = moment + timeout.seconds
        if timeout is self._owner and self._sweep is not None and task is not None:
            alarm = self._sweep.alarms.pop(task, None)
            if alarm is not None:
                return Armed(alarm, deadline)
        if goes_on and task is not None:
            return Armed(AsyncioAlarm(task, deadline - clock.now(), cancelling=0), deadline)
        return Armed(None, deadline)
