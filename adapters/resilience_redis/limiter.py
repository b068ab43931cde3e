"""A rate limiter whose state is in Redis: one script call per acquire, however long the wait.

    limiter = store.limiter(LimiterSpec("search", (GCRA(100, 1.0),)))
    booking = await limiter.acquire("tenant-7", (1,), max_wait=2.0)

The decision is made by the twin of the Python machine, with the server's clock, over all limits at once.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

from resilience.limiter_state import Booking, LimiterSpec
from resilience.machines.rate_limiter.decide import Decision
from resilience.machines.rate_limiter.rule import check_cost, text
from resilience_redis.scripts import script_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resilience_redis.batch import Call, Lane

MICROSECONDS = 1e6
VERSION = "v1"
"""Of the layout of states; a new layout gets new keys."""

_LONGEST = 9e15
_RESERVED = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D", ":": "%3A"})


class RedisLimiter:
    """`RemoteLimiter` on a Redis server."""

    def __init__(self, spec: LimiterSpec, prefix: str, lane: Callable[[], Lane]) -> None:
        if not spec.rules:
            raise ValueError("rules must have at least one rule, got none")
        algorithms = {rule.algorithm for rule in spec.rules}
        if len(algorithms) > 1:
            raise ValueError(f"rules must all be of one algorithm, got {', '.join(sorted(algorithms))}")
        algorithm = algorithms.pop()
        self._spec = spec
        self._lane = lane
        self._script = script_for(algorithm)
        self._tag = f"{prefix}:{spec.name.translate(_RESERVED)}:"
        periods = [text(rule.period * MICROSECONDS) for rule in spec.rules]
        self._suffixes = [f":{algorithm}:{VERSION}:{index}:{each}" for index, each in enumerate(periods)]
        self._arguments = functools.lru_cache(maxsize=128)(self._render)

    async def acquire(self, key: str, costs: Sequence[float], max_wait: float) -> Booking:
        """Decide and book in one step. Raises StoreUnavailableError when Redis is away."""
        lane = self._lane()
        patience = text(min(max_wait * MICROSECONDS, _LONGEST))
        call = self._call("acquire", key, patience, self._arguments(*costs))
        reply = await lane.ask(call, functools.partial(self._undo, lane, key, tuple(costs)))
        return self._booking(reply)

    async def peek(self, key: str, costs: Sequence[float]) -> Decision:
        """Return what an acquire that cannot wait would find. Raises StoreUnavailableError."""
        call = self._call("peek", key, "0", self._arguments(*costs))
        return self._booking(await self._lane().ask(call)).decision

    async def refund(self, key: str, costs: Sequence[float], stamp: object = None) -> None:
        """Give units back; with a stamp only if nothing was booked after it. Raises StoreUnavailableError."""
        await self._lane().ask(self._refund_call(key, costs, stamp))

    async def reset(self, key: str) -> None:
        """Forget the key. Raises StoreUnavailableError."""
        await self._lane().ask(self._call("reset", key, "0", ()))

    def keys(self, key: str) -> list[str]:
        """Return the Redis keys of one key: all in one slot, whatever the text of the key."""
        tag = f"{{{self._tag}{key.translate(_RESERVED)}}}"
        return [tag + suffix for suffix in self._suffixes]

    def _call(self, operation: str, key: str, patience: str, arguments: Sequence[str]) -> Call:
        return self._script, self.keys(key), [operation, "", patience, *arguments]

    def _refund_call(self, key: str, costs: Sequence[float], stamp: object) -> Call:
        marks: Any = [""] * len(costs) if stamp is None else stamp
        return self._call("refund", key, "0", [*self._arguments(*costs), *marks])

    def _undo(self, lane: Lane, key: str, costs: tuple[float, ...], reply: Any) -> None:
        booking = self._booking(reply)
        if booking.decision.allowed:
            lane.send_and_forget(self._refund_call(key, costs, booking.stamp))

    def _booking(self, reply: Any) -> Booking:
        count = len(self._spec.rules)
        # Rounded up to the next microsecond: never early.
        wait = math.ceil(float(reply[1])) / MICROSECONDS
        remaining = tuple(float(each) for each in reply[3 : 3 + count])
        decision = Decision(int(reply[0]) == 1, wait, int(reply[2]), remaining)
        return Booking(decision, tuple(reply[3 + count :]) or None)

    def _render(self, *costs: float) -> tuple[str, ...]:
        arguments: list[str] = []
        for rule, cost in zip(self._spec.rules, costs, strict=True):
            check_cost(rule, cost)
            if cost * rule.period / rule.limit * MICROSECONDS < 1:
                raise ValueError(f"cost must be worth at least a microsecond of the limit, got {cost!r}")
            arguments += (text(rule.limit), text(rule.period * MICROSECONDS), text(rule.burst), text(cost))
        return tuple(arguments)
