"""Virtual time: tests of waits, deadlines and back-offs that take no time.

    async def patient():
        await anyio.sleep(3600)
        return clock.now()

    run(patient)                      # 3600.0, at once; also run(patient, backend="trio")

A `VirtualClock` stands still while anything can run and jumps to the next timer when nothing can. Real I/O is
polled before every jump, but not waited for: a timer never gives a real server time to answer. When there is
nothing to jump to and nothing comes from outside either, a `DeadlockError` is raised instead of hanging.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from .. import clock as library_clock
from ._asyncio import DeadlockError, VirtualLoop

if TYPE_CHECKING:
    import trio.testing

    from ._trio import Watchdog

T = TypeVar("T")
Backend = Literal["asyncio", "trio"]

__all__ = ["Backend", "DeadlockError", "VirtualClock", "run"]


class VirtualClock:
    """Seconds that pass only when nothing else can happen; several event loops, one after another, share them.

    Begins at `start` (0.0). `patience` is how many real seconds a loop with nothing to do waits for threads and
    sockets before it raises `DeadlockError` (1.0).
    """

    def __init__(self, start: float = 0.0, *, patience: float = 1.0) -> None:
        self.patience = patience
        self._time = start
        self._mock: trio.testing.MockClock | None = None
        self.watchdog: Watchdog | None = None
        """What watches the latest trio run."""

    def now(self) -> float:
        """Seconds on this clock; also callable outside of any event loop."""
        return self._time if self._mock is None else self._mock.current_time()

    def advance(self, seconds: float) -> None:
        """Move the clock by hand; timers that come due fire when the loop gets its turn."""
        if seconds < 0:
            raise ValueError(f"seconds must be at least 0, got {seconds!r}")
        if self._mock is None:
            self._time += seconds
        else:
            self._mock.jump(seconds)

    @contextmanager
    def installed(self) -> Generator[VirtualClock]:
        """Let the library read this clock inside the block."""
        before = library_clock.now
        library_clock.now = self.now
        try:
            yield self
        finally:
            library_clock.now = before

    def loop(self) -> asyncio.AbstractEventLoop:
        """A new asyncio event loop on this clock: a `loop_factory` for `asyncio.Runner` and for anyio."""
        self._settle()
        return VirtualLoop(self)

    def trio_options(self) -> dict[str, Any]:
        """Keyword arguments for one `trio.run` on this clock."""
        from ._trio import Watchdog, mock_clock

        self._settle()
        self._mock = mock_clock(self._time)
        self.watchdog = Watchdog(self)
        return {"clock": self._mock, "instruments": [self.watchdog]}

    def run(self, fn: Callable[..., Awaitable[T]], /, *args: Any, backend: Backend = "asyncio") -> T:
        """Run `await fn(*args)` in a new event loop on this clock.

        Raises `DeadlockError` if it waits for what can never come.
        """

        async def main() -> T:
            return await fn(*args)

        if backend == "asyncio":
            with asyncio.Runner(loop_factory=self.loop) as runner:
                return runner.run(main())
        import trio

        options = self.trio_options()
        try:
            return trio.run(main, **options)
        except BaseException:
            if self.watchdog is not None and self.watchdog.deadlock is not None:
                raise self.watchdog.deadlock from None
            raise

    def jump_to(self, moment: float) -> None:
        """Set the time of the running asyncio loop; for `VirtualLoop`."""
        self._time = moment

    def _settle(self) -> None:
        self._time, self._mock = self.now(), None


def run(fn: Callable[..., Awaitable[T]], /, *args: Any, backend: Backend = "asyncio") -> T:
    """Run `await fn(*args)` in virtual time, on a new clock that the library reads as well.

    `backend` is `asyncio` (default) or `trio`. Raises `DeadlockError` if it waits for what can never come.
    """
    with VirtualClock().installed() as virtual:
        return virtual.run(fn, *args, backend=backend)
