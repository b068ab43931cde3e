"""Whether the server answers: while it does not, nobody waits for it, and one probe looks for it.

    guard = Guard(probe, abandon)
    guard.missed(error, certain=True)   # no answer in time, or no connection
    guard.available                       # False, until `probe()` has found the server back
    stop = guard.on_change(listener)      # listener(False), listener(True)

The server is away after one command that found no server or no answer in time, or after several in a row that it
refused for reasons of its own (loading, full, read-only). Mistakes (credentials, permissions, wrong types) are the
caller's: a server that says so is there.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

from resilience.errors import StoreUnavailableError
from resilience_redis.connection.ending import end
from resilience_redis.connection.outage import as_outage

logger: logging.Logger = logging.getLogger("resilience.redis")

Stop: TypeAlias = Callable[[], None]
"""Ends what was begun; again does nothing."""

INTERVAL = 0.1
"""Seconds between two probes, give or take a half: the processes of a fleet must not knock in step."""

FAILURES = 3
"""So many refusals in a row mean that the server is away; one silence does."""


class Guard:
    """What one event loop knows of one server.

    `probe` returns when the server is fit for work, raises otherwise, and has a time limit of its own. `abandon` is
    awaited if the search is cancelled, by `aclose` or because the event loop ends.
    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[None]],
        abandon: Callable[[], Awaitable[None]],
        *,
        failures: int = FAILURES,
        interval: float = INTERVAL,
    ) -> None:
        self.available: bool = True
        """Whether the server answered last time."""
        self.outages: int = 0
        """How often it went away."""
        self._probe = probe
        self._abandon = abandon
        self._limit = failures
        self._interval = interval
        self._failures = 0
        self._loop = asyncio.get_running_loop()
        self._since = 0.0
        self._away_before = 0.0
        self._reason = ""
        self._search: asyncio.Task[None] | None = None
        self._closed = False
        self._listeners: list[Callable[[bool], None]] = []

    @property
    def away_for(self) -> float:
        """Seconds without the server, all outages together."""
        return self._away_before + (0.0 if self.available else self._loop.time() - self._since)

    def on_change(self, listener: Callable[[bool], None]) -> Stop:
        """Call `listener` with the new value whenever `available` changes. One that raises is logged."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def refusal(self) -> StoreUnavailableError:
        """What a caller hears at once while the server is away."""
        return StoreUnavailableError(f"Redis is away: {self._reason}")

    def heard(self) -> None:
        """The server did as it was told."""
        self._failures = 0

    def missed(self, error: Exception, *, certain: bool) -> None:
        """The server did not do it; if that is certain to mean the same for the next command, it is away."""
        self._failures += 1
        if self.available and (certain or self._failures >= self._limit):
            self._reason = str(error)
            self.outages += 1
            self._since = self._loop.time()
            if not self._closed:
                self._search = self._loop.create_task(self._look_for_it())
            self._switch(False)

    async def aclose(self) -> None:
        """Look for nobody any more."""
        self._closed = True
        search, self._search = self._search, None
        if search is not None:
            await end(search)

    async def _look_for_it(self) -> None:
        try:
            while True:
                if await self._is_back():
                    break
                await asyncio.sleep(self._interval * (0.5 + random.random()))
        except asyncio.CancelledError:
            await self._abandon()
            raise
        self._away_before += self._loop.time() - self._since
        self._failures = 0
        self._search = None
        self._switch(True)

    async def _is_back(self) -> bool:
        try:
            await self._probe()
        except Exception as error:
            outage = as_outage(error)
            self._reason = str(outage)
            # Anything else is for the callers to hear, from the server.
            return not isinstance(outage, StoreUnavailableError)
        return True

    def _switch(self, available: bool) -> None:
        self.available = available
        if available:
            logger.info("Redis is back")
        else:
            logger.warning("Redis is away: %s", self._reason)
        tell(self._listeners, available)


def tell(listeners: Iterable[Callable[[bool], None]], available: bool) -> None:
    """Call all listeners; one that raises is logged and harms no other."""
    for listener in tuple(listeners):
        try:
            listener(available)
        except Exception:
            logger.exception("listener %r failed", listener)
