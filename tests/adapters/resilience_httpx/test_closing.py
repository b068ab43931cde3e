"""Closing goes on to its end when `Task.cancel()` comes between two of its steps."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from resilience_httpx.closing import discard, undisturbed

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Scopes are all that there is on trio."""
    return "asyncio"


class Steps:
    """Something to close in three steps, or while a future is awaited."""

    def __init__(self, *, error: Exception | None = None, future: bool = False) -> None:
        self.steps = 0
        self._error = error
        self._future = future

    async def aclose(self) -> None:
        for _ in range(3):
            if self._future:
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(0)
            self.steps += 1
        if self._error is not None:
            raise self._error


@pytest.mark.parametrize("turns", [1, 2, 3])
async def test_a_cancellation_waits_until_the_end(turns: int) -> None:
    closing = Steps()
    task = asyncio.create_task(undisturbed(closing.aclose()))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closing.steps == 3


async def test_a_cancelled_scope_waits_too() -> None:
    closing = Steps()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await undisturbed(closing.aclose())
    assert closing.steps == 3


async def test_errors_are_raised_and_of_discarded_results_swallowed() -> None:
    with pytest.raises(OSError, match="gone"):
        await undisturbed(Steps(error=OSError("gone")).aclose())
    closing = Steps(error=OSError("gone"))
    await discard(closing)
    assert closing.steps == 3
    await discard("not to be closed")


async def test_an_error_of_closing_goes_before_the_cancellation() -> None:
    task = asyncio.create_task(undisturbed(Steps(error=OSError("gone")).aclose()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(OSError, match="gone"):
        await task


async def test_who_waits_for_a_future_is_interrupted() -> None:
    task = asyncio.create_task(undisturbed(Steps(future=True).aclose()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
