"""Slices of a limit that processes debit ahead: who holds how much, and how much more anybody may take.

A holder takes a slice in one step and serves from it without asking; units are debited from the limit before they
are used. With no more to go by, whatever is held could go at once, on top of what the limit itself allows. So the
ledger keeps, for each limit,

    units in the bucket + units in all slices <= burst + surplus * limit

at every moment, the future included, and therefore in any window of length W no more is used than

    burst + limit / period * W + surplus * limit

A debit moves units from the bucket to a slice and changes nothing in that sum; only the refill adds to it, until
the bucket is full. So all slices together may hold `surplus * limit`, plus what the bucket will lack when the last
of them ends: little while the limit is at rest, far more under load, when slices save most. No slice is ever
prolonged: what was granted ends when it was said to end, whoever has it by then.

    ledger = SliceLedger([GCRA(1000, 1.0)], surplus=0.05)
    grant = ledger.lease(now, Request("me", serial=1, left=0, returned=0, want=40, lifetime=0.3, ahead=0.5))

The twin of `resilience_redis/scripts/leased.lua`. The unit of time is the caller's. The bound counts every debit of
the limit, those without a slice too; a reset, and a refund of units that were used, are beyond it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from resilience._validate import positive
from resilience.machines.rate_limiter.decide import longest_wait
from resilience.machines.rate_limiter.rule import Rule

ALGORITHMS = ("gcra", "token_bucket")
"""Those with a bucket: for the others a slice taken in one window and used in the next is no small surplus."""

LEAST = 2
"""A slice of one unit is dearer than asking for the unit."""

INTEREST = 4
"""Whoever wants a slice and got none keeps its place among the others for so many lifetimes."""

POOL = "-"
"""The holder of units that were given back while bookings lay ahead; they go to whoever asks next."""


class Request(NamedTuple):
    """What a holder says and wants. Units are whole; of two requests the one with the higher serial counts."""

    holder: str
    serial: int
    left: float
    """What it still holds."""
    returned: float
    """What it holds no longer and gives back."""
    want: float
    """What it would like to hold."""
    lifetime: float
    """How long it may use a slice from when all of it is valid."""
    ahead: float
    """How long it would wait for all of a slice to become valid."""


class Grant(NamedTuple):
    """What a holder gets: `loose` units of the pool, `fresh` ones of which the last is valid after `wait`."""

    loose: float
    lease: float
    """How long those may be used."""
    fresh: float
    wait: float
    others_wait: float
    """How long one unit takes for those who hold none."""
    binding: int
    """The index of the limit that makes it so long; 0 when none does."""


class Holding(NamedTuple):
    """One line of the ledger: from `until` on nothing of it may be used, and of some of it from `first` on."""

    units: float
    until: float
    want: float
    serial: float
    first: float


class _Books:
    """The ledger as one request finds it; `latest` is when the last slice ends."""

    __slots__ = ("latest", "mine", "others", "pool")

    def __init__(self, holdings: dict[str, Holding], holder: str, now: float) -> None:
        self.latest = max((each.until for each in holdings.values() if each.units > 0), default=now)
        self.mine = holdings.get(holder)
        self.pool = holdings.get(POOL)
        self.others = [each for name, each in holdings.items() if name not in (holder, POOL)]

    @property
    def pooled(self) -> float:
        return self.pool.units if self.pool else 0

    def room(self, cap: float, left: float) -> float:
        """What one slice may gain: the others keep what they hold, and what they want up to an equal share."""
        whole, takers = math.floor(cap), 1 + len(self.others)
        share = whole // takers
        if share < LEAST:  # too little for all: the first to come would starve the others
            return 0
        room = whole - left - self.pooled - sum(max(each.units, min(each.want, share)) for each in self.others)
        # What does not divide evenly is not for whoever has it already.
        return room - min(whole % takers, sum(each.want > share >= each.units for each in self.others))


class SliceLedger:
    """Hands out slices of limits that are all of one algorithm with a bucket; every limit is debited alike.

    `surplus` is the share of each limit that may go beyond it.
    """

    __slots__ = ("_surplus", "holdings", "rules", "states")

    def __init__(self, rules: Sequence[Rule[Any]], surplus: float) -> None:
        for rule in rules:
            if rule.algorithm not in ALGORITHMS:
                raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)} to be leased, got {rule.algorithm}")
        self.rules: tuple[Rule[Any], ...] = tuple(rules)
        self.states: list[Any] = [None] * len(self.rules)
        self.holdings: dict[str, Holding] = {}
        self._surplus = positive("surplus", surplus)

    def lease(self, now: float, request: Request) -> Grant | None:
        """Take back and hand out; None, and nothing done, if a later request of this holder came first."""
        known = self.holdings.get(request.holder)
        if known is not None and request.serial <= known.serial:
            return None
        self.holdings = {name: each for name, each in self.holdings.items() if each.until > now}
        books = _Books(self.holdings, request.holder, now)
        self._take_back(now, books, request.returned)
        loose = max(0, min(books.pooled, request.want - request.left))
        fresh = self._size(now, books, request, loose)
        wait, _ = self._wait(now, fresh)
        if fresh > 0:
            self.states = self._debited(now, fresh, wait)
        self._write(now, books, request, loose, fresh, wait)
        lease = books.pool.until - now if books.pool and loose > 0 else 0
        return Grant(loose, lease, fresh, wait, *self._wait(now, 1))

    def _take_back(self, now: float, books: _Books, returned: float) -> None:
        """Back into the bucket, or to whoever asks next; what is not on record any more was written off."""
        mine, pool = books.mine, books.pool
        units = min(returned, mine.units) if mine else 0
        if mine is None or units <= 0:
            return
        if self._in_debt(now):  # bookings lie ahead: units that came back could meet them
            if mine.first > now:  # else some of them may have ended
                until = min(pool.until, mine.first) if pool else mine.first
                books.pool = Holding(books.pooled + units, until, 0, 0, until)
        else:
            self.states = [rule.refund(state, now, units) for rule, state in zip(self.rules, self.states, strict=True)]

    def _in_debt(self, now: float) -> bool:
        """Whether bookings lie ahead: then a full bucket takes longer than filling an empty one."""
        return any(
            rule.wait(state, now, rule.capacity) > rule.capacity * rule.period / rule.limit
            for rule, state in zip(self.rules, self.states, strict=True)
        )

    def _size(self, now: float, books: _Books, request: Request, loose: float) -> float:
        fresh = self._wanted(now, request, loose)
        for _ in range(2):  # less to take may end earlier, or lack less: look once more
            room = books.room(self._cap(now, books, request, fresh), request.left)
            if fresh <= room:
                return fresh if fresh >= LEAST else 0
            fresh = max(0, room)
        cap = min(self._surplus * rule.limit for rule in self.rules)  # safe whatever the bucket will lack
        fresh = min(fresh, books.room(cap, request.left))
        return fresh if fresh >= LEAST else 0

    def _wanted(self, now: float, request: Request, loose: float) -> float:
        """As many as lie there twice over; where nothing lies, as many as come within `ahead`."""
        paired = list(zip(self.rules, self.states, strict=True))
        available = min(rule.remaining(state, now) for rule, state in paired)
        capacity = min(rule.capacity for rule in self.rules)
        fresh = max(0, min(request.want - request.left - loose, math.floor(capacity)))
        half = math.floor(available / 2)
        if half >= 1 or fresh == 0:
            return min(fresh, half)
        late = [(rule.wait(state, now, fresh) - request.ahead) * rule.limit / rule.period for rule, state in paired]
        return max(0, fresh - max(0, *map(math.ceil, late)))

    def _cap(self, now: float, books: _Books, request: Request, fresh: float) -> float:
        """What all slices together may hold: the surplus, and what the bucket will lack when the last of them ends."""
        wait, _ = self._wait(now, fresh)
        until = max(books.latest, now + wait + request.lifetime)
        cap = math.inf
        for rule, state in zip(self.rules, self._debited(now, fresh, wait), strict=True):
            cap = min(cap, self._surplus * rule.limit + (rule.capacity - rule.remaining(state, until)))
            if wait > 0:
                cap = min(cap, request.ahead * rule.limit / rule.period)
        return cap

    def _wait(self, now: float, units: float) -> tuple[float, int]:
        """How long so many units take, and which limit binds."""
        costs = (units,) * len(self.rules)
        return longest_wait(self.rules, self.states, now, costs) if units > 0 else (0.0, 0)

    def _debited(self, now: float, units: float, wait: float) -> list[Any]:
        if units <= 0:
            return self.states
        return [rule.take(state, now, units, wait) for rule, state in zip(self.rules, self.states, strict=True)]

    def _write(self, now: float, books: _Books, request: Request, loose: float, fresh: float, wait: float) -> None:
        units = request.left + loose + fresh
        if units > 0 or request.want > 0:
            first, until = _ends(now, books, request, loose, fresh, wait)
            self.holdings[request.holder] = Holding(units, until, request.want, request.serial, first)
        else:
            self.holdings.pop(request.holder, None)
        if books.pool is not None and books.pooled > loose:
            self.holdings[POOL] = books.pool._replace(units=books.pooled - loose)
        else:
            self.holdings.pop(POOL, None)


def _ends(now: float, books: _Books, request: Request, loose: float, fresh: float, wait: float) -> tuple[float, float]:
    """When the first and the last of what a holder has ends."""
    ends: list[float] = []
    if request.left > 0:
        ends += (books.mine.first, books.mine.until) if books.mine else (now, now + request.lifetime)
    if loose > 0 and books.pool is not None:
        ends.append(books.pool.until)
    if fresh > 0:
        ends.append(now + wait + request.lifetime)
    if not ends:
        ends.append(now + INTEREST * request.lifetime)
    return min(ends), max(ends)
