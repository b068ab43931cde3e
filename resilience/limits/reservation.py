"""A reservation: units charged before it is known how many a call will use.

async with limiter.reservation(key="tenant-7", cost={"requests": 1, "tokens": 1800}) as held:
    answer = await ask()
    held.actual = {"tokens": answer.usage.total_tokens}
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType

import anyio

from ..call import Cost
from ..errors import StoreUnavailableError


class Reservation(AbstractAsyncContextManager["Reservation"]):
    """What `RateLimiter.reserve` gives: an estimate that is charged, to be settled with what was used.

    As a block it settles at the end with `actual`, if that was set; else the estimate stands, as it does when the
    holder dies. At the end of a block a store that does not answer is no error: the estimate stands.
    """

    def __init__(
        self, id: str, key: str, cost: Cost, settle: Callable[[Cost], Awaitable[bool]], settled: bool = False
    ) -> None:
        self.id: str = id
        """By which others can settle it: `limiter.settle(id, ...)`."""
        self.key: str = key
        self.cost: Cost = cost
        """What was charged for this id when it was first reserved, or settled if that is over."""
        self.settled: bool = settled
        """Whether nothing more is to be charged: it was settled, here or, before it was reserved again, elsewhere."""
        self.actual: Cost | None = None
        """What was used, for the end of the block. A dimension that is left out was used as reserved."""
        self._settle = settle

    async def settle(self, actual: Cost) -> bool:
        """Charge the difference between `actual` and the estimate, or give it back; once.

        A dimension that is left out was used as reserved. Returns whether this settled it, rather than somebody
        else or something before, or its record had been forgotten (then the estimate stands). Raises ValueError for
        negative amounts and unknown dimensions, StoreUnavailableError if a shared store does not answer: it may have
        been carried out, and may be tried again.
        """
        if self.settled:
            return False
        settled = await self._settle(actual)
        self.settled = True
        return settled

    async def cancel(self) -> bool:
        """Give everything back: the call was not made. See `settle`."""
        cost = self.cost
        return await self.settle(0 if isinstance(cost, int | float) else dict.fromkeys(cost, 0))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.actual is None:
            return
        with anyio.CancelScope(shield=True):  # bounded: every store operation has a deadline
            try:
                await self.settle(self.actual)
            except StoreUnavailableError:
                return

    def __repr__(self) -> str:
        return f"<Reservation {self.id!r} of {self.cost!r}{', settled' if self.settled else ''}>"
