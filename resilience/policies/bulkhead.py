"""Bulkhead: at most so many calls at once, so that one slow dependency cannot take everything.

bulkhead = Bulkhead(50, queue=100, max_wait=1.0)
async with bulkhead.guard():
    ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any, cast

import anyio

from .. import clock
from .._deadlines import current_asyncio_task
from .._parking import Waiter, park, wake
from .._rejecting import Mode, RejectingGuard
from .._validate import positive, whole
from ..call import Call
from ..errors import BulkheadFullError
from ..events import BulkheadResized, Listener, PermitAwaited
from ..machines.bulkhead import BulkheadMachine, Ticket
from ..store import MemoryStore, Store, named


class Permit:
    """What a call holds: `weight` permits of `machine`, or nothing if it passed in shadow mode."""

    __slots__ = ("machine", "weight")

    def __init__(self, machine: BulkheadMachine | None, weight: int) -> None:
        self.machine: BulkheadMachine | None = machine
        self.weight: int = weight


_NO_PERMIT = Permit(None, 0)


class Bulkhead(RejectingGuard[Permit]):
    """A semaphore with a bounded first-come-first-served queue.

    `limit` permits in all; `queue` calls may wait for one (default 0: refuse at once), each at most `max_wait`
    seconds (default: until its deadline). `weight`, a whole number or a function of the call, is how many
    permits a call takes (default 1); a heavy call at the head of the queue is never overtaken. With `keyed`
    (default) calls with a key have `limit` permits per key, for about `max_keys` keys.

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
        self._drains: set[anyio.Event] = set()
        name = named(name, self.name, store)
        self._machines = (store or MemoryStore()).bulkheads(name, limit, queue, max_keys)

    @property
    def limit(self) -> int:
        """Permits in all (per key, if keyed)."""
        return self._limit

    def in_use(self, key: str = "") -> int:
        """Permits taken now."""
        machine = self._machines.find(self.partition(key))
        return machine.in_use if machine else 0

    def waiting(self, key: str = "") -> int:
        """Calls in the queue now."""
        machine = self._machines.find(self.partition(key))
        return machine.waiting if machine else 0

    def resize(self, limit: int) -> None:
        """Change the limit now. Growing admits waiting calls; shrinking takes effect as permits come back."""
        self._limit = whole("limit", limit, 1)
        self._machines.make = lambda: BulkheadMachine(limit, self.queue)
        for machine in self._machines.values():
            _wake(machine.resize(limit))
        if self.listeners:
            self.emit(BulkheadResized("", self.name, limit))

    async def drain(self) -> None:
        """Refuse new calls, and return when every call inside and in the queue is done. Cannot be undone."""

        def drained() -> BulkheadMachine:
            machine = BulkheadMachine(self._limit, self.queue)
            machine.drain()
            return machine

        self._machines.make = drained
        for machine in self._machines.values():
            machine.drain()
        while any(not machine.drained for machine in self._machines.values()):
            returned = anyio.Event()
            self._drains.add(returned)
            try:
                await returned.wait()
            finally:
                self._drains.discard(returned)

    def enter(self, call: Call) -> Permit | None:
        """Take the permits if they are free and nobody waits."""
        if self._mode == "off":
            return _NO_PERMIT
        machine, weight = self._machines.get(self.key_of(call)), self._weight_of(call)
        if machine.try_acquire(weight):
            return Permit(machine, weight)
        if self._mode == "shadow" or machine.draining or machine.waiting >= self.queue:
            return self._refuse(call, machine)
        return None

    async def wait(self, call: Call) -> Permit:
        """Queue for the permits, first come first served."""
        machine, weight = self._machines.get(self.key_of(call)), self._weight_of(call)
        since = clock.now()
        waiter = park(current_asyncio_task())
        ticket = machine.enqueue(weight, waiter)
        if ticket is None:
            return self._refuse(call, machine)
        try:
            if not ticket.granted:
                with _no_limit if self.max_wait is None else anyio.move_on_after(self.max_wait):
                    await waiter
        except BaseException:
            self._returned(machine.abandon(ticket))
            raise
        if not ticket.granted:
            self._returned(machine.abandon(ticket))
            return self._refuse(call, machine)
        if self.listeners:
            self.emit(PermitAwaited(call.operation.name, self.name, self.key_of(call), clock.now() - since))
        return Permit(machine, weight)

    def leave(self, call: Call, token: Permit, result: Any, error: BaseException | None) -> None:
        """Give the permits back, whatever happened."""
        if token.machine is not None:
            self.give_back(token.machine, token.weight)

    def machine(self, key: str) -> BulkheadMachine:
        """The permits of a key."""
        return self._machines.get(key)

    def give_back(self, machine: BulkheadMachine, weight: int) -> None:
        """Return permits, and wake who gets them."""
        self._returned(machine.release(weight))

    def _weight_of(self, call: Call) -> int:
        return self.weight if isinstance(self.weight, int) else self.weight(call)

    def _refuse(self, call: Call, machine: BulkheadMachine) -> Permit:
        state = "is being drained" if machine.draining else f"is full: {machine.in_use} of {machine.limit} in use"
        self.reject(call, BulkheadFullError(f"{self.name} {state}, {machine.waiting} waiting", policy=self.name))
        return _NO_PERMIT

    def _returned(self, granted: Iterable[Ticket]) -> None:
        _wake(granted)
        for drain in self._drains:
            drain.set()


_no_limit = nullcontext()


def _wake(granted: Iterable[Ticket]) -> None:
    for ticket in granted:
        wake(cast(Waiter, ticket.waiter))
