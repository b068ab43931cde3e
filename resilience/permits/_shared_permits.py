"""The way of a bulkhead to permits that are held in a store elsewhere.

While a call holds one, its fencing token is at hand: a number that is larger with every grant. Whatever the call
writes to can refuse those who come with a smaller one than it has seen: they have lost their permit and do not know.
"""

from __future__ import annotations

from collections import Counter
from contextvars import ContextVar

from .. import clock
from .._outage import Outage
from ..call import Call
from ..errors import BulkheadFullError, PermitLostError, StoreUnavailableError
from ..events import PermitLost
from ..machines.bulkhead import BulkheadMachine
from ..policy import Policy
from ..running._recall import Recall, recall
from ._local_permits import LocalPermits
from .permits_state import Grant, Occupancy, OnLost, RemotePermits

_token: ContextVar[int | None] = ContextVar("resilience_fencing_token", default=None)


class Permit:
    """What a call holds: `weight` permits of `machine`, or nothing if it passed in shadow mode."""

    __slots__ = ("machine", "weight")

    def __init__(self, machine: BulkheadMachine | None, weight: int) -> None:
        self.machine: BulkheadMachine | None = machine
        self.weight: int = weight


def fencing_token() -> int | None:
    """The fencing token of the innermost shared permit that the current call holds; None if it holds none.

    Larger than those of all earlier grants of that bulkhead and key. Also None while the store is away.
    """
    return _token.get()


class SharedPermit(Permit):
    """What a call holds of a store: the grant, and what has to be taken back with it."""

    __slots__ = ("_attached", "_before", "_recall", "grant", "outer")

    def __init__(
        self, machine: BulkheadMachine, weight: int, grant: Grant, outer: int | None, recalled: Recall | None
    ) -> None:
        super().__init__(machine, weight)
        self.grant: Grant = grant
        self.outer: int | None = outer
        """The fencing token that the call had before."""
        self._recall = recalled
        self._before = _token.get()
        self._attached = True
        _token.set(grant.token)

    def lost(self, call: Call, policy: Policy) -> None:
        """Another call may have the permit now."""
        if policy.listeners:
            cancelled = self._attached and self._recall is not None
            policy.emit(PermitLost(call.operation.name, policy.name, self.grant.key, cancelled))
        if self._attached and self._recall is not None:
            self._recall.fire()

    def detach(self, error: BaseException | None) -> bool:
        """The call has returned or raised; True if `error` is a cancellation because the permit was lost."""
        if not self._attached:
            return False
        self._attached = False
        _token.set(self._before)
        return self._recall is not None and self._recall.disarm(error)


class SharedPermits:
    """Asks the store; `outage` says what to do when it is away.

    What this process holds is counted in its own machines too, so that it knows what is left of its share then.
    """

    def __init__(self, permits: RemotePermits, local: LocalPermits, outage: Outage, on_lost: OnLost) -> None:
        self.permits: RemotePermits = permits
        self.asking: Counter[str] = Counter()
        """Calls of this process that ask the store or wait there, by key."""
        self._local = local
        self._outage = outage
        self._on_lost = on_lost

    async def take(self, call: Call, key: str, weight: int, max_wait: float | None) -> SharedPermit | Occupancy:
        """Permits for a call, or what is in use. Raises BulkheadFullError if nothing may run without the store."""
        since, outage = clock.now(), self._outage
        try:
            answer = await self._ask(key, weight, max_wait)
        except StoreUnavailableError as error:
            outage.began(call.operation.name, error)
            if outage.behaviour == "closed":
                message = f"{outage.policy.name}: the shared store does not answer"
                raise BulkheadFullError(message, policy=outage.policy.name) from error
            left = None if max_wait is None else max(0.0, since + max_wait - clock.now())
            return await self._without_store(call, key, weight, left)
        outage.ended(call.operation.name)
        if isinstance(answer, Occupancy):
            return answer
        machine = self._local.machines.get(key)
        machine.occupy(weight)
        return self._begin(call, machine, weight, answer)

    def end(self, call: Call, permit: SharedPermit, error: BaseException | None) -> None:
        """Give the grant back. Raises PermitLostError if the call was cancelled because it was lost."""
        self.permits.release(permit.grant)
        call.fencing_token = permit.outer
        if permit.detach(error):
            name, operation = self._outage.policy.name, call.operation.name
            message = f"{name}: the permit of {operation} could not be renewed"
            raise PermitLostError(message, policy=name, key=permit.grant.key) from error

    async def _ask(self, key: str, weight: int, max_wait: float | None) -> Grant | Occupancy:
        self.asking[key] += 1
        try:
            return await self.permits.acquire(key, weight, max_wait)
        finally:
            self.asking[key] -= 1
            if not self.asking[key]:
                del self.asking[key]
            self._local.changed()

    async def _without_store(
        self, call: Call, key: str, weight: int, max_wait: float | None
    ) -> SharedPermit | Occupancy:
        """Within the share of this process, or freely. The store hears of the call when it is back."""
        machine, units, queued = self._local.machines.get(key), weight, False
        if self._outage.behaviour == "open":
            machine.occupy(units)
        else:
            share = self.permits.share()
            units = min(weight, share)  # or the heavy ones would never run
            self._local.changed(machine.resize(share))
            if not machine.try_acquire(units):
                queued = max_wait != 0 and await self._local.queue(machine, units, max_wait)
                if not queued:
                    return Occupancy(machine.in_use, machine.waiting)
        self._outage.admitted += 1
        grant = self.permits.adopt(key, weight)
        grant.queued = queued
        return self._begin(call, machine, units, grant)

    def _begin(self, call: Call, machine: BulkheadMachine, units: int, grant: Grant) -> SharedPermit:
        """Let the call run; `units` of the machine are given back with the grant."""
        permit = SharedPermit(
            machine, units, grant, call.fencing_token, recall() if self._on_lost == "cancel" else None
        )
        call.fencing_token = grant.token
        grant.on_lost(lambda: permit.lost(call, self._outage.policy))
        return permit
