"""Checks that a store's rate limiter has to pass; for the tests of stores that others write.

    @pytest.mark.anyio
    @pytest.mark.parametrize("rule", [GCRA(5, 1e6), SlidingLog(5, 1e6)], ids=repr)
    @pytest.mark.parametrize("check", LIMITER_CHECKS, ids=lambda check: check.__name__)
    async def test_limiter(check, rule):
        await check(my_store, rule)

Local and remote limiters pass the same checks, in virtual and in real time: choose rules with a limit of at least
4, and of a million seconds per period, so that nothing comes back while a check runs. Each check takes a fresh
name, and raises AssertionError when a promise is broken.
"""

from __future__ import annotations

import inspect
import itertools
import math
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from ..limiter_state import Booking, LimiterSpec, LocalLimiter, RemoteLimiter
from ..machines.rate_limiter import Decision, Rule
from ..store import Store

LimiterCheck: TypeAlias = Callable[[Store, Rule[Any]], Awaitable[None]]

_LONG = 1e9
"""Seconds of patience that cover every wait in these checks."""


class _Limiter:
    """One interface for local and remote limiters, on one fresh name; every rule gets the same cost."""

    def __init__(self, store: Store, *rules: Rule[Any]) -> None:
        self.rules = rules
        spec = LimiterSpec(f"check-{secrets.token_hex(6)}", rules)
        self.state: LocalLimiter | RemoteLimiter = store.limiter(spec)

    async def acquire(self, key: str, cost: float = 1, max_wait: float = 0.0) -> Booking:
        booking: Booking = await _settled(self.state.acquire(key, self._costs(cost), max_wait))
        return booking

    async def peek(self, key: str, cost: float = 1) -> Decision:
        decision: Decision = await _settled(self.state.peek(key, self._costs(cost)))
        return decision

    async def refund(self, key: str, cost: float = 1, stamp: object = None) -> None:
        await _settled(self.state.refund(key, self._costs(cost), stamp))

    async def reset(self, key: str) -> None:
        await _settled(self.state.reset(key))

    async def exhaust(self, key: str) -> int:
        """Take until refused; how often it could."""
        taken = 0
        while (await self.acquire(key)).decision.allowed:
            taken += 1
            assert taken <= 1000, "never refused: choose a smaller limit"
        return taken

    def _costs(self, cost: float) -> tuple[float, ...]:
        return (cost,) * len(self.rules)


async def _settled(answer: Any) -> Any:
    return await answer if inspect.isawaitable(answer) else answer


def _same(one: Decision, other: Decision) -> bool:
    """Equal but for the little time that passed and the rounding of a wire format."""
    return one.allowed == other.allowed and all(
        math.isclose(mine, theirs, rel_tol=1e-3, abs_tol=1e-3)
        for mine, theirs in zip((one.wait, *one.remaining), (other.wait, *other.remaining), strict=True)
    )


async def admits_up_to_the_burst(store: Store, rule: Rule[Any]) -> None:
    """A fresh key gives exactly its burst, then refuses and says when to come back."""
    limiter = _Limiter(store, rule)
    assert await limiter.exhaust("a") == math.floor(rule.burst)
    refused = (await limiter.acquire("a")).decision
    assert not refused.allowed
    assert refused.wait > 0, "a refusal must say after how long a new try has a chance"


async def refuses_for_nothing(store: Store, rule: Rule[Any]) -> None:
    """Refusals change nothing, however many."""
    limiter = _Limiter(store, rule)
    await limiter.exhaust("a")
    before = await limiter.peek("a")
    for _ in range(20):
        assert not (await limiter.acquire("a")).decision.allowed
    assert _same(await limiter.peek("a"), before), "a refusal was charged"


async def peeks_without_a_trace(store: Store, rule: Rule[Any]) -> None:
    """Peeking answers as an acquire would, and changes nothing."""
    limiter = _Limiter(store, rule)
    first = await limiter.peek("a")
    assert first.allowed
    assert _same(await limiter.peek("a"), first)
    await limiter.exhaust("a")
    assert not (await limiter.peek("a")).allowed


async def books_ahead_in_order(store: Store, rule: Rule[Any]) -> None:
    """With patience, bookings lie one behind the other, and none is refused that can wait."""
    limiter = _Limiter(store, rule)
    await limiter.exhaust("a")
    expected = (await limiter.peek("a")).wait
    decisions = [(await limiter.acquire("a", max_wait=_LONG)).decision for _ in range(4)]
    assert all(decision.allowed for decision in decisions), "refused although the caller would have waited"
    waits = [decision.wait for decision in decisions]
    assert math.isclose(waits[0], expected, rel_tol=1e-3)
    assert all(later >= earlier * 0.999 for earlier, later in itertools.pairwise(waits)), waits


