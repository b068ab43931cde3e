"""Connections that a cancellation has stranded: nobody uses them, and nobody ever will.

    await close_stranded(transport)     # after a request was cancelled

httpcore 1.0, the engine of httpx, yields to the event loop once between making a connection and noting that a request
uses it (it waits for an `anyio.Lock`). Cancelled by asyncio there, as by `asyncio.timeout`, a `Timeout` or a `Hedge`,
it leaves a connection in its pool that is neither idle nor closed nor in use, for good; a hundred of those and every
request waits for a place. httpx2 has mended that.
"""

from __future__ import annotations

from typing import Any

import anyio


async def close_stranded(transport: Any) -> None:
    """Close what no request uses and no request can get. Does nothing for transports of other kinds."""
    pool: Any = getattr(transport, "_pool", None)
    if type(pool).__module__.partition(".")[0] != "httpcore":
        return
    used = [request.connection for request in getattr(pool, "_requests", ())]
    for connection in list(pool.connections):
        if connection not in used and not connection.is_idle() and not connection.is_closed():
            with anyio.CancelScope(shield=True):
                await connection.aclose()
            # One that its request has left before it was opened does not close, and nobody would ever open it.
            if not connection.is_closed() and connection in pool._connections:
                pool._connections.remove(connection)
