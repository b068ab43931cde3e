"""Checks that a store has to pass whose rate limiters keep account; for the tests of stores that others write.

    @pytest.mark.parametrize("check", LEDGER_CHECKS, ids=lambda check: check.__name__)
    async def test_ledger(check):
        await check(my_store, GCRA(5, 1e6))

They come after those of `LIMITER_CHECKS`, and what is said there of rules and time holds here.
"""

from __future__ import annotations

from typing import Any

from ..limits.limiter_state import LocalLedger, Observation, RemoteLedger, Reserved
from ..machines.rate_limiter import Decision, Rule
from ..store import Store
from .stores import CheckedLimiter, Cost, LimiterCheck, same, settled

_LONG = 1e9
_TTL = 600.0


class _Ledger(CheckedLimiter):
    """One interface for local and remote ledgers. Raises AssertionError if the store has none."""

    def __init__(self, store: Store, *rules: Rule[Any]) -> None:
        super().__init__(store, *rules)
        assert isinstance(self.state, LocalLedger | RemoteLedger), "the store's rate limiters keep no account"
        self.ledger: LocalLedger | RemoteLedger = self.state

    async def observe(self, key: str, *said: Observation) -> None:
        await settled(self.ledger.observe(key, said))

    async def drain(self, key: str, *seconds: float | None) -> None:
        await settled(self.ledger.drain(key, seconds))

    async def reserve(self, key: str, id: str, cost: Cost = 1, max_wait: float = 0.0) -> Reserved:
        reserved: Reserved = await settled(self.ledger.reserve(key, id, self.costs(cost), max_wait, _TTL))
        return reserved

    async def settle(self, key: str, id: str, *actual: float | None, known: bool = False) -> bool:
        first: bool = await settled(self.ledger.settle(key, id, actual, _TTL, known))
        return first

    async def after(self, *costs: float) -> Decision:
        """What a fresh key looks like once those costs have been charged."""
        await self.reset("fresh")
        for cost in costs:
            await self.acquire("fresh", cost, _LONG)
        return await self.peek("fresh")


async def observes_only_less(store: Store, rule: Rule[Any]) -> None:
    """What remains is lowered to what is said, and never raised."""
    ledger = _Ledger(store, rule)
    fresh = await ledger.peek("a")
    await ledger.observe("a", (rule.capacity * 2, 5.0))
    assert same(await ledger.peek("a"), fresh), "more remains elsewhere, and that is no reason for anything"
    await ledger.observe("a", None)
    assert same(await ledger.peek("a"), fresh), "a limit that takes no part was changed"
    if rule.algorithm != "leaky_bucket":  # which knows only some and none
        await ledger.observe("a", (2.0, 5.0))
        assert await ledger.exhaust("a") == 2
    await ledger.observe("b", (0.0, 1e5))
    refused = await ledger.peek("b")
    assert not refused.allowed
    assert refused.wait >= 0.99e5, "nothing remains, so nothing may go before there is more"
    await ledger.observe("b", (rule.capacity, 0.0))
    assert not (await ledger.peek("b")).allowed, "what somebody else says must not raise what remains"


async def drains_for_so_long(store: Store, rule: Rule[Any]) -> None:
    """Nothing goes before that time, and nothing remains; of this key and of these limits only."""
    ledger = _Ledger(store, rule, rule)
    fresh = await ledger.peek("b")
    await ledger.drain("a", 1e5, None)
    refused = (await ledger.acquire("a", (0.5, 0.5))).decision
    assert not refused.allowed
    assert refused.wait >= 0.99e5
    assert refused.remaining[0] < 0.01
    assert (await ledger.peek("a", (0, 1))).allowed, "a limit that takes no part was drained"
    assert same(await ledger.peek("b"), fresh), "one key's drain is not another's"
    await ledger.drain("b", 0.0, 0.0)
    assert max((await ledger.peek("b")).remaining) < 0.01


async def charges_a_reservation_once(store: Store, rule: Rule[Any]) -> None:
    """A repeated reservation gets the same answer and is not charged again, whatever it asks for."""
    ledger = _Ledger(store, rule)
    first = await ledger.reserve("a", "id", 3)
    again = await ledger.reserve("a", "id", 1)
    assert first.decision.allowed
    assert again.decision.allowed
    assert first.costs == again.costs == (3,)
    assert not again.settled
    assert same(await ledger.peek("a"), await ledger.after(3)), "an id was charged twice"
    await ledger.reserve("a", "other")
    await ledger.reserve("b", "id")
    assert same(await ledger.peek("b"), await ledger.after(1)), "the ids of another key are others"


