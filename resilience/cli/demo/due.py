"""When did the permit of a request become valid? Written into the request, so that the upstream can tell.

A limit is promised for the moments at which permits become valid; the upstream sees requests a little later,
and on a busy machine not all of them equally late. With the earliest possible moment in a header, the upstream
can judge exactly: if requests came at most `late` seconds after that, then at most `burst + rate * (1 + late)`
of them may arrive within one second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import httpx2

from resilience import Decision, MemoryStore, Store
from resilience.limiter_state import Booking, LimiterSpec, LocalLimiter, RemoteLimiter

HEADER = "x-permit-due"

_due: ContextVar[float] = ContextVar("due")

Clock = Callable[[], float]


class DueStore(MemoryStore):
    """Another store's rate limiters, noting when permits become valid; the other state in this process."""

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__()
        self._store = store
        self._clock = clock

    def limiter(self, spec: LimiterSpec) -> Any:
        """The other store's limiter, watched."""
        limiter = self._store.limiter(spec)
        if isinstance(limiter, LocalLimiter):
            return _DueLocally(limiter, self._clock)
        return _DueRemotely(limiter, self._clock)


class _DueRemotely:
    def __init__(self, limiter: RemoteLimiter, clock: Clock) -> None:
        self._limiter, self._clock = limiter, clock
        self.peek, self.refund, self.reset = limiter.peek, limiter.refund, limiter.reset

    async def acquire(self, key: str, costs: Sequence[float], max_wait: float) -> Booking:
        asked = self._clock()  # before the answer: the store decides later than this
        booking = await self._limiter.acquire(key, costs, max_wait)
        _due.set(asked + booking.decision.wait)
        return booking


class _DueLocally(LocalLimiter):
    def __init__(self, limiter: LocalLimiter, clock: Clock) -> None:
        self._limiter, self._clock = limiter, clock

    def acquire(self, key: str, costs: Sequence[float], max_wait: float) -> Booking:
        asked = self._clock()
        booking = self._limiter.acquire(key, costs, max_wait)
        _due.set(asked + booking.decision.wait)
        return booking

    def peek(self, key: str, costs: Sequence[float]) -> Decision:
        return self._limiter.peek(key, costs)

    def refund(self, key: str, costs: Sequence[float], stamp: object = None) -> None:
        self._limiter.refund(key, costs, stamp)

    def reset(self, key: str) -> None:
        self._limiter.reset(key)


class DueTransport(httpx2.AsyncHTTPTransport):
    """The usual transport; puts the moment of the permit into each request."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one attempt."""
        request.headers[HEADER] = repr(_due.get())
        return await super().handle_async_request(request)
