"""The conformance kit: our stores pass it, and stores that break a promise do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from resilience import GCRA, FixedWindow, LeakyBucket, MemoryStore, SlidingLog, SlidingWindow, Store, TokenBucket, clock
from resilience.limiter_state import Booking, LimiterSpec, LocalLimiter
from resilience.machines.rate_limiter import Decision, Rule
from resilience.memory_limiter import MemoryLimiter
from resilience.testing import LIMITER_CHECKS, LimiterCheck, check_limiter

pytestmark = pytest.mark.anyio

RULES: list[Rule[Any]] = [
    GCRA(5, 1e6),
    GCRA(50, 1e7, burst=7),
    TokenBucket(5, 1e6),
    FixedWindow(5, 1e6),
    SlidingWindow(5, 1e6),
    SlidingLog(5, 1e6),
    LeakyBucket(5, 1e6),
]


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("check", LIMITER_CHECKS, ids=lambda check: str(check.__name__))
async def test_the_memory_store_passes(check: LimiterCheck, rule: Rule[Any]) -> None:
    await check(MemoryStore(), rule)


class Remote:
    """The memory limiter behind an await, as a store elsewhere would be."""

    def __init__(self, spec: LimiterSpec) -> None:
        self._local = MemoryLimiter(spec.rules)

    async def acquire(self, key: str, costs: Sequence[float], max_wait: float) -> Booking:
        return self._local.acquire(key, costs, max_wait)

    async def peek(self, key: str, costs: Sequence[float]) -> Decision:
        return self._local.peek(key, costs)

    async def refund(self, key: str, costs: Sequence[float], stamp: object = None) -> None:
        self._local.refund(key, costs, stamp)

    async def reset(self, key: str) -> None:
        self._local.reset(key)


class RemoteStore(Store):
    def limiter(self, spec: LimiterSpec) -> Remote:
        return Remote(spec)


async def test_a_remote_limiter_is_awaited() -> None:
    await check_limiter(RemoteStore(), RULES[0])


class Charging(MemoryLimiter):
    """Counts refusals."""

    def acquire(self, key: str, costs: Sequence[float], max_wait: float, at: float | None = None) -> Booking:
        booking = super().acquire(key, costs, max_wait, at)
        if not booking.decision.allowed:
            super().acquire(key, costs, 1e12)
        return booking


class Peeking(MemoryLimiter):
    """Charges for looking."""

    def peek(self, key: str, costs: Sequence[float]) -> Decision:
        super().acquire(key, costs, 1e12)
        return super().peek(key, costs)


class Generous(MemoryLimiter):
    """Ignores stamps."""

    def refund(self, key: str, costs: Sequence[float], stamp: object = None) -> None:
        super().refund(key, costs)


class Stingy(MemoryLimiter):
    """Never refunds."""

    def refund(self, key: str, costs: Sequence[float], stamp: object = None) -> None:
        return


class Forgetful(MemoryLimiter):
    """Does not reset."""

    def reset(self, key: str) -> None:
        return


class Mixed(MemoryLimiter):
    """Has one key for all."""

    def _state(self, key: str, now: float) -> Any:
        return super()._state("", now)

    def acquire(self, key: str, costs: Sequence[float], max_wait: float, at: float | None = None) -> Booking:
        return super().acquire("", costs, max_wait, at)

    def peek(self, key: str, costs: Sequence[float]) -> Decision:
        return super().peek("", costs)


class Impatient(MemoryLimiter):
    """Ignores how long the caller would wait."""

    def acquire(self, key: str, costs: Sequence[float], max_wait: float, at: float | None = None) -> Booking:
        return super().acquire(key, costs, 0.0, at)


class Endless(MemoryLimiter):
    """Books whatever the patience."""

    def acquire(self, key: str, costs: Sequence[float], max_wait: float, at: float | None = None) -> Booking:
        return super().acquire(key, costs, 1e12 if max_wait else 0.0, at)


class Gullible(MemoryLimiter):
    """Takes any cost."""

    def acquire(self, key: str, costs: Sequence[float], max_wait: float, at: float | None = None) -> Booking:
        try:
            return super().acquire(key, costs, max_wait, at)
        except ValueError:
            return Booking(Decision(True, 0.0, 0, (0.0,)))


BROKEN: dict[type[MemoryLimiter], str] = {
    Charging: "refuses_for_nothing",
    Peeking: "peeks_without_a_trace",
    Generous: "refunds_no_stale_stamp",
    Stingy: "refunds_the_last_booking",
    Forgetful: "resets_to_fresh",
    Mixed: "keeps_keys_apart",
    Impatient: "books_ahead_in_order",
    Endless: "refuses_beyond_the_patience",
    Gullible: "refuses_impossible_costs",
}


@pytest.mark.parametrize("kind", list(BROKEN), ids=lambda kind: str(kind.__name__))
async def test_a_broken_store_fails_the_check_for_it(kind: type[MemoryLimiter]) -> None:
    class Broken(Store):
        def limiter(self, spec: LimiterSpec) -> LocalLimiter:
            return kind(spec.rules)

    check = next(check for check in LIMITER_CHECKS if check.__name__ == BROKEN[kind])
    with pytest.raises(AssertionError):
        await check(Broken(), GCRA(5, 1e6))


async def test_virtual_time_stands_still_while_checks_run() -> None:
    await check_limiter(MemoryStore(), RULES[0])
    assert clock.now() == 0.0
