"""A rate limiter in Redis that a process mostly serves from slices it has debited ahead, with no round trip.

    limiter = store.limiter(LimiterSpec("search", (GCRA(1000, 1.0),), leased=0.05))
    booking = await limiter.acquire("tenant-7", (1,), max_wait=0.0)

What a slice cannot answer is asked strictly: keys that are seldom used, costs larger than a slice, limits too small
to be divided, several costs that differ. In any window of length W at most `burst + limit / period * W + leased *
limit` units are used, all processes together; `resilience.machines.leased_ledger` says why.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from resilience import clock
from resilience.limits.limiter_state import Booking, LimiterSpec, Observation, Reserved
from resilience.machines.leased_ledger import ALGORITHMS
from resilience.machines.leased_lots import Lot
from resilience.machines.rate_limiter.decide import Decision
from resilience.machines.rate_limiter.rule import check_cost, text
from resilience_redis.connection.target import MICROSECONDS
from resilience_redis.limits.slices import Desk, Held, Terms, booked
from resilience_redis.scripts import script_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resilience_redis.limits.ledger import RedisLedger
    from resilience_redis.link import Link


class LeasedLimiter:
    """`RemoteLedger` that serves hot keys from slices; everything else goes to `strict`, on the same state.

    `remaining` in decisions from a slice is what this process can still give at once. Raises ValueError for rules
    of an algorithm without a bucket: it cannot be leased.
    """

    def __init__(self, spec: LimiterSpec, strict: RedisLedger, link: Callable[[], Link]) -> None:
        assert spec.leased is not None
        for rule in spec.rules:
            if rule.algorithm not in ALGORITHMS:
                raise ValueError(
                    f"shared must be 'strict' for algorithm {rule.algorithm!r}: only {' and '.join(ALGORITHMS)} "
                    "keep a bucket that slices can be taken from"
                )
        if 0 < len(spec.common) < len(spec.rules):
            raise ValueError("shared must be 'strict' where some limits hold for each key and some for all together")
        self.strict = strict
        self.fleet = strict.fleet
        self._rules = spec.rules
        self._terms = self._make_terms(spec.leased)
        self._link = link
        self._desks: dict[asyncio.AbstractEventLoop | None, Desk] = {}

    async def acquire(self, key: str, costs: Sequence[float], max_wait: float) -> Booking:
        """Take the costs from this process's slice, or else from the store. Raises StoreUnavailableError."""
        # The running loop, or None, without the price of an exception that nobody raises.
        desk = self._desks.get(asyncio._get_running_loop())
        if desk is not None and max_wait >= 0.0 and (held := desk.held.get(key)) is not None:
            cost = costs[0]
            if cost > 0 and (len(costs) == 1 or costs.count(cost) == len(costs)):
                slice_ = held.slice
                if slice_.quick(clock.now(), cost):
                    return booked(slice_, len(costs))
                return await self._slowly(held, costs, max_wait)
        elif desk is None:
            desk = self._desk()
        desk.notice(key)
        return await self.strict.acquire(key, costs, max_wait)

    def take(self, key: str, costs: Sequence[float]) -> bool:
        """Take the costs from this process's slice if they are there: `acquire` for those in a hurry."""
        desk = self._desks.get(asyncio._get_running_loop())
        held = None if desk is None else desk.held.get(key)
        cost = costs[0]
        return (
            held is not None
            and cost > 0
            and (len(costs) == 1 or costs.count(cost) == len(costs))
            and held.slice.quick(clock.now(), cost)
        )

    async def peek(self, key: str, costs: Sequence[float]) -> Decision:
        """Return what an acquire that cannot wait would find, here or in the store. Raises StoreUnavailableError."""
        decision = await self.strict.peek(key, costs)
        held = self._desk().held.get(key)
        if held is None:
            return decision
        held.slice.held(clock.now())
        loose = held.slice.loose
        remaining = tuple(
            min(rule.burst, left + loose) for rule, left in zip(self._rules, decision.remaining, strict=True)
        )
        if max(costs) <= loose:
            return Decision(True, 0.0, 0, remaining)
        return decision._replace(remaining=remaining)

    async def refund(self, key: str, costs: Sequence[float], stamp: object = None) -> None:
        """Give units back: what came from a slice, as its stamp says, to the slice as long as that lasts.

        Raises StoreUnavailableError.
        """
        if isinstance(stamp, Lot):
            held = self._desk().held.get(key)
            if held is not None:
                held.slice.give_back(clock.now(), costs[0], stamp)
        else:
            await self.strict.refund(key, costs, stamp)

    async def reset(self, key: str) -> None:
        """Forget the key, and the slice of this process; those of others end by themselves.

        Raises StoreUnavailableError.
        """
        self._desk().drop(key)
        await self.strict.reset(key)

    async def observe(self, key: str, said: Sequence[Observation]) -> None:
        """Lower what remains to what somebody else says, here too if that is nothing. Raises StoreUnavailableError."""
        if any(each is not None and each[0] <= 0 for each in said):
            self._desk().drop(key)
        await self.strict.observe(key, said)

    async def drain(self, key: str, seconds: Sequence[float | None]) -> None:
        """Leave nothing, here and in the store; slices of others end by themselves. Raises StoreUnavailableError."""
        self._desk().drop(key)
        await self.strict.drain(key, seconds)

    async def reserve(self, key: str, id: str, costs: Sequence[float], max_wait: float, ttl: float) -> Reserved:
        """Book in the store, never from a slice, and remember the id. Raises StoreUnavailableError."""
        return await self.strict.reserve(key, id, costs, max_wait, ttl)

    async def settle(self, key: str, id: str, actual: Sequence[float | None], ttl: float, known: bool = False) -> bool:
        """Charge the difference to what was reserved, or give it back. Raises StoreUnavailableError."""
        return await self.strict.settle(key, id, actual, ttl, known)

    def charge(self, key: str, costs: Sequence[float]) -> None:
        """Charge what was admitted elsewhere."""
        self.strict.charge(key, costs)

    def void(self, key: str, id: str, ttl: float) -> None:
        """Settle an id with nothing, as soon as it can be done."""
        self.strict.void(key, id, ttl)

    def keys(self, key: str) -> list[str]:
        """Return the Redis keys of one key, the ledger of its slices last: all in one slot."""
        keys = self.strict.keys(key)
        return [*keys, f"{keys[0]}:slices"]

    def give_back(self) -> None:
        """Give all slices of the running event loop back, and begin anew."""
        desk = self._desks.pop(asyncio.get_running_loop(), None)
        if desk is not None:
            desk.close()

    async def _slowly(self, held: Held, costs: Sequence[float], max_wait: float) -> Booking:
        for rule, cost in zip(self._rules, costs, strict=True):
            check_cost(rule, cost)
        booking = held.decide(costs[0], max_wait)
        if isinstance(booking, asyncio.Future):
            booking = await held.answer(booking, costs[0])
        if booking is not None:
            return booking
        booking = await self.strict.acquire(held.key, costs, max_wait)
        if not booking.decision.allowed:
            held.refused(costs[0], booking.decision)
        return booking

    def _make_terms(self, surplus: float) -> Terms:
        rules = self._rules
        numbers = [each for rule in rules for each in (rule.limit, rule.period * MICROSECONDS, rule.burst)]
        return Terms(
            script_of("_prelude", rules[0].algorithm, "_limits", "leased"),
            ("lease", "", *map(text, numbers), text(surplus)),
            self.keys,
            min(rule.period / rule.limit for rule in rules),
            len(rules),
        )

    def _desk(self) -> Desk:
        loop = asyncio.get_running_loop()
        desk = self._desks.get(loop)
        if desk is None:
            for gone in [each for each in self._desks if each and each.is_closed()]:
                del self._desks[gone]
            desk = self._desks[loop] = Desk(self._terms, self._link())
        return desk
