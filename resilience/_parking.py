"""Waiting and timers on both event loops, as cheap as each of them allows.

    waiter = park()              # in the task that is going to wait
    await waiter.wait()          # until somebody calls waiter.wake()

    timer = call_later(0.5, serve)
    timer.cancel()

`anyio.Event` and a sleep per waiter do the same for ten times the price, which counts when 100,000 calls stand
in line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ._deadlines import current_asyncio_task

if TYPE_CHECKING:
    import trio


class Waiter(Protocol):
    """One parked task."""

    async def wait(self) -> None:
        """Wait for `wake`; at once if that was earlier."""
        ...

    def wake(self) -> None:
        """Let it go on. Again does nothing, and so does waking one that was cancelled."""
        ...


class Timer(Protocol):
    """A callback to come."""

    def cancel(self) -> object:
        """Call it off; does nothing if it is over."""
        ...


def park() -> Waiter:
    """A waiter for the current task."""
    task = current_asyncio_task()
    return _TrioWaiter() if task is None else _AsyncioWaiter(task.get_loop())


def call_later(seconds: float, callback: Callable[[], None]) -> Timer:
    """Call `callback`, which must not raise, in this event loop after `seconds`."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return _TrioTimer(seconds, callback)
    return loop.call_later(seconds, callback)


class _AsyncioWaiter:
    __slots__ = ("_future",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._future: asyncio.Future[None] = loop.create_future()

    async def wait(self) -> None:
        await self._future

    def wake(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


class _TrioWaiter:
    __slots__ = ("_event",)

    def __init__(self) -> None:
        import trio

        self._event = trio.Event()

    async def wait(self) -> None:
        await self._event.wait()

    def wake(self) -> None:
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
