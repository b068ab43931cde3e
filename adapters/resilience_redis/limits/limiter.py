"""A rate limiter whose state is in Redis: one script call per acquire, however long the wait.

    limiter = store.limiter(LimiterSpec("search", (GCRA(100, 1.0),)))
    booking = await limiter.acquire("tenant-7", (1,), max_wait=2.0)

The decision is made by the twin of the Python machine, with the server's clock, over all limits at once.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

from resilience.limits.limiter_state import Booking, Fleet, LimiterSpec
from resilience.machines.rate_limiter.decide import Decision
from resilience.machines.rate_limiter.rule import check_costs, text
from resilience_redis.connection.replies import as_text
from resilience_redis.connection.target import MICROSECONDS, Target
from resilience_redis.scripts import script_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from resilience_redis.connection.lane import Lane

VERSION = "v1"
"""Of the layout of states; a new layout gets new keys."""

_RESERVED = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D", ":": "%3A"})


def escaped(part: str) -> str:
    """Return a part of a key without the characters that structure keys."""
    return part.translate(_RESERVED)


class RedisLimiter:
    """`RemoteLimiter` on a Redis server."""

    def __init__(
        self,
        spec: LimiterSpec,
        prefix: str,
        lanes: Mapping[asyncio.AbstractEventLoop | None, Lane],
        lane: Callable[[], Lane],
        fleet: Callable[[], Fleet | None] = lambda: None,
    ) -> None:
        if not spec.rules:
            raise ValueError("rules must have at least one rule, got none")
        algorithms = {rule.algorithm for rule in spec.rules}
        if len(algorithms) > 1:
            raise ValueError(f"rules must all be of one algorithm, got {', '.join(sorted(algorithms))}")
        algorithm = algorithms.pop()
        self._spec = spec
        self._lanes = lanes
        self._lane = lane
        self.fleet = fleet
        """The processes that share the limit."""
        self._script = script_for(algorithm)
        self._tag = f"{prefix}:{escaped(spec.name)}:"
        # Limits that hold for all keys together live in one slot with those of each key: the name's.
        self._mixed = 0 < len(spec.common) < len(spec.rules)
        periods = [text(rule.period * MICROSECONDS) for rule in spec.rules]
        # A limit is known by its period, and its place among those of the same: others may come and go. Not by its
        # limit and burst, which may change; in states a period is the measure of time and cannot.
        places = [periods[:index].count(each) for index, each in enumerate(periods)]
        self._suffixes = [f":{algorithm}:{VERSION}:{n}:{each}" for n, each in zip(places, periods, strict=True)]
        self._rules = tuple(
            each
            for rule, period in zip(spec.rules, periods, strict=True)
            for each in (text(rule.limit), period, text(rule.burst))
        )
        self._common = frozenset(spec.common) if self._mixed else frozenset[int]()
        self._target = functools.lru_cache(maxsize=4096)(self._make_target)
        self._costs = functools.lru_cache(maxsize=128)(self._render)

    async def acquire(self, key: str, costs: Sequence[float], max_wait: float) -> Booking:
        """Decide and book in one step. Raises StoreUnavailableError when Redis is away."""
        if max_wait != max_wait:
            raise ValueError("max_wait must be a number, got nan")
        # The running loop, or None, without the price of an exception that nobody raises.
        lane = self._lanes.get(asyncio._get_running_loop()) or self._lane()
        target, units = self._target(key), self._costs(*costs)
        booked = lane.book(target, units, max_wait)
        try:
            answer = await booked
            return answer if isinstance(answer, Booking) else target.read(answer)
        except asyncio.CancelledError:
            lane.unbook(target, units, booked)
            raise

    async def peek(self, key: str, costs: Sequence[float]) -> Decision:
        """Return what an acquire that cannot wait would find. Raises StoreUnavailableError."""
        target = self._target(key)
        return target.booking(as_text(await self._lane().send(target, "peek", self._costs(*costs)))).decision

    async def refund(self, key: str, costs: Sequence[float], stamp: object = None) -> None:
        """Give units back; with a stamp only where nothing was booked after it. Raises StoreUnavailableError."""
        target = self._target(key)
        await self._lane().send(target, "refund", self._costs(*costs) + target.marks(stamp))

    async def reset(self, key: str) -> None:
        """Forget the key; without one, also what holds for all keys together. Raises StoreUnavailableError."""
        target = self._target(key)
        if key and self._mixed:
            own = [each for index, each in enumerate(target.keys) if index not in self._common]
            target = Target(self._script, own, (), target.identity)
        await self._lane().send(target, "reset", ())

    def keys(self, key: str) -> list[str]:
        """Return the Redis keys of one key: all in one slot, whatever the text of the key."""
        if not self._mixed:
            tag = f"{{{self._tag}{escaped(key)}}}"
            return [tag + suffix for suffix in self._suffixes]
        own = f":{escaped(key)}"
        return [
            f"{{{self._tag}}}{suffix}{'' if index in self._common else own}"
            for index, suffix in enumerate(self._suffixes)
        ]

    def _make_target(self, key: str) -> Target:
        keys = self.keys(key)
        # Requests that share a limit keep their order, whatever their keys.
        return Target(self._script, keys, self._rules, keys[min(self._common)] if self._mixed else keys[0])

    def _render(self, *costs: float) -> tuple[str, ...]:
        check_costs(self._spec.rules, costs)
        for rule, cost in zip(self._spec.rules, costs, strict=True):
            if cost and cost * rule.period / rule.limit * MICROSECONDS < 1:
                raise ValueError(f"cost must be worth at least a microsecond of the limit, got {cost!r}")
        return tuple(map(text, costs))
