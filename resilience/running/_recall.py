"""Calling a task back from its work: a cancellation at any moment, known afterwards by whoever asked for it.

    called_back = recall()
    try:
        await work()                    # somebody calls called_back.fire() meanwhile
    except BaseException as error:
        if called_back.disarm(error): ...    # its own doing
        raise

Like an alarm of `_deadlines`, with the same accounting, but set off by an event instead of the time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from ._deadlines import current_asyncio_task

if TYPE_CHECKING:
    import trio


class Recall(Protocol):
    """A cancellation that may come."""

    def fire(self) -> None:
        """Cancel what the task does."""
        ...

    def disarm(self, error: BaseException | None) -> bool:
        """End it, in its task; True if `error` is the cancellation by which it ended the work."""
        ...


def recall() -> Recall:
    """A recall of the current task."""
    task = current_asyncio_task()
    return _TrioRecall() if task is None else AsyncioRecall(task)


class AsyncioRecall:
    """A recall of an asyncio task."""

    __slots__ = ("_cancelling", "_fired", "_task")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self._cancelling = task.cancelling()
        self._fired = False

    def fire(self) -> None:
        """Cancel what the task does."""
        self._fired = True
        self._task.cancel()

    def disarm(self, error: BaseException | None) -> bool:
        """End it; True if `error` is its own doing."""
        if not self._fired:
            return False
        # Somebody else's cancellation may have arrived as well; then it is theirs to answer for.
        alone = self._task.uncancel() <= self._cancelling
        return alone and isinstance(error, asyncio.CancelledError)


class _TrioRecall:
    __slots__ = ("_scope",)

    def __init__(self) -> None:
        import trio

        self._scope: trio.CancelScope = trio.CancelScope()
        self._scope.__enter__()

    def fire(self) -> None:
        self._scope.cancel()

    def disarm(self, error: BaseException | None) -> bool:
        if error is None:
            self._scope.__exit__(None, None, None)
            return False
        return bool(self._scope.__exit__(type(error), error, error.__traceback__))
