"""Keeping leases alive: one call in a third of a lease for all that a process holds of a bulkhead.

    renewal = Renewal(holdings)
    renewal.start()        # ends by itself when nothing is held
    renewal.hurry()        # not at the next turn, but now

While somebody waits it asks more often, because messages may be lost, and just when the next lease of anybody ends,
because nobody else may come to see that its holder is dead.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from resilience.errors import StoreUnavailableError
from resilience.machines.leased_permits import GONE, QUEUED
from resilience_redis.connection.replies import as_text, error_of, logger

if TYPE_CHECKING:
    from resilience_redis.bulkheads.hold import Hold
    from resilience_redis.bulkheads.holdings import Holdings

POLL = 1.0
"""Seconds after which those who wait ask for what a lost message may have told, at the latest."""

LARGEST = 200
"""Ids in one call: less than a millisecond of the server's time."""


class Renewal:
    """The background work of one Holdings."""

    def __init__(self, home: Holdings) -> None:
        self.closed: bool = False
        self._home = home
        self._interval = home.spec.lease / 3
        self._wake = asyncio.Event()
        self._running = False
        self._next = 0.0
        self._telling: set[str] = set()
        """The ids in calls under way."""

    def start(self) -> None:
        """See to it that what is held is renewed; again does nothing."""
        if not self._running and not self.closed:
            self._running = True
            self._next = self._home.loop.time() + self._interval
            self._home.link.start(self._run())

    def hurry(self, seconds: float = 0.0) -> None:
        """Take the next turn after so many seconds at the latest."""
        self._next = min(self._next, self._home.loop.time() + seconds)
        self._wake.set()

    async def _run(self) -> None:
        home = self._home
        try:
            while True:
                now = home.loop.time()
                home.expire(now)
                if now >= self._next:
                    if not home.holds and not home.owed:
                        self._running = False
                        return
                    self._turn(now)
                await self._sleep()
        except asyncio.CancelledError:
            self.closed = True
            home.close()
            raise

    async def _sleep(self) -> None:
        """Until the next turn, or until a lease may have ended."""
        ends = (hold.until for hold in self._home.holds.values() if not hold.lost and hold.claim not in (None, QUEUED))
        self._wake.clear()
        timer = self._home.loop.call_at(min(self._next, min(ends, default=math.inf)), self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    def _turn(self, now: float) -> None:
        """Pay what is owed, and tell the store what is held."""
        home = self._home
        self._next = now + self._interval
        home.pay(now)
        told = [hold for hold in home.holds.values() if hold.claim is not None and hold.id not in self._telling]
        if any(hold.claim == QUEUED for hold in told):
            self._next = now + min(self._interval, POLL)
        for some in _calls(told):
            self._telling.update(hold.id for hold in some)
            home.link.post(*self._renew(some)).add_done_callback(partial(self._told, some, now))

    def _renew(self, holds: Sequence[Hold]) -> Any:
        """Return the call for holds that are sorted by key."""
        keys: list[str] = []
        claims: list[str] = []
        for key in dict.fromkeys(hold.key for hold in holds):
            keys += self._home.keys(key)
            own = [hold for hold in holds if hold.key == key]
            claims.append(str(len(own)))
            for hold in own:
                claims += (hold.id, str(hold.weight), str(hold.claim))
        force = "1" if self._home.spec.on_lost == "ignore" else "0"
        return self._home.call("renew", keys, force, *claims)

    def _told(self, holds: Sequence[Hold], sent: float, reply: asyncio.Future[Any]) -> None:
        """Take in what the store says of each."""
        home = self._home
        self._telling.difference_update(hold.id for hold in holds)
        if (error := error_of(reply)) is not None:
            self._failed(holds, error)
            return
        rest, *tokens = map(int, as_text(reply.result()).split())
        for hold, token in zip(holds, tokens, strict=True):
            if hold.id not in home.holds:
                if token != GONE:  # given back meanwhile, and perhaps before this was carried out
                    home.give_back(hold)
            elif token != GONE:
                self._alive(hold, token, sent)
            elif hold.claim == QUEUED:
                home.ask(hold)
            elif hold.claim is not None:
                home.lose(hold)
        if rest >= 0 and any(hold.claim == QUEUED for hold in holds):
            self.hurry(rest / 1e6 + 0.001)

    def _alive(self, hold: Hold, token: int, sent: float) -> None:
        self._home.renewed(hold, sent)
        if token > QUEUED and hold.claim in (None, QUEUED):
            self._home.granted(hold, token)
        elif token > QUEUED:
            hold.claim = token

    def _failed(self, holds: Sequence[Hold], error: Exception) -> None:
        """Try again soon, and let those who wait look for something else."""
        home = self._home
        if not isinstance(error, StoreUnavailableError):
            logger.error("permits of %r cannot be renewed: %s", home.spec.name, error)
        for hold in holds:
            hold.doubtful = True
            if hold.id not in home.holds:
                home.give_back(hold)
        home.leave_queue(error)
        self.hurry(min(self._interval / 3, POLL))


def _calls(holds: Sequence[Hold]) -> Iterator[list[Hold]]:
    """Sort by key, and cut into as many as one call may carry."""
    ordered = sorted(holds, key=lambda hold: hold.key)
    for start in range(0, len(ordered), LARGEST):
        yield ordered[start : start + LARGEST]
