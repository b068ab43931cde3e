"""Background tasks end, even those in which somebody swallows a cancellation."""

from __future__ import annotations

import asyncio

import pytest

from resilience_redis.connection.ending import end


@pytest.mark.asyncio
async def test_a_swallowed_cancellation_is_repeated() -> None:
    cancelled = 0

    async def stubborn() -> None:
        nonlocal cancelled
        while cancelled < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await end(task)
    assert task.done()
    assert cancelled == 2


@pytest.mark.asyncio
async def test_nothing_to_end_is_fine() -> None:
    await end()
