"""The way of a rate limiter to limits that are held in a store elsewhere.

One request decides, however long the wait. While the store is away, `on_outage` says what takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio

from . import clock
from ._deadlines import current_asyncio_task
from ._line import Line
from ._outage import Outage
from .call import Call
from .errors import RateLimitedError, StoreUnavailableError
from .limiter_state import Booking, RemoteLimiter
from .machines.rate_limiter import GCRA, Decision, Rule, TokenBucket
from .memory_limiter import MemoryLimiter

_FREE = Decision(True, 0.0, 0, ())
"""What a call hears that goes at once and on nobody's account."""


class SharedLimit:
    """Books in the store, sits out the wait, and stands in for a store that is away."""

    def __init__(
        self, limiter: RemoteLimiter, rules: Sequence[Rule[Any]], share: float, max_keys: int, outage: Outage
    ) -> None:
        self.limiter = limiter
        self.outage = outage
        scaled = [_scaled(rule, share) for rule in rules]
        self.line: Line = Line(MemoryLimiter(scaled, max_keys), scaled)
        """What limits this process while the store is away."""

    async def take(self, call: Call, key: str, costs: Sequence[float], patience: float) -> Decision:
        """Wait until the costs may go, at most `patience` seconds; or the refusal, at once.

        Raises RateLimitedError if the store is away and nothing may go without it.
        """
        since = clock.now()
        try:
            booking = await self.limiter.acquire(key, costs, patience)
        except StoreUnavailableError as error:
            return await self._without_store(call, key, costs, since + patience, error)
        self.outage.ended(call.operation.name)
        if booking.decision.allowed and booking.decision.wait > 0.0:
            await self._sit_out(key, costs, booking)
        return booking.decision

    async def _without_store(
        self, call: Call, key: str, costs: Sequence[float], until: float, error: StoreUnavailableError
    ) -> Decision:
        outage = self.outage
        outage.began(call.operation.name, error)
        if outage.behaviour == "closed":
            raise RateLimitedError(
                f"{outage.policy.name}: the shared store does not answer", policy=outage.policy.name
            ) from error
        decision = _FREE if outage.behaviour == "open" else await self._locally(key, costs, until - clock.now())
        outage.admitted += decision.allowed
        return decision

    async def _locally(self, key: str, costs: Sequence[float], patience: float) -> Decision:
        if self.line.try_take(key, costs):
            return _FREE
        if patience <= 0.0:
            return self.line.peek(key, costs)
        return await self.line.take(key, costs, patience, current_asyncio_task())

    async def _sit_out(self, key: str, costs: Sequence[float], booking: Booking) -> None:
        """Wait until a booking is valid; one that is cancelled meanwhile is given back."""
        try:
            await anyio.sleep(booking.decision.wait)
        except BaseException:
            await self._give_back(key, costs, booking.stamp)
            raise

    async def _give_back(self, key: str, costs: Sequence[float], stamp: object) -> None:
        with anyio.CancelScope(shield=True):  # bounded: every store operation has a deadline
            try:
                await self.limiter.refund(key, costs, stamp)
            except StoreUnavailableError:
                return  # stays charged: less is admitted, never more


def _scaled(rule: Rule[Any], share: float) -> Rule[Any]:
    """The same rule with a share of its limit; periods grow instead where a window needs a whole unit."""
    kind: Any = type(rule)
    arguments = [rule.limit, rule.period / share]
    if isinstance(rule, GCRA | TokenBucket):
        arguments = [rule.limit * share, rule.period, max(1.0, rule.burst * share)]
    scaled: Rule[Any] = kind(*arguments)
    return scaled
