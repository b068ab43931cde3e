"""What became of a request: for callbacks of its future, and for those who send what nobody waits for.

if (error := error_of(reply)) is not None: ...
sent.add_done_callback(complain)
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from resilience.errors import StoreUnavailableError

logger: logging.Logger = logging.getLogger("resilience.redis")


def error_of(reply: asyncio.Future[Any]) -> Exception | None:
    """What went wrong with a request, if anything did."""
    if reply.cancelled():
        return StoreUnavailableError("the store was closed")
    error = reply.exception()
    return error if error is None or isinstance(error, Exception) else StoreUnavailableError(str(error))


def complain(reply: asyncio.Future[Any]) -> None:
    """Nobody waits for the reply: that the store is away is no news, anything else has to be heard of."""
    error = error_of(reply)
    if error is not None and not isinstance(error, StoreUnavailableError):
        logger.error("what the store was told is lost: %s", error)


def ignore(reply: asyncio.Future[Any]) -> None:
    """Whatever became of it is nobody's concern, or that of another callback."""
    if not reply.cancelled():
        reply.exception()


def as_text(reply: str | bytes) -> str:
    """Return the text of a reply, whether the client decodes or not."""
    return reply if isinstance(reply, str) else reply.decode()
