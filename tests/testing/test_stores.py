"""The conformance kit: our stores pass it, and stores that break a promise do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from resilience import GCRA, FixedWindow, LeakyBucket, MemoryStore, SlidingLog, SlidingWindow, Store, TokenBucket, clock
from resilience.limits.limiter_state import Booking, LimiterSpec, LocalLimiter, Observation, Reserved
from resilience.limits.memory_ledger import MemoryLedger
from resilience.limits.memory_limiter import MemoryLimiter
from resilience.machines.rate_limiter import Decision, Rule
from resilience.testing import LEDGER_CHECKS, LIMITER_CHECKS, LimiterCheck, check_limiter

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
@pytest.mark.parametrize("check", [*LIMITER_CHECKS, *LEDGER_CHECKS], ids=lambda check: str(check.__name__))
async def test_the_memory_store_passes(check: LimiterCheck, rule: Rule[Any]) -> None:
    await check(MemoryStore(), rule)


class Remote:
    """The memory limiter behind an await, as a store elsewhere would be."""

    def __init__(self, spec: LimiterSpec) -> None:
        self._local = MemoryLimiter(spec.rules, common=spec.common)

    def fleet(self) -> None:
        return None

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

    def state(self, key: str, now: float) -> Any:
        return super().state("", now)

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


class Demanding(MemoryLimiter):
    """Asks every limit for something."""

    def acquire(self, key: str, costs: Sequence[float], max_wait: float, at: float | None = None) -> Booking:
        return super().acquire(key, [max(cost, 0.5) for cost in costs], max_wait, at)


class Separate(MemoryLimiter):
    """Knows no limit for all keys together."""


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
    Demanding: "asks_only_limits_with_a_cost",
    Separate: "holds_common_limits_together",
}


@pytest.mark.parametrize("kind", list(BROKEN), ids=lambda kind: str(kind.__name__))
async def test_a_broken_store_fails_the_check_for_it(kind: type[MemoryLimiter]) -> None:
    class Broken(Store):
        def limiter(self, spec: LimiterSpec) -> LocalLimiter:
            return kind(spec.rules)

    check = next(check for check in LIMITER_CHECKS if check.__name__ == BROKEN[kind])
    with pytest.raises(AssertionError):
        await check(Broken(), GCRA(5, 1e6))


class Trusting(MemoryLedger):
    """Believes whatever others say."""

    def observe(self, key: str, said: Sequence[Observation]) -> None:
        self.reset(key)
        super().observe(key, said)


class Leaking(MemoryLedger):
    """Drains nothing."""

    def drain(self, key: str, seconds: Sequence[float | None]) -> None:
        return


class Repeating(MemoryLedger):
    """Charges a repeated reservation again."""

    def reserve(self, key: str, id: str, costs: Sequence[float], max_wait: float, ttl: float) -> Reserved:
        reserved = super().reserve(key, id, costs, max_wait, ttl)
        self.acquire(key, (1,), 1e12)
        return reserved


class Remembering(MemoryLedger):
    """Remembers refused reservations."""

    def reserve(self, key: str, id: str, costs: Sequence[float], max_wait: float, ttl: float) -> Reserved:
        reserved = super().reserve(key, id, costs, max_wait, ttl)
        if not reserved.decision.allowed:
            self.enter(key, id, costs, ttl)
        return reserved


class Hurried(MemoryLedger):
    """Gives back whatever was booked later."""

    def settle(self, key: str, id: str, actual: Sequence[float | None], ttl: float, known: bool = False) -> bool:
        if (reserved := self.recall(key, id)) is not None and not reserved.settled:
            self.enter(key, id, reserved.costs, ttl)
        return super().settle(key, id, actual, ttl, known)


class Relentless(MemoryLedger):
    """Settles again and again."""

    def settle(self, key: str, id: str, actual: Sequence[float | None], ttl: float, known: bool = False) -> bool:
        self._records.clear()
        return super().settle(key, id, actual, ttl, known)


class Careless(MemoryLedger):
    """Settles only what it knows."""

    def settle(self, key: str, id: str, actual: Sequence[float | None], ttl: float, known: bool = False) -> bool:
        return super().settle(key, id, actual, ttl, known=True)


class Lumping(MemoryLedger):
    """Settles all limits as the first."""

    def settle(self, key: str, id: str, actual: Sequence[float | None], ttl: float, known: bool = False) -> bool:
        return super().settle(key, id, [actual[0]] * len(actual), ttl, known)


BROKEN_LEDGERS: dict[type[MemoryLimiter], str] = {
    MemoryLimiter: "observes_only_less",
    Trusting: "observes_only_less",
    Leaking: "drains_for_so_long",
    Repeating: "charges_a_reservation_once",
    Remembering: "forgets_a_refused_reservation",
    Hurried: "repeats_the_moment_of_a_reservation",
    Relentless: "settles_the_difference_once",
    Careless: "settles_what_it_does_not_know_in_full",
    Lumping: "settles_each_limit_for_itself",
}


@pytest.mark.parametrize("kind", list(BROKEN_LEDGERS), ids=lambda kind: str(kind.__name__))
async def test_a_broken_ledger_fails_the_check_for_it(kind: type[MemoryLimiter]) -> None:
    class Broken(Store):
        def limiter(self, spec: LimiterSpec) -> LocalLimiter:
            return kind(spec.rules)

    check = next(check for check in LEDGER_CHECKS if check.__name__ == BROKEN_LEDGERS[kind])
    with pytest.raises(AssertionError):
        await check(Broken(), GCRA(5, 1e6))


async def test_virtual_time_stands_still_while_checks_run() -> None:
    await check_limiter(MemoryStore(), RULES[0])
    assert clock.now() == 0.0
