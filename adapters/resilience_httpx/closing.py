"""Closing responses to the end, also when the caller is cancelled in the midst of it.

    await undisturbed(response.aclose())

Connection pools close a response in several steps, and one that stays half closed is in use for ever. They protect
the steps from cancelled scopes, but not from `Task.cancel()`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any

import anyio

from resilience.call import close_result


async def undisturbed(closing: Coroutine[Any, Any, None]) -> None:
    """Await `closing` to its end, then raise the cancellation that arrived meanwhile, if one did."""
    with anyio.CancelScope(shield=True):
        await Deferring(closing)


async def discard(result: Any) -> None:
    """Close a result that nobody will see; what goes wrong then is nobody's business either."""
    await undisturbed(close_result(result))


class Deferring:
    """Awaits a coroutine; a native cancellation between two of its steps waits until it has ended.

    One that arrives while it waits for a future has cancelled that future, and is passed on as always: closing is
    done without waiting for anything but its turn.
    """

    __slots__ = ("_work",)

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self._work = work

    def __await__(self) -> Generator[Any, Any, None]:
        answer: Any = None
        error: BaseException | None = None
        cancellation: asyncio.CancelledError | None = None
        try:
            while True:
                try:
                    wanted = self._work.send(answer) if error is None else self._work.throw(error)
                except StopIteration:
                    break
                answer = error = None
                try:
                    answer = yield wanted
                except asyncio.CancelledError as raised:
                    if wanted is None:
                        cancellation = raised
                    else:
                        error = raised
                except BaseException as raised:
                    error = raised
            if cancellation is not None:
                raise cancellation
        finally:
            error = cancellation = None  # a frame and a traceback that hold each other would wait for the collector
