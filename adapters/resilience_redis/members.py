"""How many processes share the limits: each says from time to time that it lives, and hears how many do.

link.members.join()
link.members.count      # at least 1: ourselves
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from resilience import clock
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
        self._returned: list[Callable[[bool | None], None]] = []
        self._heard = -math.inf
        self.count: int = 1
        """Live processes, ourselves included. While the store is away, as it was before."""

    def join(self, returned: Callable[[bool | None], None] | None = None) -> None:
        """Be counted from now on; again does nothing.

        Calls `returned` when the store is back after an outage: at once with None, and with True or False when it is
        known whether it has lost its memory.
        """
        if returned is not None:
            self._returned.append(returned)
        if self._stop is None:
            self._stop = self._link.every(BEAT, self._beat)
            self._link.start(self._begin())
            self._link.on_change(self._changed)

    async def leave(self) -> None:
        """Be counted no more."""
        stop, self._stop = self._stop, None
        if stop is None:
            return
        stop()
        if self._link.available:
            self._link.post(self._script, self._keys, ("leave", "", self._link.process))

    def _changed(self, available: bool) -> None:
        if available and self._stop is not None:
            self._tell(None)
            self._link.start(self._come_back())

    async def _begin(self) -> None:
        try:
            await self._beat()
        except StoreUnavailableError:
            return  # the next beat tries again

    async def _come_back(self) -> None:
        known_until = self._heard + LIFETIME
        try:
            known = await self._beat()
        except StoreUnavailableError:
            return  # so it is away again
        # After a longer silence it may have dropped us without having lost anything.
        self._tell(not known and clock.now() < known_until)

    def _tell(self, forgotten: bool | None) -> None:
        for returned in tuple(self._returned):
            returned(forgotten)

    async def _beat(self) -> bool:
        """Give a sign of life; returns whether the server knew us."""
        lifetime = str(int(LIFETIME * 1e6))
        count, known = await self._link.run(self._script, self._keys, ("beat", "", self._link.process, lifetime))
        self.count, self._heard = max(1, int(count)), clock.now()
        return bool(known)