async def refuses_beyond_the_patience(store: Store, rule: Rule[Any]) -> None:
    """A wait longer than `max_wait` is refused at once and not booked."""
    limiter = _Limiter(store, rule)
    await limiter.exhaust("a")
    before = await limiter.peek("a")
    booking = await limiter.acquire("a", max_wait=before.wait * 0.9)
    assert not booking.decision.allowed
    assert _same(await limiter.peek("a"), before)


async def refunds_the_last_booking(store: Store, rule: Rule[Any]) -> None:
    """A booking is undone exactly by its own stamp."""
    limiter = _Limiter(store, rule)
    before = await limiter.peek("a")
    booking = await limiter.acquire("a")
    assert not _same(await limiter.peek("a"), before)
    await limiter.refund("a", stamp=booking.stamp)
    assert _same(await limiter.peek("a"), before), "the refund did not restore what was there"


async def refunds_no_stale_stamp(store: Store, rule: Rule[Any]) -> None:
    """Once something is booked behind a booking, its stamp gives nothing back."""
    limiter = _Limiter(store, rule)
    booking = await limiter.acquire("a", max_wait=_LONG)
    await limiter.acquire("a", max_wait=_LONG)
    before = await limiter.peek("a")
    await limiter.refund("a", stamp=booking.stamp)
    assert _same(await limiter.peek("a"), before), "a refund under a later booking would let two of them meet"


async def refunds_never_above_fresh(store: Store, rule: Rule[Any]) -> None:
    """Giving back more than was taken leaves a key fresh, not better."""
    limiter = _Limiter(store, rule)
    fresh = await limiter.peek("a")
    await limiter.acquire("a")
    for _ in range(3):
        await limiter.refund("a")
    assert _same(await limiter.peek("a"), fresh)


async def resets_to_fresh(store: Store, rule: Rule[Any]) -> None:
    """A reset key has its whole limit again."""
    limiter = _Limiter(store, rule)
    first = await limiter.exhaust("a")
    await limiter.reset("a")
    assert await limiter.exhaust("a") == first


async def keeps_keys_apart(store: Store, rule: Rule[Any]) -> None:
    """One key's use is not another's."""
    limiter = _Limiter(store, rule)
    fresh = await limiter.peek("b")
    await limiter.exhaust("a")
    assert _same(await limiter.peek("b"), fresh)
    await limiter.acquire("b")
    await limiter.reset("a")
    assert not _same(await limiter.peek("b"), fresh)


async def takes_all_or_nothing(store: Store, rule: Rule[Any]) -> None:
    """Of several limits each is charged, or none; the one that refuses is named."""
    kind: Any = type(rule)
    small, large = kind(rule.limit, rule.period), kind(rule.limit * 2, rule.period * 2)
    limiter = _Limiter(store, large, small)
    await limiter.exhaust("a")
    before = await limiter.peek("a")
    booking = await limiter.acquire("a")
    assert not booking.decision.allowed
    assert len(booking.decision.remaining) == 2
    assert _same(await limiter.peek("a"), before), "one of the limits was charged for a refusal"


async def refuses_impossible_costs(store: Store, rule: Rule[Any]) -> None:
    """Costs that are not positive, not finite, or above what a rule ever admits raise ValueError, uncharged."""
    limiter = _Limiter(store, rule)
    fresh = await limiter.peek("a")
    for cost in (0, -1, math.nan, math.inf, rule.capacity * 2):
        try:
            await limiter.acquire("a", cost, _LONG)
        except ValueError as error:
            assert "cost" in str(error), f"the message does not name the field: {error}"  # noqa: PT017 - the kit works without pytest
        else:
            raise AssertionError(f"a cost of {cost!r} was accepted")
    assert _same(await limiter.peek("a"), fresh)


LIMITER_CHECKS: tuple[LimiterCheck, ...] = (
    admits_up_to_the_burst,
    refuses_for_nothing,
    peeks_without_a_trace,
    books_ahead_in_order,
    refuses_beyond_the_patience,
    refunds_the_last_booking,
    refunds_no_stale_stamp,
    refunds_never_above_fresh,
    resets_to_fresh,
    keeps_keys_apart,
    takes_all_or_nothing,
    refuses_impossible_costs,
)
"""Every check, each a coroutine function of a store and a rule."""


async def check_limiter(store: Store, rule: Rule[Any]) -> None:
    """Run every check. Raises AssertionError when a promise is broken."""
    for check in LIMITER_CHECKS:
        await check(store, rule)
