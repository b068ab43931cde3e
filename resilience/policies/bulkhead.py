"""Bulkhead: at most so many calls at once, so that one slow dependency cannot take everything.

bulkhead = Bulkhead(50, queue=100, max_wait=1.0)
async with bulkhead.guard():
    ...
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import clock
from .._outage import OnOutage, Outage
from .._rejecting import Mode, RejectingGuard
from .._validate import check_number, one_of, positive, whole
from ..call import Call
from ..errors import BulkheadFullError
from ..events import BulkheadResized, Listener, PermitAwaited
from ..machines.bulkhead import BulkheadMachine, check_weight
from ..partitions import Partitions
from ..permits._local_permits import LocalPermits
from ..permits._shared_permits import Permit, SharedPermit, SharedPermits
from ..permits.permits_state import BulkheadSpec, Occupancy, OnLost
from ..store import MemoryStore, Store, named, permits_of

_NO_PERMIT = Permit(None, 0)


class Bulkhead(RejectingGuard[Permit]):
    """A semaphore with a bounded first-come-first-served queue.

    `limit` permits in all; `queue` calls may wait for one (default 0: refuse at once), each at most `max_wait`
    seconds (default: until its deadline). `weight`, a whole number or a function of the call, is how many
    permits a call takes (default 1); a heavy call at the head of the queue is never overtaken. With `keyed`
    (default) calls with a key have `limit` permits per key, for about `max_keys` keys.

    With a shared `store`, limit and queue are those of all processes together. A permit is then lent for `lease`
    seconds (default 10, at least 0.1) and renewed while the call runs; what a crashed process held is free again
    when its leases end. If a lease cannot be renewed in time, `on_lost` decides: `ignore` (default) lets the call go
    on, `cancel` ends it with PermitLostError before anybody else gets the permit. `fencing_token()` is a number that
    grows with every permit. If the store does not answer, `on_outage` decides about new calls: `local` admits this
    process's share of the limit, `open` all, `closed` none.

    Raises BulkheadFullError when there is no room, ValueError if a weight is larger than the limit. A permit is
    always given back: on success, error and cancellation.
    """

    def __init__(
        self,
        limit: int,
        *,
        queue: int = 0,
        max_wait: float | None = None,
        weight: int | Callable[[Call], int] = 1,
        mode: Mode = "enforce",
        keyed: bool = True,
        max_keys: int = 10_000,
        store: Store | None = None,
        lease: float = 10.0,
        on_lost: OnLost = "ignore",
        on_outage: OnOutage = "local",
        name: str | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        super().__init__(name, listeners, mode, keyed)
        self._limit = whole("limit", limit, 1)
        self.queue: int = whole("queue", queue, 0)
        self.max_wait: float | None = None if max_wait is None else positive("max_wait", max_wait)
        if not callable(weight) and whole("weight", weight, 1) > limit:
            raise ValueError(f"weight must be at most the limit of {limit}, got {weight}")
        self.weight: int | Callable[[Call], int] = weight
        check_number("lease", lease, least=0.1)
        one_of("on_lost", on_lost, ("ignore", "cancel"))
        self.outage: Outage = Outage(self, on_outage)
        spec = BulkheadSpec(named(name, self.name, store), limit, queue, max_keys, lease, on_lost)
        state = (store or MemoryStore()).bulkheads(spec)
        self.remote: SharedPermits | None = None
        if isinstance(state, Partitions):
            self._local = LocalPermits(state)
        else:
            self._local = LocalPermits(permits_of(spec))
            self.remote = SharedPermits(state, self._local, self.outage, on_lost)
        self._machines = self._local.machines

    @property
    def limit(self) -> int:
        """Permits in all (per key, if keyed)."""
        return self._limit

    @property
    def degraded(self) -> bool:
        """Whether the shared store did not answer last time."""
        return self.outage.degraded

    def in_use(self, key: str = "") -> int:
        """Permits taken now, by this process."""
        machine = self._machines.find(self.partition(key))
        return machine.in_use if machine else 0

    def waiting(self, key: str = "") -> int:
        """Calls of this process in the queue now."""
        key = self.partition(key)
        machine = self._machines.find(key)
        waiting = machine.waiting if machine else 0
        return waiting if self.remote is None else waiting + self.remote.asking[key]

    async def peek(self, key: str = "") -> Occupancy:
        """What is in use and waiting now, in all processes. Raises StoreUnavailableError."""
        if self.remote is None:
            return Occupancy(self.in_use(key), self.waiting(key))
        return await self.remote.permits.peek(self.partition(key))

    def resize(self, limit: int) -> None:
        """Change the limit now. Growing admits waiting calls; shrinking takes effect as permits come back.

        With a shared store it is the limit by which this process asks; others keep theirs.
        """
        self._limit = whole("limit", limit, 1)
        if self.remote is not None:
            self.remote.permits.resize(limit)
        else:
            self._local.resize(limit, self.queue)
        if self.listeners:
            self.emit(BulkheadResized("", self.name, limit))

    async def drain(self) -> None:
        """Refuse new calls, and return when every call inside and in the queue is done. Cannot be undone.

        Of this process, that is; a shared store goes on serving others.
        """
        remote = self.remote
        await self._local.drain(self._limit, self.queue, lambda: remote is not None and remote.asking)

    def enter(self, call: Call) -> Permit | None:
        """Take the permits if they are free and nobody waits."""
        if self._mode == "off":
            return _NO_PERMIT
        machine = self._machines.get(self.key_of(call))
        if self.remote is None:
            weight = self._weight_of(call)
            if machine.try_acquire(weight):
                return Permit(machine, weight)
            if self._mode == "shadow" or machine.waiting >= self.queue:
                return self._refuse(call, machine)
        return self._refuse(call, machine) if machine.draining else None

    async def wait(self, call: Call) -> Permit:
        """Queue for the permits, first come first served; or ask a shared store."""
        key, weight, since = self.key_of(call), self._weight_of(call), clock.now()
        if self.remote is not None:
            return await self._ask(self.remote, call, key, check_weight(weight, self._limit))
        machine = self._machines.get(key)
        if not await self._local.queue(machine, weight, self.max_wait):
            return self._refuse(call, machine)
        self._awaited(call, key, since)
        return Permit(machine, weight)

    def leave(self, call: Call, token: Permit, result: Any, error: BaseException | None) -> None:
        """Give the permits back, whatever happened. Raises PermitLostError if that is why the call was cancelled."""
        if token.machine is not None:
            self.give_back(token.machine, token.weight)
            if self.remote is not None and isinstance(token, SharedPermit):
                self.remote.end(call, token, error)

    def suspend(self, call: Call, token: Permit) -> Permit:
        """The result lives on, in whatever task: no longer is there a call to cancel."""
        if isinstance(token, SharedPermit):
            token.detach(None)
        return token

    def machine(self, key: str) -> BulkheadMachine:
        """The permits of a key."""
        return self._machines.get(key)

    def recent(self, key: str) -> BulkheadMachine | None:
        """The permits of a key that was used of late."""
        return self._machines.recent(key)

    def give_back(self, machine: BulkheadMachine, weight: int) -> None:
        """Return permits, and wake who gets them."""
        self._local.give_back(machine, weight)

    async def _ask(self, remote: SharedPermits, call: Call, key: str, weight: int) -> Permit:
        since = clock.now()
        try:
            answer = await remote.take(call, key, weight, 0.0 if self._mode == "shadow" else self.max_wait)
        except BulkheadFullError as refusal:
            self.reject(call, refusal)
            return _NO_PERMIT
        if isinstance(answer, Occupancy):
            return self._refuse(call, self._machines.get(key), answer)
        if answer.grant.queued:
            self._awaited(call, key, since)
        return answer

    def _weight_of(self, call: Call) -> int:
        return self.weight if isinstance(self.weight, int) else self.weight(call)

    def _awaited(self, call: Call, key: str, since: float) -> None:
        if self.listeners:
            self.emit(PermitAwaited(call.operation.name, self.name, key, clock.now() - since))

    def _refuse(self, call: Call, machine: BulkheadMachine, found: Occupancy | None = None) -> Permit:
        in_use, waiting = found or (machine.in_use, machine.waiting)
        state = "is being drained" if machine.draining else f"is full: {in_use} of {self._limit} in use"
        self.reject(call, BulkheadFullError(f"{self.name} {state}, {waiting} waiting", policy=self.name))
        return _NO_PERMIT
