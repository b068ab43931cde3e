"""The waiting line of a rate limiter, where the policy's own tests do not look."""

from __future__ import annotations

import anyio
import pytest

from resilience import RateLimiter, clock
from resilience.testing import run
from resilience.testing.virtual_time import Backend


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_impossible_cost_is_refused_before_it_stands_in_line(backend: Backend) -> None:
    limiter = RateLimiter("1/s", burst=1)
    moments: list[float] = []

    async def call() -> None:
        await limiter.call(anyio.sleep, 0)
        moments.append(clock.now())

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(call)
            await anyio.sleep(0.5)  # two of them wait
            with pytest.raises(ValueError, match="cost must be at most 1"):
                await limiter.bind(cost=2).call(anyio.sleep, 0)

    run(main, backend=backend)
    assert moments == [0.0, 1.0, 2.0]
