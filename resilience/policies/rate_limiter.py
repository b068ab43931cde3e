"""RateLimiter: no more than so many calls in a time, here or across all processes.

    limiter = RateLimiter("100/s", burst=20)
    limiter = RateLimiter("10/s", "1000/h", name="search", store=RedisStore.from_url("redis://localhost"))

The limit answers *when* a call may go, in one decision; the caller waits exactly that long, in line.
"""

from __future__ import annotations

import math
from asyncio import Task
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

from .. import clock
from .._deadlines import current_asyncio_task, deadline_of
from .._line import Line
from .._outage import OnOutage, Outage
from .._rejecting import Mode, RejectingGuard
from .._shared_limit import SharedLimit
from .._validate import at_most, not_negative, one_of, positive
from ..call import Call
from ..errors import RateLimitedError
from ..events import Listener, PermitAwaited
from ..limiter_state import LimiterSpec, LocalLimiter
from ..machines.rate_limiter import Decision, Rule
from ..rates import Algorithm, make_rule
from ..store import MemoryStore, Store, named

Shared: TypeAlias = Literal["strict", "leased"]
"""How a limit is held in a shared store: one round trip a call, exact; or slices debited ahead, nearly so."""


class RateLimiter(RejectingGuard[bool]):
    """Admit calls at the given rates; all of several rates must agree, and are charged all or none.

    A rate is a string (`"100/s"`, `"10/minute"`) or a rule object. `algorithm` is `gcra` (default),
    `token_bucket`, `fixed_window`, `sliding_window`, `sliding_log` or `leaky_bucket`; `burst`, for the first two, is
    how many units may go at once after a rest (default: the limit). A call costs `cost` units, a number or a
    function of the call; by default the cost given with `bind` or `guard`, 1 without.

    A call that may not go now waits, first come first served, at most `max_wait` seconds (default: as long as its
    deadline allows, 0: not at all) and is refused at once if that cannot suffice. Refusals cost nothing, cancelled
    waits are refunded. With `keyed` (default) calls with a key have the limit per key.

    With a shared `store`, one round trip decides, waiting included. If the store does not answer, `on_outage`
    decides: `local` limits in this process at `local_share` (default 1.0) of the rates, `open` admits, `closed`
    refuses.

    Raises RateLimitedError with `retry_after`; ValueError for a cost that is not positive or above the burst.
    """

    def __init__(
        self,
        *rates: str | Rule[Any],
        burst: float | None = None,
        algorithm: Algorithm = "gcra",
        cost: float | Callable[[Call], float] | None = None,
        max_wait: float | None = None,
        mode: Mode = "enforce",
        keyed: bool = True,
        max_keys: int = 1_000_000,
        store: Store | None = None,
        shared: Shared = "strict",
        surplus: float = 0.05,
        on_outage: OnOutage = "local",
        local_share: float = 1.0,
        name: str | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        super().__init__(name, listeners, mode, keyed)
        if not rates:
            raise ValueError('rates must hold at least one rate, such as "100/s"')
        self.rules: tuple[Rule[Any], ...] = tuple(make_rule(rate, algorithm, burst) for rate in rates)
        if len({rule.algorithm for rule in self.rules}) > 1:
            raise ValueError("rates must all have the same algorithm: they are decided in one step")
        self.max_wait: float = math.inf if max_wait is None else not_negative("max_wait", max_wait)
        self.outage: Outage = Outage(self, on_outage)
        share = at_most("local_share", positive("local_share", local_share), 1)
        self._cost = cost if cost is None or callable(cost) else positive("cost", cost)
        one_of("shared", shared, ("strict", "leased"))
        self.surplus: float = at_most("surplus", positive("surplus", surplus), 1)
        leased = surplus if shared == "leased" else None
        spec = LimiterSpec(named(name, self.name, store), self.rules, max_keys, leased)
        state = (store or MemoryStore()).limiter(spec)
        self.remote: SharedLimit | None = None
        if isinstance(state, LocalLimiter):
            self.line: Line = Line(state, self.rules)
        else:
            self.remote = SharedLimit(state, self.rules, share, max_keys, self.outage)
            self.line = self.remote.line

    @property
    def constant_cost(self) -> float | None:
        """What every call costs that does not bring a cost of its own; None if it is worked out for each."""
        if self._cost is None:
            return 1
        return None if callable(self._cost) else self._cost

    @property
    def degraded(self) -> bool:
        """Whether the shared store did not answer last time."""
        return self.outage.degraded

    async def peek(self, *, key: str = "", cost: float = 1) -> Decision:
        """What a call of that cost would be told now; changes nothing.

        Raises StoreUnavailableError if a shared store does not answer.
        """
        costs = (cost,) * len(self.rules)
        if self.remote is None:
            return self.line.limiter.peek(self.partition(key), costs)
        return await self.remote.limiter.peek(self.partition(key), costs)

    async def refund(self, *, key: str = "", cost: float = 1) -> None:
        """Give units back that were taken and not used. Raises StoreUnavailableError, see `peek`."""
        costs = (cost,) * len(self.rules)
        if self.remote is None:
            self.line.limiter.refund(self.partition(key), costs)
        else:
            await self.remote.limiter.refund(self.partition(key), costs)

    async def reset(self, *, key: str = "") -> None:
        """Give a key its whole limit back. Raises StoreUnavailableError, see `peek`."""
        if self.remote is None:
            self.line.limiter.reset(self.partition(key))
        else:
            await self.remote.limiter.reset(self.partition(key))

    def enter(self, call: Call) -> bool | None:
        """Take the cost if it may go now. Refuses at once what would wait too long."""
        if self._mode == "off":
            return True
        if self.remote is not None:
            return None
        return self._try_line(call, self.key_of(call), self._costs(call))

    async def wait(self, call: Call) -> bool:
        """Ask a shared store, or wait in line."""
        key, costs, since = self.key_of(call), self._costs(call), clock.now()
        if self.remote is None:
            task = current_asyncio_task()
            decision = await self.line.take(key, costs, self._patience(call, task), task)
        else:
            patience = 0.0 if self._mode == "shadow" else self._patience(call)
            try:
                decision = await self.remote.take(call, key, costs, patience)
            except RateLimitedError as refusal:
                self.reject(call, refusal)
                return True
        if not decision.allowed:
            return self._refuse(call, decision)
        # The round trip to a store is no waiting for a permit.
        waited = clock.now() - since if self.remote is None or decision.wait > 0.0 else 0.0
        if self.listeners and waited > 0.0:
            self.emit(PermitAwaited(call.operation.name, self.name, key, waited))
        return True

    def leave(self, call: Call, token: bool, result: Any, error: BaseException | None) -> None:
        """Nothing to give back: a call that ran has used its units."""

    def _try_line(self, call: Call, key: str, costs: tuple[float, ...]) -> bool | None:
        if self.line.try_take(key, costs):
            return True
        if self._mode == "shadow" or not self.max_wait:
            return self._refuse(call, self.line.peek(key, costs))
        return None

    def _costs(self, call: Call) -> tuple[float, ...]:
        cost = self._cost
        if cost is None:
            cost = call.cost
        elif callable(cost):
            cost = cost(call)
        return (cost,) * len(self.rules)

    def _patience(self, call: Call, task: Task[Any] | None = None) -> float:
        """Seconds that a call may wait: the option, cut to its deadline."""
        return min(self.max_wait, deadline_of(call, task) - clock.now())

    def _refuse(self, call: Call, decision: Decision) -> bool:
        rule = self.rules[decision.binding]
        self.reject(
            call,
            RateLimitedError(
                f"{self.name}: more than {rule.limit:g} per {rule.period:g} s, try again in {decision.wait:.3g} s",
                policy=self.name,
                retry_after=decision.wait,
            ),
        )
        return True
