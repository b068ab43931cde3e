"""A cancellation that knows whose doing it was, on both event loops."""

from __future__ import annotations

from collections.abc import Awaitable

import anyio
import pytest

from resilience.running._recall import Recall, recall

pytestmark = pytest.mark.anyio


async def fired_later(armed: Recall, seconds: float = 1.0) -> None:
    await anyio.sleep(seconds)
    armed.fire()


async def test_work_that_is_called_back_ends_and_says_so() -> None:
    async with anyio.create_task_group() as group:
        armed = recall()
        group.start_soon(fired_later, armed)
        ended = False
        try:
            await anyio.sleep(10)
        except BaseException as error:
            ended = armed.disarm(error)
        assert ended
        await anyio.sleep(1)  # nothing is left of it
    assert anyio.current_time() == 2.0


async def ended(armed: Recall, work: Awaitable[object], seen: list[bool]) -> None:
    """Note whether it was called back; what else ended it is raised."""
    try:
        await work
    except BaseException as error:
        seen.append(armed.disarm(error))
        if not seen[-1]:
            raise
    else:
        seen.append(armed.disarm(None))


async def failing() -> None:
    raise KeyError


async def test_work_that_ends_by_itself_was_not_called_back() -> None:
    seen: list[bool] = []
    await ended(recall(), anyio.sleep(1), seen)
    with pytest.raises(KeyError):
        await ended(recall(), failing(), seen)
    assert seen == [False, False]
    await anyio.sleep(1)


async def test_a_cancellation_by_somebody_else_is_not_its_own() -> None:
    seen: list[bool] = []
    with anyio.CancelScope() as scope:
        armed = recall()
        scope.cancel()
        await ended(armed, anyio.sleep(10), seen)
    assert scope.cancelled_caught
    assert seen == [False]


async def test_they_nest() -> None:
    seen: list[bool] = []
    async with anyio.create_task_group() as group:
        outer, inner = recall(), recall()
        group.start_soon(fired_later, outer)
        await ended(outer, ended(inner, anyio.sleep(10), seen), seen)
    assert seen == [False, True]
