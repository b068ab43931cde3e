"""From the frame back to the hooks: everything that is not a plain success ends here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from .. import clock
from ..call import Call, Handler, Lease
from ..policies.retry import Retry
from ..policies.timeout import Armed, Timeout
from ..policy import Guard
from ..running._deadlines import Alarm, AsyncioAlarm
from .fragments import Fragment


@dataclass(frozen=True, slots=True)
class Step:
    """One policy of a frame, and the plain handler of everything inside it."""

    fragment: Fragment
    inside: Handler


class Unwinder:
    """Lets the policies of a frame leave, innermost first, exactly as their hooks would have."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps

    async def unwind(
        self,
        call: Call,
        moment: float,
        kept: Sequence[Any],
        task: asyncio.Task[Any] | None,
        alarms: Sequence[Alarm],
        result: Any,
        error: BaseException | None,
    ) -> Any:
        """Go on from an attempt that began at `moment` and returned `result` or raised `error`.

        `kept` is what the frame noted for each step. Returns or raises what the whole pipeline does, after more
        attempts if a Retry wants them.
        """
        tokens = self._tokens(moment, kept, task, list(alarms), error)
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
                if error is not None and not isinstance(step.fragment.policy, Retry):
                    _put_in_context(raised, error)
                error = raised
        if error is None:
            return result
        context = error.__context__
        try:
            raise error
        finally:
            error.__context__ = context  # `raise` has put there what our caller is handling
            error = context = None  # a frame and a traceback that hold each other would wait for the collector

    def lease(self, call: Call, moment: float, kept: Sequence[Any], result: Any) -> Lease:
        """What holds the guards for a result that a frame returned alive, as if their hooks had put them there."""
        lease = call.lease = Lease()
        for step, token in zip(self._steps, self._tokens(moment, kept, None, [], None), strict=True):
            if not isinstance(step.fragment.policy, Retry):
                guard = cast("Guard[Any]", step.fragment.policy)
                lease.hold(guard, call, token, result)
        return lease

    def _tokens(
        self,
        moment: float,
        kept: Sequence[Any],
        task: asyncio.Task[Any] | None,
        alarms: list[Alarm],
        error: BaseException | None,
    ) -> list[Any]:
        """What the hooks would have made on entry; `alarms` are those of all timeouts, outermost first, or none."""
        # A cancellation that no alarm brought about is not retried: then no deadline is still to come.
        goes_on = bool(alarms) or error is None or isinstance(error, Exception)
        outside_of_retry = False
        tokens: list[Any] = []
        for step, note in zip(self._steps, kept, strict=True):
            part = step.fragment
            if isinstance(part.policy, Timeout):
                deadline = moment + part.policy.seconds
                alarm = alarms.pop() if alarms else None
                if alarm is None and task is not None and outside_of_retry and goes_on:
                    alarm = AsyncioAlarm(task, deadline - clock.now(), cancelling=0)
                tokens.append(Armed(alarm, deadline))
            else:
                tokens.append(None if part.token is None else part.token(note, moment))
            outside_of_retry = outside_of_retry or isinstance(part.policy, Retry)
        return tokens


def _put_in_context(raised: BaseException, handled: BaseException) -> None:
    """Note what was being handled, as Python does for what is raised in an `except` block."""
    if raised is handled:
        return
    chain = [handled]
    while (link := chain[-1].__context__) is not None:
        if link is raised:
            chain[-1].__context__ = None
            break
        chain.append(link)
    while raised.__context__ is not None and not any(raised.__context__ is link for link in chain):
        raised = raised.__context__
    raised.__context__ = handled
