"""Entering and leaving a row of guards by hand: around a block, and around an async generator."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

from .call import Call, Cost, Held, Lease, Operation, leave_all
from .policy import Guard


async def enter_all(guards: Sequence[Guard[Any]], call: Call) -> list[Held]:
    """Enter the guards, outermost first; if one refuses, those before it leave with its error."""
    held: list[Held] = []
    try:
        for guard in guards:
            token = guard.enter(call)
            if token is None:
                token = await guard.wait(call)
            held.insert(0, (guard, call, token, None))
    except BaseException as error:
        remaining = leave_all(held, error)
        if remaining is not None and remaining is not error:
            raise remaining from error
        raise
    return held


async def lease_all(guards: Sequence[Guard[Any]], call: Call) -> Lease:
    """Enter the guards and keep them in a lease, for work that goes on in steps."""
    lease = call.lease = Lease()
    for guard, _, token, result in await enter_all(guards, call):
        lease.hold(guard, call, token, result)
    return lease


def _nothing() -> None:
    """Stand in for the function of a call that is a block."""


class Block(AbstractAsyncContextManager[Call]):
    """`async with policy.guard(): ...`, for one use."""

    def __init__(self, guards: Sequence[Guard[Any]], operation: Operation, *, key: str, cost: Cost) -> None:
        self._guards = guards
        self._call = Call(operation, _nothing, key=key, cost=cost)
        self._held: list[Held] = []

    async def __aenter__(self) -> Call:
        self._held = await enter_all(self._guards, self._call)
        return self._call

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        held, self._held = self._held, []
        remaining = leave_all(held, error)
        if remaining is not None and remaining is not error:
            raise remaining
