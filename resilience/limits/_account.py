"""Reservations of one limiter, wherever its state is: made after waiting as a call would, settled once.

reserved, settle = await account.reserve(call, "tenant-7", "order-1", (1, 1800), patience)
await settle("tenant-7", "order-1", (None, 1234))
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import anyio

from .. import clock
from ..call import Call
from ..errors import StoreUnavailableError
from ..running._deadlines import current_asyncio_task
from ._line import Line
from ._shared_limit import FREE, SharedLimit
from .limiter_state import LocalLedger, RemoteLedger, Reserved

Settle: TypeAlias = Callable[[str, str, Sequence[float | None]], Awaitable[bool]]
"""Settles a reservation where it was made: key, id, actual costs; returns whether this settled it."""


class Account:
    """Where the reservations of a limiter are made and settled.

    Raises TypeError if its store keeps no account.
    """

    def __init__(self, line: Line, remote: SharedLimit | None, ttl: float) -> None:
        if not isinstance(line.limiter, LocalLedger):
            raise TypeError(f"store must be one that keeps account; {type(line.limiter).__name__} does not")
        if remote is not None and not isinstance(remote.limiter, RemoteLedger):
            raise TypeError(f"store must be one that keeps account; {type(remote.limiter).__name__} does not")
        self.local: LocalLedger = line.limiter
        self.remote: RemoteLedger | None = remote.limiter if remote is not None else None  # type: ignore[assignment] # checked above
        self._line = line
        self._shared = remote
        self._ttl = ttl
        # Ids whose first reservation stands in line; a second one waits for its end.
        self._pending: dict[tuple[str, str], anyio.Event] = {}

    async def reserve(
        self, call: Call, key: str, id: str, costs: Sequence[float], patience: float
    ) -> tuple[Reserved, Settle]:
        """Reserve, sit out the wait, and say how to settle. Raises what a call that waits may raise."""
        if self.remote is None:
            return await self._reserve_here(key, id, costs, patience), self._settle_here
        return await self._reserve_there(self.remote, call, key, id, costs, patience)

    async def settle(self, key: str, id: str, actual: Sequence[float | None], known: bool) -> bool:
        """Settle an id wherever it was reserved. Raises StoreUnavailableError."""
        if self.remote is None or self.local.recall(key, id) is not None:
            return self.local.settle(key, id, actual, self._ttl, known)
        return await self.remote.settle(key, id, actual, self._ttl, known)

    async def _reserve_here(self, key: str, id: str, costs: Sequence[float], patience: float) -> Reserved:
        while (known := self.local.recall(key, id)) is None:
            pending = self._pending.get((key, id))
            if pending is None:
                return await self._reserve_first(key, id, costs, patience)
            await pending.wait()
        return known

    async def _reserve_first(self, key: str, id: str, costs: Sequence[float], patience: float) -> Reserved:
        line, over = self._line, anyio.Event()
        self._pending[key, id] = over
        try:
            decision = FREE
            if not line.try_take(key, costs):
                if patience <= 0.0:
                    return Reserved(line.peek(key, costs))
                decision = await line.take(key, costs, patience, current_asyncio_task())
                if not decision.allowed:
                    return Reserved(decision)
            if (known := self.local.recall(key, id)) is not None:  # settled while we stood in line
                self.local.refund(key, costs)
                return known
            self.local.enter(key, id, costs, self._ttl)
            return Reserved(decision, tuple(costs))
        finally:
            del self._pending[key, id]
            over.set()

    async def _settle_here(self, key: str, id: str, actual: Sequence[float | None]) -> bool:
        return self.local.settle(key, id, actual, self._ttl, known=True)

    async def _reserve_there(
        self, ledger: RemoteLedger, call: Call, key: str, id: str, costs: Sequence[float], patience: float
    ) -> tuple[Reserved, Settle]:
        assert self._shared is not None
        since = clock.now()
        try:
            reserved = await ledger.reserve(key, id, costs, patience, self._ttl)
        except StoreUnavailableError as error:
            limited = self._shared.stand_in(call, error)
            ledger.void(key, id, self._ttl)  # it may have been carried out, and this is another one
            if not limited:
                self._shared.outage.admitted += 1
                return Reserved(FREE, tuple(costs)), settle_nowhere
            costs = self._shared.share.fitting(costs)
            reserved = await self._reserve_here(key, id, costs, since + patience - clock.now())
            self._shared.outage.admitted += reserved.decision.allowed
            return reserved, self._settle_here
        self._shared.answered(call, key, costs, reserved.decision)
        if reserved.decision.allowed and reserved.decision.wait > 0.0:
            await self._sit_out(ledger, key, id, reserved.decision.wait, len(costs))
        return reserved, self._settle_there

    async def _settle_there(self, key: str, id: str, actual: Sequence[float | None]) -> bool:
        assert self.remote is not None
        return await self.remote.settle(key, id, actual, self._ttl, known=True)

    async def _sit_out(self, ledger: RemoteLedger, key: str, id: str, wait: float, count: int) -> None:
        """Wait until a permit is valid; one that is cancelled meanwhile is given back."""
        try:
            await anyio.sleep(wait)
        except BaseException:
            with anyio.CancelScope(shield=True):  # bounded: every store operation has a deadline
                try:
                    await ledger.settle(key, id, (0.0,) * count, self._ttl, known=True)
                except StoreUnavailableError:
                    ledger.void(key, id, self._ttl)
            raise


async def settle_nowhere(key: str, id: str, actual: Sequence[float | None]) -> bool:
    """Settle what was never charged."""
    return True
