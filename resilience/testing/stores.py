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

from ..limits.limiter_state import Booking, LimiterSpec, LocalLimiter, RemoteLimiter
from ..machines.rate_limiter import Decision, Rule
from ..store import Store

LimiterCheck: TypeAlias = Callable[[Store, Rule[Any]], Awaitable[None]]

_LONG = 1e9
"""Seconds of patience that cover every wait in these checks."""


Cost: TypeAlias = float | tuple[float, ...]
"""One for every rule, or one for each."""


class CheckedLimiter:
    """One interface for local and remote limiters, on one fresh name."""

    def __init__(self, store: Store, *rules: Rule[Any], common: tuple[int, ...] = ()) -> None:
        self.rules = rules
        spec = LimiterSpec(f"check-{secrets.token_hex(6)}", rules, common=common)
        self.state: LocalLimiter | RemoteLimiter = store.limiter(spec)

    async def acquire(self, key: str, cost: Cost = 1, max_wait: float = 0.0) -> Booking:
        """Book; see `LocalLimiter`, as for the others."""
        booking: Booking = await settled(self.state.acquire(key, self.costs(cost), max_wait))
        return booking

    async def peek(self, key: str, cost: Cost = 1) -> Decision:
        """Look."""
        decision: Decision = await settled(self.state.peek(key, self.costs(cost)))
        return decision

    async def refund(self, key: str, cost: Cost = 1, stamp: object = None) -> None:
        """Give back."""
        await settled(self.state.refund(key, self.costs(cost), stamp))

    async def reset(self, key: str) -> None:
        """Forget."""
        await settled(self.state.reset(key))

    async def exhaust(self, key: str) -> int:
        """Take until refused; how often it could."""
        taken = 0
        while (await self.acquire(key)).decision.allowed:
            taken += 1
            assert taken <= 1000, "never refused: choose a smaller limit"
        return taken

    def costs(self, cost: Cost) -> tuple[float, ...]:
        """A cost for every rule."""
        return cost if isinstance(cost, tuple) else (cost,) * len(self.rules)


async def settled(answer: Any) -> Any:
    """The answer of a local limiter, or of a remote one once it is there."""
    return await answer if inspect.isawaitable(answer) else answer


def same(one: Decision, other: Decision) -> bool:
    """Equal but for the little time that passed and the rounding of a wire format."""
    return one.allowed == other.allowed and all(
        math.isclose(mine, theirs, rel_tol=1e-3, abs_tol=1e-3)
        for mine, theirs in zip((one.wait, *one.remaining), (other.wait, *other.remaining), strict=True)
    )


async def admits_up_to_the_burst(store: Store, rule: Rule[Any]) -> None:
    """A fresh key gives exactly its burst, then refuses and says when to come back."""
    limiter = CheckedLimiter(store, rule)
    assert await limiter.exhaust("a") == math.floor(rule.burst)
    refused = (await limiter.acquire("a")).decision
    assert not refused.allowed
    assert refused.wait > 0, "a refusal must say after how long a new try has a chance"


async def refuses_for_nothing(store: Store, rule: Rule[Any]) -> None:
    """Refusals change nothing, however many."""
    limiter = CheckedLimiter(store, rule)
    await limiter.exhaust("a")
    before = await limiter.peek("a")
    for _ in range(20):
        assert not (await limiter.acquire("a")).decision.allowed
    assert same(await limiter.peek("a"), before), "a refusal was charged"


async def peeks_without_a_trace(store: Store, rule: Rule[Any]) -> None:
    """Peeking answers as an acquire would, and changes nothing."""
    limiter = CheckedLimiter(store, rule)
    first = await limiter.peek("a")
    assert first.allowed
    assert same(await limiter.peek("a"), first)
    await limiter.exhaust("a")
    assert not (await limiter.peek("a")).allowed


async def books_ahead_in_order(store: Store, rule: Rule[Any]) -> None:
    """With patience, bookings lie one behind the other, and none is refused that can wait."""
    limiter = CheckedLimiter(store, rule)
    await limiter.exhaust("a")
    expected = (await limiter.peek("a")).wait
    decisions = [(await limiter.acquire("a", max_wait=_LONG)).decision for _ in range(4)]
    assert all(decision.allowed for decision in decisions), "refused although the caller would have waited"
    waits = [decision.wait for decision in decisions]
    assert math.isclose(waits[0], expected, rel_tol=1e-3)
    assert all(later >= earlier * 0.999 for earlier, later in itertools.pairwise(waits)), waits


async def refuses_beyond_the_patience(store: Store, rule: Rule[Any]) -> None:
    """A wait longer than `max_wait` is refused at once and not booked."""
    limiter = CheckedLimiter(store, rule)
    await limiter.exhaust("a")
    before = await limiter.peek("a")
    booking = await limiter.acquire("a", max_wait=before.wait * 0.9)
    assert not booking.decision.allowed
    assert same(await limiter.peek("a"), before)


async def refunds_the_last_booking(store: Store, rule: Rule[Any]) -> None:
    """A booking is undone exactly by its own stamp."""
    limiter = CheckedLimiter(store, rule)
    before = await limiter.peek("a")
    booking = await limiter.acquire("a")
    assert not same(await limiter.peek("a"), before)
    await limiter.refund("a", stamp=booking.stamp)
    assert same(await limiter.peek("a"), before), "the refund did not restore what was there"


