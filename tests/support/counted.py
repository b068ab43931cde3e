"""A protected function that counts its runs, and callers of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio


class Counted:
    """A function that takes `seconds`, and what became of its runs; `outcomes` are values, or errors to raise.

    Without further outcomes a run returns its arguments and its number. A run that is cancelled takes half a second
    to clean up.
    """

    def __init__(self, *outcomes: object, seconds: float = 1.0) -> None:
        self.outcomes: list[Any] = list(outcomes)
        self.seconds = seconds
        self.begun = self.completed = self.cancelled = self.cleaned = 0

    async def run(self, key: object = "a") -> Any:
        self.begun += 1
        number = self.begun
        try:
            await anyio.sleep(self.seconds)
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.5)
            self.cleaned += 1
            raise
        outcome: Any = self.outcomes.pop(0) if self.outcomes else f"{key} {number}"
        error = _error_of(outcome)
        if error is not None:
            try:
                raise error
            finally:
                del error, outcome  # or the error and this frame would hold each other
        self.completed += 1
        return outcome


def _error_of(outcome: object) -> BaseException | None:
    if isinstance(outcome, type) and issubclass(outcome, BaseException):
        return outcome()
    return outcome if isinstance(outcome, BaseException) else None


async def together(count: int, fn: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Call a function so many times at once; the results, or the exceptions, in order of arrival."""
    found: list[Any] = []

    async def one() -> None:
        try:
            found.append(await fn())
        except Exception as error:
            found.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(one)
    return found
