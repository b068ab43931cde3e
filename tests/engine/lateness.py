"""Callers that a policy lets go on, each a little late: so no two of them ever act at one instant.

    late(policy)                # before the pipeline is built
    LATENESS.set(0.001)         # in the task of a caller

One that waited in line is let in, or sent away, at the instant at which another left, and those who failed
together would come back together. Where they have the same deadline from there on, which of two timers goes off
first is nothing that anybody promises: the fused path sets its alarms later than the plain one.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, cast

import anyio

from resilience import Fallback, Policy, Retry
from resilience.call import Call
from resilience.policy import Guard

LATENESS: ContextVar[float] = ContextVar("LATENESS", default=0.0)
"""Seconds, of the current caller."""


def late(policy: Policy) -> None:
    """Delay those who come out of the waits of `policy`."""
    if isinstance(policy, Retry):
        _late_retry(policy)
    elif not isinstance(policy, Fallback):
        _late_guard(cast("Guard[Any]", policy))


def _late_guard(guard: Guard[Any]) -> None:
    wait = guard.wait

    async def late_wait(call: Call) -> Any:
        try:
            token = await wait(call)
        except Exception:
            await anyio.sleep(LATENESS.get())
            raise
        try:
            await anyio.sleep(LATENESS.get())
        except BaseException as error:
            guard.leave(call, token, None, error)
            raise
        return token

    vars(guard)["wait"] = late_wait


def _late_retry(retry: Retry) -> None:
    pause = retry._pause

    async def late_pause(sequence: Any, delay: float) -> None:
        await pause(sequence, delay + LATENESS.get())

    vars(retry)["_pause"] = late_pause
