"""A retry budget in Redis: every process spends from a slice of its own, and tells the bank ten times a second.

    budget = store.budget("search", TokenBudget)
    await budget.stock(budget.transient_cost)      # one round trip, if the slice is too small and the bank is not empty
    budget.reserve(now, budget.transient_cost)

The record and its rules are in `machines/token_bank` and `scripts/budget.lua`, what a process has and has to tell in
`machines/budget_slice`. Here is the time: when to exchange, how much to ask for, and what to do without the store.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from resilience._validate import check_number
from resilience.errors import StoreUnavailableError
from resilience.machines.budget_slice import BudgetSlice
from resilience.machines.rate_limiter.rule import text
from resilience.machines.retry_budget import TokenBudget
from resilience.machines.token_bank import Answer
from resilience_redis.bulkheads.permits import escaped
from resilience_redis.connection.replies import as_text, error_of, logger
from resilience_redis.scripts import script_of

if TYPE_CHECKING:
    from resilience_redis.link import Link

INTERVAL = 0.1
"""Seconds between two exchanges, while there is something to tell."""

QUIET = 10
"""Intervals without a retry after which the slice goes back; to a full bank, successes are told so much less often."""

LIFETIME = 10.0
"""Seconds after which the slice of a process that is not heard of is written off."""

VERSION = "v1"
"""Of the layout of records; a new layout gets new keys."""


class RedisBudget:
    """A `TokenBudget` of all processes together: capacity, costs and deposit are those of `rule`.

    While the store is away each process has its share: what it had and its part of what was left in the bank, up to
    the capacity divided by the number of live processes.
    """

    def __init__(self, name: str, rule: TokenBudget, prefix: str, link: Callable[[], Link]) -> None:
        self.capacity: float = rule.capacity
        self.transient_cost: float = rule.transient_cost
        self.throttled_cost: float = rule.throttled_cost
        self.deposit: float = rule.deposit
        self._link = link
        base = f"{{{prefix}:{escaped(name)}}}:budget:{VERSION}"
        self.keys: tuple[str, str] = (base, f"{base}:slices")
        self._script = script_of("_prelude", "budget")
        self._settings = (text(self.capacity), str(round(LIFETIME * 1e6)))
        self._id = f"{uuid.uuid4().hex}.1"
        self._part = BudgetSlice(LIFETIME)
        self._local: TokenBudget | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._flight: asyncio.Future[None] | None = None
        self._closing = False
        self._waiting: dict[object, float] = {}  # the costs that callers wait for
        self._recent = self._ahead = 0.0  # spent in this interval, and in the one before
        self._quiet = 0
        self._empty_until = 0.0

    @property
    def degraded(self) -> bool:
        """Whether the store did not answer last time."""
        return self._local is not None

    def reserve(self, now: float, cost: float) -> bool:
        """Take `cost` from what this process has at hand. Raises ValueError unless it is positive and finite."""
        check_number("cost", cost, above=0)
        if self._local is None:
            taken = self._part.spend(cost)
        else:
            taken = self._local.reserve(now, cost)
            self._part.spent += cost if taken else 0.0
        if taken:
            self._recent += cost
            self._kick()
        return taken

    def cancel(self, now: float, cost: float, reserved_at: float) -> None:
        """Pay back the cost of a retry that never ran."""
        check_number("cost", cost, above=0)
        self._earn(now, cost)

    def settle(self, now: float, succeeded: bool, cost: float = 0.0) -> None:
        """A call is over. Success after a retry repays its `cost`, success at once pays the deposit."""
        if succeeded:
            self._earn(now, cost or self.deposit)

    def available(self, now: float) -> float:
        """What this process has at hand, and what the bank had when it last answered."""
        if self._local is not None:
            return self._local.available(now)
        return self._part.tokens + (self.capacity if self._part.left is None else self._part.left)

    async def stock(self, cost: float) -> None:
        """Have `cost` at hand if the bank can spare it. Raises what is wrong with the store, unless it is away."""
        self._link()  # raises where there is no asyncio
        loop = asyncio.get_running_loop()
        self._part.expire(loop.time())
        caller = object()
        for _ in range(2):  # the exchange that is under way may not have asked for it
            if self._local is not None or self._part.tokens >= cost or loop.time() < self._empty_until:
                return
            self._kick()
            self._waiting[caller] = cost
            try:
                await asyncio.shield(self._flight or self._exchange(loop))
            finally:
                self._waiting.pop(caller, None)

    async def aclose(self) -> None:
        """Put what is at hand into the bank; the store is being closed in this event loop."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._closing = True
        for _ in range(2):  # one exchange may be under way
            if not self._part.idle:
                await asyncio.shield(self._flight or self._exchange(loop))

    def _earn(self, now: float, amount: float) -> None:
        self._part.earn(amount)
        if self._local is not None:
            self._local.cancel(now, amount, now)
        if self._timer is None or asyncio._get_running_loop() is not self._loop:
            self._kick()

    def _kick(self) -> None:
        """See to it that the bank is told soon."""
        loop = asyncio._get_running_loop()
        if loop is None or (self._timer is not None and loop is self._loop):
            return
        self._enter(loop)
        self._timer = loop.call_later(INTERVAL, self._tick, loop)

    def _enter(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:  # what was under way in another loop is repeated in this one
            self._loop, self._flight, self._timer = loop, None, None
            self._waiting.clear()
            self._link().members.join()
        self._closing = False

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:
            return
        self._timer = None
        part = self._part
        part.expire(loop.time())
        self._quiet = 0 if self._recent else self._quiet + 1
        self._ahead, self._recent = self._recent, 0.0
        if part.idle and self._local is None:
            return
        told_soon = self._quiet % QUIET and not (part.tokens or part.spent or part.pending)
        if self._flight is None and not (told_soon and self._full):
            self._exchange(loop)
        self._timer = loop.call_later(INTERVAL, self._tick, loop)

    @property
    def _full(self) -> bool:
        return self._local is None and self._part.left is not None and self._part.left >= self.capacity

    def _exchange(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """Tell the bank, and ask for what is needed; the future is done when it has answered, or cannot."""
        part, link = self._part, self._link()
        ahead = min(self._ahead, self.capacity / (2 * link.members.count))
        need = max(0.0, sum(self._waiting.values()) + ahead - part.tokens)
        least = max(0.0, min(self._waiting.values()) - part.tokens) if self._waiting else 0.0
        surrender = self._closing or self._local is not None or (self._quiet >= QUIET and not self._waiting)
        message = part.message(0.0, 0.0, True) if surrender else part.message(need, least)
        flight = self._flight = loop.create_future()
        arguments = ("exchange", "", *self._settings, self._id, *map(text, message))
        reply = link.post(self._script, self.keys, arguments)
        reply.add_done_callback(partial(self._answered, flight, loop.time()))
        return flight

    def _answered(self, flight: asyncio.Future[None], sent: float, reply: asyncio.Future[Any]) -> None:
        if flight is not self._flight or self._loop is None:
            return
        self._flight = None
        error = error_of(reply)
        if error is None:
            self._local = None
            self._part.answered(sent, Answer(*map(float, as_text(reply.result()).split())))
            if self._waiting and self._part.tokens < min(self._waiting.values()):
                self._empty_until = self._loop.time() + INTERVAL
        elif isinstance(error, StoreUnavailableError):
            self._leave_store()
        elif self._waiting:
            flight.set_exception(error)
            return
        else:
            logger.error("a retry budget cannot be shared: %s", error)
        flight.set_result(None)

    def _leave_store(self) -> None:
        """Go on with the share of this process."""
        if self._local is not None:
            return
        count, part = self._link().members.count, self._part
        share = max(self.capacity / count, self.transient_cost, self.throttled_cost)
        left = self.capacity if part.left is None else part.left
        self._local = TokenBudget(
            share, transient_cost=self.transient_cost, throttled_cost=self.throttled_cost, deposit=self.deposit
        )
        self._local.tokens = min(share, part.tokens + left / count)
        part.tokens = 0.0