async def refunds_no_stale_stamp(store: Store, rule: Rule[Any]) -> None:
    """Once something is booked behind a booking, its stamp gives nothing back."""
    limiter = CheckedLimiter(store, rule)
    booking = await limiter.acquire("a", max_wait=_LONG)
    await limiter.acquire("a", max_wait=_LONG)
    before = await limiter.peek("a")
    await limiter.refund("a", stamp=booking.stamp)
    assert same(await limiter.peek("a"), before), "a refund under a later booking would let two of them meet"


async def refunds_never_above_fresh(store: Store, rule: Rule[Any]) -> None:
    """Giving back more than was taken leaves a key fresh, not better."""
    limiter = CheckedLimiter(store, rule)
    fresh = await limiter.peek("a")
    await limiter.acquire("a")
    for _ in range(3):
        await limiter.refund("a")
    assert same(await limiter.peek("a"), fresh)


async def resets_to_fresh(store: Store, rule: Rule[Any]) -> None:
    """A reset key has its whole limit again."""
    limiter = CheckedLimiter(store, rule)
    first = await limiter.exhaust("a")
    await limiter.reset("a")
    assert await limiter.exhaust("a") == first


async def keeps_keys_apart(store: Store, rule: Rule[Any]) -> None:
    """One key's use is not another's."""
    limiter = CheckedLimiter(store, rule)
    fresh = await limiter.peek("b")
    await limiter.exhaust("a")
    assert same(await limiter.peek("b"), fresh)
    await limiter.acquire("b")
    await limiter.reset("a")
    assert not same(await limiter.peek("b"), fresh)


async def takes_all_or_nothing(store: Store, rule: Rule[Any]) -> None:
    """Of several limits each is charged, or none; the one that refuses is named."""
    kind: Any = type(rule)
    small, large = kind(rule.limit, rule.period), kind(rule.limit * 2, rule.period * 2)
    limiter = CheckedLimiter(store, large, small)
    await limiter.exhaust("a")
    before = await limiter.peek("a")
    booking = await limiter.acquire("a")
    assert not booking.decision.allowed
    assert len(booking.decision.remaining) == 2
    assert same(await limiter.peek("a"), before), "one of the limits was charged for a refusal"


async def asks_only_limits_with_a_cost(store: Store, rule: Rule[Any]) -> None:
    """A limit whose cost is 0 takes no part: it neither refuses nor is charged."""
    limiter = CheckedLimiter(store, rule, rule)
    while (await limiter.acquire("a", (1, 0))).decision.allowed:
        pass
    assert (await limiter.peek("a", (0, rule.burst))).allowed, "a limit that takes no part was charged"
    refused = (await limiter.acquire("a", (1, 1))).decision
    assert (refused.allowed, refused.binding) == (False, 0)
    booking = await limiter.acquire("a", (0, 1))
    assert booking.decision.allowed, "a limit that takes no part was asked"
    await limiter.refund("a", (0, 1), booking.stamp)
    assert (await limiter.peek("a", (0, rule.burst))).allowed, "a booking of one limit was not given back"
    assert not (await limiter.peek("a", (1, 0))).allowed, "and the other was not booked at all"


async def holds_common_limits_together(store: Store, rule: Rule[Any]) -> None:
    """Limits for all keys together are one; those for each key are many; both are decided in one step."""
    kind: Any = type(rule)
    large = kind(rule.limit * 2, rule.period * 2)
    limiter = CheckedLimiter(store, large, rule, common=(1,))
    taken = await limiter.exhaust("a")
    refused = (await limiter.acquire("b")).decision
    assert (refused.allowed, refused.binding) == (False, 1), "a limit for all keys was not shared"
    before = await limiter.peek("b", (1, 0))
    assert same(before, await limiter.peek("c", (1, 0))), "a refusal was charged to the key"
    await limiter.reset("a")
    assert not (await limiter.peek("a")).allowed, "one key was reset, and with it what holds for all"
    await limiter.reset("")
    assert await limiter.exhaust("b") == taken


async def refuses_impossible_costs(store: Store, rule: Rule[Any]) -> None:
    """Costs that are not positive, not finite, or above what a rule ever admits raise ValueError, uncharged."""
    limiter = CheckedLimiter(store, rule)
    fresh = await limiter.peek("a")
    for cost in (0, -1, math.nan, math.inf, rule.capacity * 2):
        try:
            await limiter.acquire("a", cost, _LONG)
        except ValueError as error:
            assert "cost" in str(error), f"the message does not name the field: {error}"  # noqa: PT017 - the kit works without pytest
        else:
            raise AssertionError(f"a cost of {cost!r} was accepted")
    assert same(await limiter.peek("a"), fresh)


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
    asks_only_limits_with_a_cost,
    holds_common_limits_together,
    refuses_impossible_costs,
)
"""Every check, each a coroutine function of a store and a rule."""


async def check_limiter(store: Store, rule: Rule[Any]) -> None:
    """Run every check. Raises AssertionError when a promise is broken."""
    for check in LIMITER_CHECKS:
        await check(store, rule)
