"""Cancellation by somebody else: without a deadline that the cancelled code could know of."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio


@asynccontextmanager
async def cancelled_after(seconds: float) -> AsyncGenerator[anyio.CancelScope]:
    """Cancel the block from another task, `seconds` from now."""
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:

            async def cancel() -> None:
                await anyio.sleep(seconds)
                scope.cancel()

            group.start_soon(cancel)
            yield scope
            group.cancel_scope.cancel()
