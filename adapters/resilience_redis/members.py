"""How many processes share the limits: each says from time to time that it lives, and hears how many do.

link.members.join()
link.members.count      # at least 1: ourselves
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilience.errors import StoreUnavailableError
from resilience_redis.scripts import script_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience_redis.link import Link

BEAT = 1.0
"""Seconds between two signs of life."""

LIFETIME = 5.0
"""A process that was silent for so many seconds is not counted any more."""


class Members:
    """The processes that use a store now, as this one last heard."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._script = script_of("_prelude", "members")
        self._keys = (f"{{{link.prefix}:members}}",)
        self._stop: Callable[[], None] | None = None
        self.count: int = 1
        """Live processes, ourselves included. While the store is away, as it was before."""

    def join(self) -> None:
        """Be counted from now on; again does nothing."""
        if self._stop is None:
            self._stop = self._link.every(BEAT, self._beat)
            self._link.start(self._begin())

    async def leave(self) -> None:
        """Be counted no more."""
        stop, self._stop = self._stop, None
        if stop is None:
            return
        stop()
        if self._link.available:
            self._link.post(self._script, self._keys, ("leave", "", self._link.process))

    async def _begin(self) -> None:
        try:
            await self._beat()
        except StoreUnavailableError:
            return  # the next beat tries again

    async def _beat(self) -> None:
        lifetime = str(int(LIFETIME * 1e6))
        reply = await self._link.run(self._script, self._keys, ("beat", "", self._link.process, lifetime))
        self.count = max(1, int(reply))
