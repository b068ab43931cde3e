"""Waiting and timers on both event loops, as cheap as each of them allows.

    waiter = park(current_asyncio_task())     # in the task that is going to wait
    answer = await waiter                     # until somebody calls wake(waiter, answer)

    timer = call_later(0.5, serve)
    timer.cancel()

`anyio.Event` and a sleep per waiter do the same for ten times the price, which counts when 100,000 calls stand
in line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    import trio

Waiter: TypeAlias = "asyncio.Future[Any] | _TrioWaiter"
"""One parked task; awaited once, for what it is woken with."""


class Timer(Protocol):
    """A callback to come."""

    def cancel(self) -> object:
        """Call it off; does nothing if it is over."""
        ...


def park(task: asyncio.Task[Any] | None) -> Waiter:
    """A waiter for the current task; `task` is None under trio."""
    return _TrioWaiter() if task is None else asyncio.Future(loop=task.get_loop())


def wake(waiter: Waiter, answer: Any = None) -> None:
    """Let a parked task go on with `answer`. Again does nothing, and so does waking one that was cancelled."""
    if not waiter.done():
        waiter.set_result(answer)


def call_later(seconds: float, callback: Callable[[], None]) -> Timer:
    """Call `callback`, which must not raise, in this event loop after `seconds`."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return _TrioTimer(seconds, callback)
    return loop.call_later(seconds, callback)


class _TrioWaiter:
    """What a future is under asyncio, as far as it is needed here."""

    __slots__ = ("_answer", "_event")

    def __init__(self) -> None:
        import trio

        self._event = trio.Event()
        self._answer: Any = None

    def __await__(self) -> Generator[Any, Any, Any]:
        yield from self._event.wait().__await__()
        return self._answer

    def done(self) -> bool:
        return self._event.is_set()

    def set_result(self, answer: Any) -> None:
        self._answer = answer
        self._event.set()


class _TrioTimer:
    """Trio has no timers but sleeping tasks."""

    __slots__ = ("_scope",)

    def __init__(self, seconds: float, callback: Callable[[], None]) -> None:
        import trio

        self._scope: trio.CancelScope = trio.CancelScope()
        trio.lowlevel.spawn_system_task(self._sleep, seconds, callback)

    async def _sleep(self, seconds: float, callback: Callable[[], None]) -> None:
        import trio

        with self._scope:
            await trio.sleep(seconds)
            callback()

    def cancel(self) -> None:
        self._scope.cancel()
