"""What a rate limiter offers beyond admitting calls: a look, corrections, reservations."""

from __future__ import annotations

import uuid
from abc import abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from .. import clock
from .._rejecting import RejectingGuard
from .._validate import not_negative
from ..call import Call, Cost
from ..errors import RateLimitedError, StoreUnavailableError
from ..events import PermitAwaited
from ..machines.rate_limiter import Decision, check_costs
from ..running._deadlines import deadline_of
from ._account import Account, Settle, settle_nowhere
from ._limits import Limits
from ._line import Line
from ._shared_limit import FREE, SharedLimit
from .limiter_state import Observation, Reserved
from .reservation import Reservation

_NOTHING: tuple[Reserved, Settle] = Reserved(FREE), settle_nowhere
"""Reserved on nobody's account."""


class AccountedGuard(RejectingGuard[bool]):
    """A guard with limits, whose state is in `line`, or with `remote` in a shared store."""

    limits: Limits
    max_wait: float
    remote: SharedLimit | None
    line: Line
    _ttl: float
    _account: Account | None = None

    @abstractmethod
    def costs_of(self, call: Call) -> tuple[float, ...]:
        """What a call is charged by each limit."""

    @abstractmethod
    def refuse(self, call: Call, decision: Decision) -> bool:
        """Count and report a refusal; raises RateLimitedError unless in shadow mode."""

    async def peek(self, *, key: str = "", cost: Cost = 1) -> Decision:
        """What a call of that cost would be told now; changes nothing.

        Raises StoreUnavailableError if a shared store does not answer.
        """
        key, costs = self.partition(key), self.limits.costs(cost)
        if self.remote is None:
            return self.line.limiter.peek(key, costs)
        return await self.remote.limiter.peek(key, costs)

    async def refund(self, *, key: str = "", cost: Cost = 1) -> None:
        """Give units back that were taken and not used. Raises StoreUnavailableError, see `peek`."""
        key, costs = self.partition(key), self.limits.costs(cost)
        if self.remote is None:
            self.line.limiter.refund(key, costs)
        else:
            await self.remote.limiter.refund(key, costs)

    async def reset(self, *, key: str = "") -> None:
        """Give a key its whole limit back; without a key also what holds for all keys together.

        Raises StoreUnavailableError, see `peek`.
        """
        if self.remote is None:
            self.line.limiter.reset(self.partition(key))
        else:
            await self.remote.limiter.reset(self.partition(key))

    async def observe(
        self, *, key: str = "", remaining: float, reset_after: float = 0.0, limit: str | None = None
    ) -> None:
        """Take over what the server says of a limit: `remaining` units, and more in `reset_after` seconds.

        `limit` is the name or the dimension of the limit meant, needed if there are several. What is left here is
        only ever lowered, never raised: calls of ours may be on their way that the server has not counted. If
        nothing remains, nothing goes before `reset_after`. Calls that wait already keep their turn.

        Raises ValueError for negative numbers and unknown limits, StoreUnavailableError if a shared store does not
        answer (this process then observes alone), TypeError if it keeps no account.
        """
        seen: Observation = (not_negative("remaining", remaining), not_negative("reset_after", reset_after))
        place = self.limits.index(limit)
        said = [seen if index == place else None for index in range(len(self.limits.all))]
        key, account = self.partition(key), self._open_account()
        try:
            if account.remote is not None:
                await account.remote.observe(key, said)
        except StoreUnavailableError:
            account.local.observe(key, said)
            raise
        if account.remote is None:
            account.local.observe(key, said)

    async def drain(self, *, key: str = "", retry_after: float = 0.0, limit: str | None = None) -> None:
        """Let nothing go for `retry_after` seconds: the server has refused a call, with a 429 perhaps.

        Then a bucket fills from empty, and a window or log has the room that it had. With 0, the default, all that
        is left is gone, and comes back as the algorithm has it. `limit` names the limit meant; by default every
        call is stopped, by the limit of each dimension that is soonest full again, one of the key's own if it has
        any. Calls that wait already keep their turn. Raises as `observe` does.
        """
        seconds = not_negative("retry_after", retry_after)
        places = self.limits.quickest() if limit is None else {self.limits.index(limit)}
        due = [seconds if index in places else None for index in range(len(self.limits.all))]
        key, account = self.partition(key), self._open_account()
        try:
            if account.remote is not None:
                await account.remote.drain(key, due)
        except StoreUnavailableError:
            account.local.drain(key, due)
            raise
        if account.remote is None:
            account.local.drain(key, due)

    async def reserve(
        self, *, key: str = "", cost: Cost | None = None, id: str | None = None, max_wait: float | None = None
    ) -> Reservation:
        """Charge an estimate, waiting for it as a call would; settle it when the real cost is known.

        `cost` and `max_wait` are those of the limiter by default. The same `id` (default: a random one) is charged
        once, however often it is reserved, and remembered for `reservation_ttl` seconds. Who never settles stays
        charged as reserved. Under a shared store's outage the limiter's `on_outage` decides.

        Raises RateLimitedError as a call does, ValueError for impossible costs and an empty id, TypeError if the
        store keeps no account.
        """
        if id is not None and (not isinstance(id, str) or not id):
            raise ValueError(f"id must be a non-empty string, got {id!r}")
        longest = self.max_wait if max_wait is None else not_negative("max_wait", max_wait)
        call = Call(self.operation, _nothing, key=key, cost=1 if cost is None else cost)
        costs = self.costs_of(call) if cost is None else self.limits.costs(cost)
        check_costs(self.limits.rules, costs)
        return await self._reserve(call, id or uuid.uuid4().hex, costs, longest)

    async def _reserve(self, call: Call, id: str, costs: tuple[float, ...], longest: float) -> Reservation:
        key, since = self.key_of(call), clock.now()
        reserved, settle = _NOTHING
        if self.mode != "off":
            patience = 0.0 if self.mode == "shadow" else min(longest, deadline_of(call, None) - since)
            try:
                reserved, settle = await self._open_account().reserve(call, key, id, costs, patience)
            except RateLimitedError as refusal:
                self.reject(call, refusal)
        if not reserved.decision.allowed:
            self.refuse(call, reserved.decision)
            reserved, settle = _NOTHING
        waited = clock.now() - since
        if self.listeners and waited > 0.0 and (self.remote is None or reserved.decision.wait > 0.0):
            self.emit(PermitAwaited(call.operation.name, self.name, key, waited))

        async def settle_as(actual: Cost) -> bool:
            return await settle(key, id, self._actual(actual))

        charged = reserved.costs or (0.0,) * len(costs)
        return Reservation(id, call.key, self.limits.cost(charged), settle_as, reserved.settled)

    @asynccontextmanager
    async def reservation(
        self, *, key: str = "", cost: Cost | None = None, id: str | None = None, max_wait: float | None = None
    ) -> AsyncGenerator[Reservation]:
        """Reserve around a block: `async with limiter.reservation(cost=1800) as held: ...; held.actual = 1234`.

        See `reserve` and `Reservation`.
        """
        async with await self.reserve(key=key, cost=cost, id=id, max_wait=max_wait) as held:
            yield held

    async def settle(self, id: str, *, actual: Cost, key: str = "", known: bool = False) -> bool:
        """Settle a reservation of which only the id is at hand; returns whether this settled it.

        An id that was never reserved, or whose reservation is still on its way, is charged in full, and the
        reservation nothing if it comes later. After `reservation_ttl` seconds a reservation is forgotten and looks
        the same: say `known=True` if there was one for sure, and it is not charged twice but stays as it was.

        Raises as `Reservation.settle` does, and TypeError if the store keeps no account.
        """
        return await self._open_account().settle(self.partition(key), id, self._actual(actual), known)

    def _actual(self, actual: Cost) -> Sequence[float | None]:
        costs = self.limits.actual(actual)
        for cost in costs:
            if cost is not None:
                not_negative("actual", cost)
        return costs

    def _open_account(self) -> Account:
        """The account, made when it is first needed: not every store keeps one."""
        if self._account is None:
            self._account = Account(self.line, self.remote, self._ttl)
        return self._account


def _nothing() -> None:
    """Stand in for the function of a call that is made elsewhere."""
