"""When did the permit of a request become valid? Written into the request, so that the upstream can tell.

A limit is promised for the moments at which permits become valid; the upstream sees requests a little later,
and on a busy machine not all of them equally late. With the earliest possible moment in a header, the upstream
can judge exactly: if requests came at most `late` seconds after that, then at most `burst + rate * (1 + late)`
of them may arrive within one second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar

import httpx2

from resilience import Decision, Store
from resilience.limits.limiter_state import Booking, Fleet, LimiterSpec, LocalLimiter, RemoteLimiter

from .plan import DUE_HEADER

_due: ContextVar[float | None] = ContextVar("due", default=None)

Clock = Callable[[], float]


class DueStore(Store):
    """The rate limiters of a shared store, noting when permits become valid."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def limiter(self, spec: LimiterSpec) -> RemoteLimiter:
        """The store's limiter, watched."""
        limiter = self._store.limiter(spec)
        if isinstance(limiter, LocalLimiter):
            raise TypeError(f"store must be a shared one, got {type(self._store).__name__}")
        return _DueLimiter(limiter, self._clock)


class _DueLimiter:
    def __init__(self, limiter: RemoteLimiter, clock: Clock) -> None:
        self._limiter, self._clock = limiter, clock

    def fleet(self) -> Fleet | None:
        return self._limiter.fleet()

    async def acquire(self, key: str, costs: Sequence[float], max_wait: float) -> Booking:
        asked = self._clock()  # before the answer: the store decides later than this
        booking = await self._limiter.acquire(key, costs, max_wait)
        _due.set(asked + booking.decision.wait)
        return booking

    async def peek(self, key: str, costs: Sequence[float]) -> Decision:
        return await self._limiter.peek(key, costs)

    async def refund(self, key: str, costs: Sequence[float], stamp: object = None) -> None:
        await self._limiter.refund(key, costs, stamp)

    async def reset(self, key: str) -> None:
        await self._limiter.reset(key)


class DueTransport(httpx2.AsyncHTTPTransport):
    """The usual transport; puts the moment of the permit into each request, if it is known."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one attempt."""
        due = _due.get()
        if due is not None:
            request.headers[DUE_HEADER] = repr(due)
        return await super().handle_async_request(request)
