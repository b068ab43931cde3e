"""RateLimiter: no more than so many calls in a time, here or across all processes.

    limiter = RateLimiter("100/s", burst=20)
    limiter = RateLimiter("10/s", "1000/h", name="search", store=RedisStore.from_url("redis://localhost"))

The limit answers *when* a call may go, in one decision; the caller waits exactly that long, in line.
"""

from __future__ import annotations

import math
from asyncio import Task
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from .. import clock
from .._outage import OnOutage, Outage
from .._rejecting import Mode
from .._validate import at_most, not_negative, one_of, positive
from ..call import Call, Cost
from ..errors import RateLimitedError
from ..events import Listener, PermitAwaited
from ..limits._accounted import AccountedGuard
from ..limits._limits import Limits
from ..limits._line import Line, Place
from ..limits._lines import make_line
from ..limits._local_share import LocalShare
from ..limits._shared_limit import SharedLimit
from ..limits.limit import Limit
from ..limits.limiter_state import LimiterSpec, LocalLimiter
from ..limits.rates import Algorithm
from ..machines.rate_limiter import Decision, Rule, check_costs
from ..running._deadlines import current_asyncio_task, deadline_of
from ..store import MemoryStore, Store, named

Shared: TypeAlias = Literal["strict", "leased"]
"""How a limit is held in a shared store: one round trip a call, exact; or slices debited ahead, nearly so."""


