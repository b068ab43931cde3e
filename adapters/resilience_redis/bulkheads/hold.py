"""One call's permits, or its place in the queue, as its process knows of it.

hold = Hold(holdings, "process.7", "tenant-7", weight=1, max_wait=2.0)
answer = await hold.answer       # the hold itself if it was granted, or what is in use
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from resilience.permits.permits_state import Grant, Occupancy

if TYPE_CHECKING:
    from resilience_redis.bulkheads.holdings import Holdings


class Hold(Grant):
    """One call's permits or place in the queue."""

    __slots__ = ("answer", "claim", "doubtful", "home", "id", "max_wait", "timer", "until")

    def __init__(self, home: Holdings, id: str, key: str, weight: int, max_wait: float | None) -> None:
        super().__init__(key, weight)
        self.home: Holdings = home
        self.id: str = id
        self.max_wait: float | None = max_wait
        self.claim: int | None = None
        """Its token in the store, QUEUED, or GONE if the store does not know of it; None while it has not answered."""
        self.until: float = math.inf
        """When the lease ends, on the clock of the loop. It counts from the moment the last success was sent."""
        self.doubtful: bool = False
        """A command that nobody had an answer to may be carried out later."""
        self.answer: asyncio.Future[Grant | Occupancy] = home.loop.create_future()
        self.timer: asyncio.TimerHandle | None = None

    def settle(self, answer: Grant | Occupancy | Exception) -> None:
        """Let the caller go on."""
        if self.timer is not None:
            self.timer.cancel()
        if self.answer.done():
            return
        if isinstance(answer, Exception):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)