async def forgets_a_refused_reservation(store: Store, rule: Rule[Any]) -> None:
    """A refusal costs nothing and leaves no record: the same id may be tried again."""
    ledger = _Ledger(store, rule)
    await ledger.exhaust("a")
    before = await ledger.peek("a")
    refused = await ledger.reserve("a", "id")
    assert (refused.decision.allowed, refused.costs) == (False, ())
    assert same(await ledger.peek("a"), before)
    await ledger.reset("a")
    assert (await ledger.reserve("a", "id", 2)).costs == (2,)
    assert same(await ledger.peek("a"), await ledger.after(2))


async def repeats_the_moment_of_a_reservation(store: Store, rule: Rule[Any]) -> None:
    """A reservation that has to wait is booked ahead; repeated, it still has that place."""
    ledger = _Ledger(store, rule)
    await ledger.exhaust("a")
    first = await ledger.reserve("a", "id", max_wait=_LONG)
    await ledger.acquire("a", max_wait=_LONG)
    before = await ledger.peek("a")
    again = await ledger.reserve("a", "id")
    assert again.decision.allowed, "it was admitted, however long this one would wait"
    assert abs(again.decision.wait - first.decision.wait) <= 1e-3 * first.decision.wait
    assert same(await ledger.peek("a"), before)
    assert await ledger.settle("a", "id", 0.0)
    assert same(await ledger.peek("a"), before), "given back under a later booking, two of them would meet"


async def settles_the_difference_once(store: Store, rule: Rule[Any]) -> None:
    """What was not used is given back, what was used beyond becomes a debt; a repeated settle changes nothing."""
    ledger = _Ledger(store, rule)
    for key, reserved, actual in (("less", 3.0, 1.0), ("more", 1.0, 3.0), ("same", 2.0, 2.0), ("void", 3.0, 0.0)):
        await ledger.reserve(key, "id", reserved)
        assert await ledger.settle(key, "id", actual)
        assert not await ledger.settle(key, "id", 3.5), "settled twice"
        late = await ledger.reserve(key, "id", 3)
        assert (late.settled, late.costs) == (True, (actual,))
        expected = await ledger.after(*([1.0] * int(actual)))
        assert same(await ledger.peek(key), expected), f"reserved {reserved}, settled with {actual}"
    await ledger.reserve("as reserved", "id", 2)
    assert await ledger.settle("as reserved", "id", None)
    assert same(await ledger.peek("as reserved"), await ledger.after(2))


async def settles_what_it_does_not_know_in_full(store: Store, rule: Rule[Any]) -> None:
    """An id that was not reserved is charged in full; its reservation comes late and is charged nothing."""
    ledger = _Ledger(store, rule)
    assert await ledger.settle("a", "id", 3.0)
    late = await ledger.reserve("a", "id", 2)
    assert (late.decision.allowed, late.settled, late.costs) == (True, True, (3,))
    assert same(await ledger.peek("a"), await ledger.after(3))
    assert not await ledger.settle("b", "id", 3.0, known=True), "known to be reserved: so it was charged before"
    assert same(await ledger.peek("b"), await ledger.after())


async def settles_each_limit_for_itself(store: Store, rule: Rule[Any]) -> None:
    """One limit gives back, another is charged more, a third takes no part."""
    ledger = _Ledger(store, rule, rule, rule)
    await ledger.reserve("a", "id", (3, 1, 0))
    assert await ledger.settle("a", "id", 1.0, 2.0, None)
    await ledger.acquire("b", (1, 2, 0))
    assert same(await ledger.peek("a"), await ledger.peek("b"))


LEDGER_CHECKS: tuple[LimiterCheck, ...] = (
    observes_only_less,
    drains_for_so_long,
    charges_a_reservation_once,
    forgets_a_refused_reservation,
    repeats_the_moment_of_a_reservation,
    settles_the_difference_once,
    settles_what_it_does_not_know_in_full,
    settles_each_limit_for_itself,
)
"""Every check of a ledger, each a coroutine function of a store and a rule."""