class RateLimiter(AccountedGuard):
    """Admit calls at the given rates; all of several rates must agree, and are charged all or none.

    A rate is a string (`"100/s"`, `"10/minute"`), a rule object or a `Limit`. `algorithm` is `gcra` (default),
    `token_bucket`, `fixed_window`, `sliding_window`, `sliding_log` or `leaky_bucket`; `burst`, for the first two, is
    how many units may go at once after a rest (default: the limit).

    A call costs `cost` units, a number or a function of the call; by default the cost given with `bind` or `guard`,
    1 without. Limits of several dimensions take a mapping: each is charged the cost in its dimension, and takes no
    part where that is left out or 0; a plain number then counts `requests`.

    A call that may not go now waits, first come first served, at most `max_wait` seconds (default: as long as its
    deadline allows, 0: not at all) and is refused at once if that cannot suffice. Refusals cost nothing, cancelled
    waits are refunded. With `keyed` (default) calls with a key have the limits per key, but for those that are
    `Limit(keyed=False)`.

    With a shared `store`, one round trip decides, waiting included. If the store does not answer, `on_outage`
    decides: `local` limits in this process at `local_share` of the rates (default: one part for each live process),
    `open` admits, `closed` refuses. Reservations are remembered for `reservation_ttl` seconds (default 600).

    Raises RateLimitedError with `retry_after` and `limit`, the one that binds; ValueError for a cost that is not
    positive, above the burst, or of an unknown dimension.
    """

    def __init__(
        self,
        *rates: str | Rule[Any] | Limit,
        burst: float | None = None,
        algorithm: Algorithm = "gcra",
        cost: Cost | Callable[[Call], Cost] | None = None,
        max_wait: float | None = None,
        mode: Mode = "enforce",
        keyed: bool = True,
        max_keys: int = 1_000_000,
        store: Store | None = None,
        shared: Shared = "strict",
        surplus: float = 0.05,
        on_outage: OnOutage = "local",
        local_share: float | None = None,
        reservation_ttl: float = 600.0,
        name: str | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.limits: Limits = Limits(rates, algorithm, burst)
        # Limits that all hold for all keys together are those of a limiter that is not keyed.
        keyed = keyed and len(self.limits.common) < len(rates)
        super().__init__(name, listeners, mode, keyed)
        self.rules: tuple[Rule[Any], ...] = self.limits.rules
        self.max_wait: float = math.inf if max_wait is None else not_negative("max_wait", max_wait)
        self.outage: Outage = Outage(self, on_outage)
        if local_share is not None:
            at_most("local_share", positive("local_share", local_share), 1)
        self._ttl = positive("reservation_ttl", reservation_ttl)
        self._price = cost if callable(cost) else None
        self._constant = None if cost is None or callable(cost) else self._checked(cost)
        one_of("shared", shared, ("strict", "leased"))
        self.surplus: float = at_most("surplus", positive("surplus", surplus), 1)
        leased, common = surplus if shared == "leased" else None, self.limits.common if keyed else ()
        if leased is not None and common:
            raise ValueError("shared must be 'strict' where some limits hold for each key and some for all together")
        spec = LimiterSpec(named(name, self.name, store), self.rules, max_keys, leased, common)
        state = (store or MemoryStore()).limiter(spec)
        self.remote: SharedLimit | None = None
        if isinstance(state, LocalLimiter):
            self.line: Line = make_line(state, self.rules)
        else:
            share = LocalShare(self.rules, local_share, max_keys, common)
            self.remote = SharedLimit(state, share, self.outage)
            self.line = share.line

    @property
    def constant_cost(self) -> float | None:
        """What every call costs that does not bring a cost of its own; None if it is worked out for each."""
        if self._price is not None:
            return None
        return 1 if self._constant is None else self._constant[0]

    @property
    def degraded(self) -> bool:
        """Whether the shared store did not answer last time."""
        return self.outage.degraded

    def enter(self, call: Call) -> bool | None:
        """Take the cost if it may go now. Refuses at once what would wait too long."""
        if self._mode == "off":
            return True
        if self.remote is not None:
            return None
        return self._try_line(call, self.key_of(call), self.costs_of(call))

    async def wait(self, call: Call) -> bool:
        """Ask a shared store, or wait in line."""
        if self.remote is None:
            place = self.stand(call, self.costs_of(call))
            try:
                decision: Decision = place.decision or await place.waiter
            except BaseException:
                self.line.abandon(place)
                raise
            return self.let_in(call, decision, place.since)
        since, patience = clock.now(), 0.0 if self._mode == "shadow" else self._patience(call)
        try:
            decision = await self.remote.take(call, self.key_of(call), self.costs_of(call), patience)
        except RateLimitedError as refusal:
            self.reject(call, refusal)
            return True
        if decision.allowed and decision.wait <= 0.0:
            return True  # the round trip to a store is no waiting for a permit
        return self.let_in(call, decision, since)

    def stand(self, call: Call, costs: tuple[float, ...]) -> Place:
        """The first part of `wait`, for a limit in this process: take a place in the line."""
        task = current_asyncio_task()
        return self.line.join(self.key_of(call), costs, self._patience(call, task), task)

    def let_in(self, call: Call, decision: Decision, since: float) -> bool:
        """The last part, when there is a decision: report how long it took, or refuse."""
        if not decision.allowed:
            return self.refuse(call, decision)
        if self.listeners and (waited := clock.now() - since) > 0.0:
            self.emit(PermitAwaited(call.operation.name, self.name, self.key_of(call), waited))
        return True

    def leave(self, call: Call, token: bool, result: Any, error: BaseException | None) -> None:
        """Nothing to give back: a call that ran has used its units."""

    def _try_line(self, call: Call, key: str, costs: tuple[float, ...]) -> bool | None:
        if self.line.try_take(key, costs):
            return True
        if self._mode == "shadow" or not self.max_wait:
            return self.refuse(call, self.line.peek(key, costs))
        return None

    def costs_of(self, call: Call) -> tuple[float, ...]:
        """What a call is charged by each limit."""
        constant, price = self._constant, self._price
        if constant is not None:
            return constant
        return self.limits.costs(call.cost if price is None else price(call))

    def _checked(self, cost: Cost) -> tuple[float, ...]:
        """A cost that is the same for every call."""
        if not isinstance(cost, Mapping):
            positive("cost", cost)
        costs = self.limits.costs(cost)
        check_costs(self.rules, costs)
        return costs

    def _patience(self, call: Call, task: Task[Any] | None = None) -> float:
        """Seconds that a call may wait: the option, cut to its deadline."""
        deadline = deadline_of(call, task)
        if deadline == math.inf:
            return self.max_wait
        return min(self.max_wait, deadline - clock.now())

    def refuse(self, call: Call, decision: Decision) -> bool:
        """Count and report a refusal; raises RateLimitedError unless in shadow mode."""
        binding = decision.binding
        self.reject(
            call,
            RateLimitedError(
                f"{self.name}: {self.limits.says(binding)}, try again in {decision.wait:.3g} s",
                policy=self.name,
                retry_after=decision.wait,
                limit=self.limits.all[binding].label,
            ),
        )
        return True
