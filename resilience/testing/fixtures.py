"""pytest fixtures for virtual time on asyncio and trio, through anyio's pytest plugin.

# conftest.py
from resilience.testing.fixtures import anyio_backend, virtual_clock

# test_something.py
@pytest.mark.anyio
async def test_something(virtual_clock):
    await anyio.sleep(3600)
    assert virtual_clock.now() == 3600
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from .virtual_time import VirtualClock

__all__ = ["anyio_backend", "virtual_clock"]


@pytest.fixture
def virtual_clock() -> Generator[VirtualClock]:
    """A new clock at 0.0 for each test; the library reads it."""
    with VirtualClock().installed() as clock:
        yield clock


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest, virtual_clock: VirtualClock) -> Generator[tuple[str, dict[str, Any]]]:
    """Runs a test on asyncio and on trio, each in virtual time."""
    if request.param == "asyncio":
        yield "asyncio", {"loop_factory": virtual_clock.loop}
        return
    yield "trio", virtual_clock.trio_options()
    watchdog = virtual_clock.watchdog
    if watchdog is not None and watchdog.deadlock is not None:
        raise watchdog.deadlock
