"""The way of a rate limiter to limits that are held in a store elsewhere.

One request decides, however long the wait. While the store is away, `on_outage` says what takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakSet

import anyio

from .. import clock
from .._outage import Outage
from ..call import Call
from ..errors import RateLimitedError, StoreUnavailableError
from ..machines.rate_limiter import Decision
from ..running._deadlines import current_asyncio_task
from ._local_share import LocalShare
from .limiter_state import Booking, Fleet, RemoteLedger, RemoteLimiter

FREE = Decision(True, 0.0, 0, ())
"""What a call hears that goes at once and on nobody's account."""

GRACE = 0.5
"""Seconds for which a process keeps to its share when the store is back, so that all have told it what they admitted.

What is admitted in that time is charged in the store at once: whoever asks there already does not get it again.
"""


class SharedLimit:
    """Books in the store, sits out the wait, and stands in for a store that is away."""

    def __init__(self, limiter: RemoteLimiter, share: LocalShare, outage: Outage) -> None:
        self.limiter = limiter
        self.outage = outage
        self.share = share
        """What this process may admit while the store is away."""
        self._fleets: WeakSet[Fleet] = WeakSet()
        self._wary_until = 0.0
        self._paying = False  # what is admitted here is charged in the store at once

    async def take(self, call: Call, key: str, costs: Sequence[float], patience: float) -> Decision:
        """Wait until the costs may go, at most `patience` seconds; or the refusal, at once.

        Raises RateLimitedError if the store is away and nothing may go without it.
        """
        since = clock.now()
        if self._wary_until and self._is_wary(since):
            return await self._locally(key, costs, patience)
        try:
            booking = await self.limiter.acquire(key, costs, patience)
        except StoreUnavailableError as error:
            return await self._without_store(call, key, costs, since + patience, error)
        self.answered(call, key, costs, booking.decision)
        if booking.decision.allowed and booking.decision.wait > 0.0:
            await self._sit_out(key, costs, booking)
        return booking.decision

    def answered(self, call: Call, key: str, costs: Sequence[float], decision: Decision) -> None:
        """The store has decided: keep account of it, for when it is away."""
        self.outage.ended(call.operation.name)
        fleet = self.limiter.fleet()
        if fleet is not None:
            if fleet not in self._fleets:
                self._fleets.add(fleet)
                fleet.join(self._returned)
            self.share.divide(fleet.count)
        if decision.allowed:
            self.share.used(key, costs)

    async def _without_store(
        self, call: Call, key: str, costs: Sequence[float], until: float, error: StoreUnavailableError
    ) -> Decision:
        decision = await self._locally(key, costs, until - clock.now()) if self.stand_in(call, error) else FREE
        self.outage.admitted += decision.allowed
        return decision

    def stand_in(self, call: Call, error: StoreUnavailableError) -> bool:
        """The store is away: whether calls are limited in this process meanwhile, or not at all.

        Raises RateLimitedError if nothing may go without it.
        """
        self._paying = False
        outage = self.outage
        outage.began(call.operation.name, error)
        if outage.behaviour == "closed":
            raise RateLimitedError(
                f"{outage.policy.name}: the shared store does not answer", policy=outage.policy.name
            ) from error
        return outage.behaviour == "local"

    async def _locally(self, key: str, costs: Sequence[float], patience: float) -> Decision:
        costs, line = self.share.fitting(costs), self.share.line
        if line.try_take(key, costs):
            decision = FREE
        elif patience <= 0.0:
            return line.peek(key, costs)
        else:
            decision = await line.take(key, costs, patience, current_asyncio_task())
        if decision.allowed:
            if self._paying and isinstance(self.limiter, RemoteLedger):
                self.limiter.charge(key, costs)
            else:
                self.share.admitted(key, costs)
        return decision

    def _returned(self, forgotten: bool | None) -> None:
        """The store is back: tell it what it does not know of, and let the other processes do so, too."""
        if forgotten is None:
            if self.outage.degraded and self.outage.behaviour == "local":
                self._wary_until = clock.now() + GRACE
        else:
            self._pay(forgotten)
            self._paying = bool(self._wary_until)

    def _is_wary(self, now: float) -> bool:
        """Whether the store is back so lately that others may not have told it yet what they have admitted."""
        if now < self._wary_until:
            return True
        self._wary_until = 0.0
        self._paying = False
        self._pay(forgotten=False)
        return False

    def _pay(self, forgotten: bool) -> None:
        if isinstance(self.limiter, RemoteLedger):
            for key, costs in self.share.owed(forgotten=forgotten):
                self.limiter.charge(key, costs)

    async def _sit_out(self, key: str, costs: Sequence[float], booking: Booking) -> None:
        """Wait until a booking is valid; one that is cancelled meanwhile is given back."""
        try:
            await anyio.sleep(booking.decision.wait)
        except BaseException:
            self.share.unused(key, costs)
            await self._give_back(key, costs, booking.stamp)
            raise

    async def _give_back(self, key: str, costs: Sequence[float], stamp: object) -> None:
        with anyio.CancelScope(shield=True):  # bounded: every store operation has a deadline
            try:
                await self.limiter.refund(key, costs, stamp)
            except StoreUnavailableError:
                return  # stays charged: less is admitted, never more
