"""A dependency that does what a script says.

    script = FaultScript(ConnectionError("down"), Delay(2.0, "late"), HANG, "up")
    await retry.call(script)

Each call takes the next line: an exception is raised, `Delay` waits first, `HANG` never answers, and anything
else is returned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import anyio

from .. import clock


@dataclass(frozen=True, slots=True)
class Delay:
    """After `seconds`, do what `outcome` says."""

    seconds: float
    outcome: Any = None


class _Hang:
    """The one value that stands for no answer."""

    def __repr__(self) -> str:
        return "HANG"


HANG: Final = _Hang()
"""Never answer."""


class FaultScript:
    """An async callable that follows a script; takes any arguments.

    With `repeat` the last line is repeated for ever, otherwise a call after the last line raises IndexError.
    Raises ValueError at construction without a line.
    """

    def __init__(self, *lines: Any, repeat: bool = False) -> None:
        if not lines:
            raise ValueError("lines must hold at least one outcome")
        self.lines = lines
        self.repeat = repeat
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        """The arguments of every call so far."""
        self.started: list[float] = []
        """When each call came, on the library's clock."""
        self.running: int = 0
        """Calls inside now."""
        self.most: int = 0
        """The most calls that were ever inside at once."""

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Play the next line."""
        line = self._next()
        self.calls.append((args, kwargs))
        self.started.append(clock.now())
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return await _play(line)
        finally:
            self.running -= 1

    def _next(self) -> Any:
        position = len(self.calls)
        if position >= len(self.lines):
            if not self.repeat:
                raise IndexError(f"the script has {len(self.lines)} lines, and this is call {position + 1}")
            position = -1
        return self.lines[position]


async def _play(line: Any) -> Any:
    if isinstance(line, Delay):
        await anyio.sleep(line.seconds)
        return await _play(line.outcome)
    if line is HANG:
        await anyio.sleep_forever()
    if _raises(line):
        raise line
    return line


def _raises(line: object) -> bool:
    return isinstance(line, BaseException) or (isinstance(line, type) and issubclass(line, BaseException))
