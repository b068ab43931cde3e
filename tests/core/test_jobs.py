"""Work in tasks of its own: whose it is, how it ends, what becomes of its errors."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import anyio
import pytest

from resilience import clock
from resilience.running._jobs import begin, home
from resilience.testing import VirtualClock
from tests.support.scopes import cancelled_after

pytestmark = pytest.mark.anyio


async def test_it_goes_on_when_who_began_it_is_cancelled() -> None:
    done: list[float] = []

    async def work() -> None:
        await anyio.sleep(2)
        done.append(clock.now())

    async with cancelled_after(1):
        job = begin(work)
        assert job.home is home()
        await anyio.sleep(10)
    await anyio.sleep(5)
    assert done == [2.0]
    await job.stop()
    job.cancel()


async def test_stop_waits_for_its_end_also_under_cancellation() -> None:
    ended: list[float] = []

    async def work() -> None:
        try:
            await anyio.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(3)
            ended.append(clock.now())

    job = begin(work)
    await anyio.sleep(1)
    async with cancelled_after(1):
        await job.stop()
    assert ended == [4.0]
    assert clock.now() == 4.0


async def test_errors_that_nobody_takes_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        raise ValueError("nobody's")

    with caplog.at_level(logging.ERROR, "resilience"):
        await begin(work).stop()
        begin(work)
        await anyio.sleep(1)
    assert [(record.message, record.exc_info is not None) for record in caplog.records][-1:] == [
        ("work in the background failed", True)
    ]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it_ends_with_the_loop(virtual_clock: VirtualClock, backend: Any) -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await anyio.sleep(100)
        finally:
            ended.append("ended")

    async def main() -> None:
        begin(work)
        await anyio.sleep(1)

    virtual_clock.run(main, backend=backend)
    assert (ended, virtual_clock.now()) == (["ended"], 1.0)


def test_a_second_cancellation_is_passed_on() -> None:
    """Whoever waits for the end and is cancelled again does what a second cancellation of his own work would do."""
    seen: list[str] = []

    async def work() -> None:
        for turn in ("first", "second"):
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                seen.append(turn)

    async def stop() -> None:
        job = begin(work)
        await asyncio.sleep(0)
        await job.stop()

    async def main() -> None:
        task = asyncio.create_task(stop())
        for _ in range(4):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait_for(task, 5)

    asyncio.run(main())
    assert seen == ["first", "second"]
