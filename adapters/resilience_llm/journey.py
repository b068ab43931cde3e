"""Whether a request has left: until then it has cost nothing.

journey = Journey(request.extensions.get("trace"), traced=True)
request.extensions["trace"] = journey.trace
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from resilience.errors import RejectedError

_LEFT = "send_request_headers.started"
"""How the trace of both clients' connections says that a request is leaving, in HTTP/1.1 and HTTP/2."""
_UNSENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol"})
"""Errors of both clients that come before a request has left."""


class Journey:
    """Watches one request. `follow` is a trace that somebody else wants to have; it is called too.

    `traced` says that the transport underneath is one that traces, so that silence means something.
    """

    def __init__(self, follow: Callable[[str, Any], Awaitable[None]] | None, traced: bool) -> None:
        self._follow = follow
        self._traced = traced
        self._left = False

    async def trace(self, event: str, info: Any) -> None:
        """Hear what happens; connections call it."""
        if event.endswith(_LEFT):
            self._left = True
        if self._follow is not None:
            await self._follow(event, info)

    def never_began(self, error: BaseException) -> bool:
        """Whether a request that ended with `error` has certainly not left."""
        if self._left:
            return False
        unsent = any(base.__name__ in _UNSENT for base in type(error).__mro__)
        return self._traced or unsent or isinstance(error, RejectedError)
