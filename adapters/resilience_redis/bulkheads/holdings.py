"""The permits of one bulkhead that this process holds or waits for, in one event loop.

    holdings = Holdings(link, spec, limit, keys)
    answer = await holdings.acquire("tenant-7", 1, max_wait=2.0)
    holdings.release(answer)

Requests are posted and answers are callbacks, so that nothing depends on a caller who may be cancelled: what was
taken for somebody who is gone is given back when the answer comes. `renewal` keeps the leases alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from resilience.errors import StoreUnavailableError
from resilience.machines.leased_permits import GONE, QUEUED
from resilience.permits.permits_state import BulkheadSpec, Grant, Occupancy
from resilience_redis.bulkheads.hold import Hold
from resilience_redis.bulkheads.renewal import POLL, Renewal
from resilience_redis.connection.replies import as_text, error_of
from resilience_redis.scripts import Call, script_of

if TYPE_CHECKING:
    from resilience_redis.link import Link

MARGIN = 0.05
"""The part of a lease that is left unused: clocks of machines differ a little, and a cancellation takes a moment."""


class Holdings:
    """What one event loop has of one bulkhead. Methods with a Hold are for it and its Renewal."""

    def __init__(self, link: Link, spec: BulkheadSpec, limit: int, keys: Callable[[str], list[str]]) -> None:
        self.link: Link = link
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.spec: BulkheadSpec = spec
        self.keys: Callable[[str], list[str]] = keys
        self.holds: dict[str, Hold] = {}
        self.owed: dict[str, tuple[str, float]] = {}
        """Releases that did not get through: id to key, and the time after which nobody needs them."""
        self._script = script_of("_prelude", "permits")
        self._channel = f"{link.prefix}:permits:"
        self._numbers = count(1)
        self._valid = spec.lease * (1 - MARGIN)
        self._listening = False
        self._renewal = Renewal(self)
        self.resize(limit)
        link.on_change(self._on_change)
        link.members.join()

    @property
    def over(self) -> bool:
        """Nothing can be held here any more."""
        return self._renewal.closed or self.loop.is_closed()

    def call(self, operation: str, keys: list[str], *arguments: str) -> Call:
        """Return a call of the script."""
        return self._script, keys, (operation, "", *self._settings, *arguments)

    def resize(self, limit: int) -> None:
        """Use another limit; who waits may fit now."""
        self._settings = (str(limit), str(round(self.spec.lease * 1e6)), self._channel)
        self._renewal.hurry()

    async def acquire(self, key: str, weight: int, max_wait: float | None) -> Grant | Occupancy:
        """Ask, and wait for the answer, in the queue if need be."""
        hold = self._new(key, weight, max_wait)
        self.ask(hold)
        try:
            return await hold.answer
        except asyncio.CancelledError:
            self.release(hold)
            raise

    def adopt(self, key: str, weight: int) -> Grant:
        """Hold permits that nobody was asked for; the store hears of them with the next renewal."""
        hold = self._new(key, weight, None)
        hold.claim = GONE
        return hold

    def release(self, hold: Hold) -> None:
        """Give back what is held, or was asked for."""
        if self.holds.pop(hold.id, None) is None:
            return
        hold.settle(Occupancy(0, 0))  # stops its timer
        # Without an answer yet, the answer will find that nobody wants it; of an adopted one nothing is known.
        if hold.claim not in (None, GONE):
            self.give_back(hold)

    def ask(self, hold: Hold) -> None:
        """Send the request."""
        hold.claim, hold.until = None, self.loop.time() + self._valid
        queue = 0 if hold.max_wait == 0 else self.spec.queue
        call = self.call("acquire", self.keys(hold.key), hold.id, str(hold.weight), str(queue))
        self.link.post(*call).add_done_callback(partial(self._answered, hold))

    def granted(self, hold: Hold, token: int) -> None:
        """The call may run, if it still wants to and the lease has not ended while this process was asleep."""
        if self.loop.time() >= hold.until:
            self.ask(hold)
            return
        hold.claim = hold.token = token
        hold.settle(hold)

    def renewed(self, hold: Hold, sent: float) -> None:
        """The lease is good for another while."""
        hold.until, hold.doubtful, hold.lost = sent + self._valid, False, False

    def fail(self, hold: Hold, error: Exception) -> None:
        """Nothing will come of a request; what the store may do of it all the same is undone."""
        self.holds.pop(hold.id, None)
        hold.settle(error)
        self._owe(hold.id, hold.key)

    def expire(self, now: float) -> None:
        """Count as lost what was not renewed in time."""
        for hold in tuple(self.holds.values()):
            if hold.until <= now and not hold.lost and hold.claim not in (None, QUEUED):
                self.lose(hold)

    def lose(self, hold: Hold) -> None:
        """The permits are not ours any more. A call that goes on all the same is counted as soon as possible."""
        if self.spec.on_lost == "cancel":
            self.holds.pop(hold.id)
            hold.doubtful = True
            self.give_back(hold)
        hold.lose()

    def give_back(self, hold: Hold) -> None:
        """Tell the store, without waiting for it."""
        self._send_release(hold.id, hold.key, hold.doubtful)

    def pay(self, now: float) -> None:
        """Send the releases that are owed once more."""
        owed, self.owed = self.owed, {}
        for id, (key, until) in owed.items():
            if now < until:
                self._send_release(id, key, True)

    def leave_queue(self, error: Exception) -> None:
        """Let go all who wait for a store that does not answer."""
        for hold in tuple(self.holds.values()):
            if hold.claim == QUEUED:
                self.fail(hold, error)

    def close(self) -> None:
        """The link ends: nobody waits any longer, and what is held is free when its lease ends."""
        for hold in tuple(self.holds.values()):
            if hold.claim in (None, QUEUED):
                self.fail(hold, StoreUnavailableError("the store was closed"))
        self.holds.clear()

    def _new(self, key: str, weight: int, max_wait: float | None) -> Hold:
        hold = Hold(self, f"{self.link.process}.{next(self._numbers)}", key, weight, max_wait)
        self.holds[hold.id] = hold
        self._renewal.start()
        return hold

    def _answered(self, hold: Hold, reply: asyncio.Future[Any]) -> None:
        if (error := error_of(reply)) is not None:
            self.fail(hold, error)
            return
        token, *occupancy = map(int, as_text(reply.result()).split())
        if hold.id not in self.holds:  # cancelled, or a message came first and all is over
            if token != GONE:
                self.give_back(hold)
        elif token > QUEUED:
            self.granted(hold, token)
        elif token == GONE:
            del self.holds[hold.id]
            hold.settle(Occupancy(*occupancy))
        elif hold.claim is None:  # else a message has come first
            self._enqueue(hold, Occupancy(*occupancy))

    def _enqueue(self, hold: Hold, occupancy: Occupancy) -> None:
        hold.claim, hold.queued = QUEUED, True
        if hold.timer is None and hold.max_wait is not None:
            hold.timer = self.loop.call_later(hold.max_wait, self._give_up, hold, occupancy)
        if not self._listening:
            self._listening = True
            self.link.subscribe(self._channel + self.link.process, self._on_message)
        self._renewal.hurry(POLL)

    def _give_up(self, hold: Hold, occupancy: Occupancy) -> None:
        hold.settle(occupancy)
        self.release(hold)

    def _send_release(self, id: str, key: str, mark: bool) -> None:
        call = self.call("release", self.keys(key), id, str(int(mark)))
        self.link.post(*call).add_done_callback(partial(self._released, id, key))

    def _released(self, id: str, key: str, reply: asyncio.Future[Any]) -> None:
        if error_of(reply) is not None and id not in self.owed:
            self._owe(id, key)

    def _owe(self, id: str, key: str) -> None:
        self.owed[id] = key, self.loop.time() + self.spec.lease
        self._renewal.start()

    def _on_message(self, message: str | None) -> None:
        if message is None:
            self._renewal.hurry()
            return
        id, _, token = message.partition(" ")
        hold = self.holds.get(id)
        if hold is not None and hold.claim in (None, QUEUED):
            self.granted(hold, int(token))

    def _on_change(self, available: bool) -> None:
        if available:
            self._renewal.hurry()
        else:
            self.leave_queue(StoreUnavailableError("Redis is not available: nobody can be called out of the queue"))
