"""The account of a rate limiter in Redis: reservations by id, and what others have counted.

    ledger = RedisLedger(LimiterSpec("tokens", (GCRA(20_000, 60.0),)), ...)
    await ledger.reserve("tenant-7", "order-1", (1800,), 2.0, 600.0)
    await ledger.settle("tenant-7", "order-1", (1234,), 600.0)

One script call each; the record of an id is a key beside the limits, which expires after it was used last.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from resilience.limits.limiter_state import Observation, Reserved
from resilience.machines.rate_limiter.rule import text
from resilience_redis.connection.batch import patience
from resilience_redis.connection.replies import as_text, complain
from resilience_redis.connection.target import MICROSECONDS, Target
from resilience_redis.limits.limiter import VERSION, RedisLimiter, escaped
from resilience_redis.scripts import ledger_for

if TYPE_CHECKING:
    from collections.abc import Sequence


class RedisLedger(RedisLimiter):
    """`RemoteLedger` on a Redis server."""

    async def observe(self, key: str, said: Sequence[Observation]) -> None:
        """Lower what remains to what somebody else says. Raises StoreUnavailableError."""
        arguments: list[str] = []
        for each in said:
            arguments += ("", "") if each is None else (text(each[0]), text(each[1] * MICROSECONDS))
        await self._lane().send(self._account(key), "observe", tuple(arguments))

    async def drain(self, key: str, seconds: Sequence[float | None]) -> None:
        """Leave nothing, and let nothing go for so many seconds. Raises StoreUnavailableError."""
        arguments = tuple("" if each is None else text(each * MICROSECONDS) for each in seconds)
        await self._lane().send(self._account(key), "drain", arguments)

    async def reserve(self, key: str, id: str, costs: Sequence[float], max_wait: float, ttl: float) -> Reserved:
        """Book in one step, and remember the id. Raises StoreUnavailableError: it may have been carried out.

        If the caller is cancelled it is carried out all the same, and then given back.
        """
        units = self._costs(*costs)
        sent = self._lane().send(self._account(key, id), "reserve", (*units, patience(max_wait), _span(ttl)))
        try:
            reply = as_text(await sent)
        except asyncio.CancelledError:
            self.void(key, id, ttl)
            raise
        answer, _, charged = reply.partition(";")
        decision = self._target(key).booking(answer).decision
        if not decision.allowed:
            return Reserved(decision)
        settled, *each = charged.split(",")
        return Reserved(decision, tuple(map(float, each)), settled == "1")

    async def settle(self, key: str, id: str, actual: Sequence[float | None], ttl: float, known: bool = False) -> bool:
        """Charge the difference or give it back, once. Raises StoreUnavailableError: it may have been carried out."""
        return bool(await self._settle(key, id, actual, ttl, known))

    def charge(self, key: str, costs: Sequence[float]) -> None:
        """Charge what was admitted elsewhere, as soon as it can be done; nobody waits for it."""
        sent = self._lane().send(self._account(key), "charge", tuple(map(text, costs)))
        sent.add_done_callback(complain)

    def void(self, key: str, id: str, ttl: float) -> None:
        """Settle an id with nothing, as soon as it can be done."""
        self._settle(key, id, (0.0,) * len(self._spec.rules), ttl, False).add_done_callback(complain)

    def _settle(
        self, key: str, id: str, actual: Sequence[float | None], ttl: float, known: bool
    ) -> asyncio.Future[Any]:
        amounts = ("" if each is None else text(each) for each in actual)
        return self._lane().send(self._account(key, id), "settle", (_span(ttl), f"{known:d}", *amounts))

    def _account(self, key: str, id: str = "") -> Target:
        """Return what the ledger script is told of a key, and of one reservation there."""
        target = self._target(key)
        keys = list(target.keys)
        if id:
            own = f":{escaped(key)}" if self._mixed else ""
            keys.append(f"{keys[0].partition('}')[0]}}}:reserved:{VERSION}:{escaped(id)}{own}")
        return Target(ledger_for(self._spec.rules[0].algorithm), keys, self._rules, target.identity)


def _span(seconds: float) -> str:
    return text(seconds * MICROSECONDS)
