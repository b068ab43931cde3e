"""The permits of a bulkhead in this process: machines by key, the waiting for them, and the end of it all.

permits = LocalPermits(permits_of(spec))
if await permits.queue(permits.machines.get("eu"), weight=1, max_wait=None):
    ...
    permits.give_back(machine, 1)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import cast

import anyio

from ..machines.bulkhead import BulkheadMachine, Ticket
from ..partitions import Partitions
from ..running._deadlines import current_asyncio_task
from ..running._parking import Waiter, park, wake

_no_limit = nullcontext()


class LocalPermits:
    """Waits and wakes, on either event loop, as the machines say."""

    def __init__(self, machines: Partitions[BulkheadMachine]) -> None:
        self.machines: Partitions[BulkheadMachine] = machines
        self._drains: set[anyio.Event] = set()

    async def queue(self, machine: BulkheadMachine, weight: int, max_wait: float | None) -> bool:
        """Take permits, first come first served, waiting at most `max_wait` seconds; False if there are none."""
        waiter = park(current_asyncio_task())
        ticket = machine.enqueue(weight, waiter)
        if ticket is None:
            return False
        try:
            if not ticket.granted:
                with _no_limit if max_wait is None else anyio.move_on_after(max_wait):
                    await waiter
        except BaseException:
            self.changed(machine.abandon(ticket))
            raise
        if not ticket.granted:
            self.changed(machine.abandon(ticket))
        return ticket.granted

    def give_back(self, machine: BulkheadMachine, weight: int) -> None:
        """Return permits, and wake who gets them."""
        self.changed(machine.release(weight))

    def resize(self, limit: int, queue: int) -> None:
        """Change the limit of all keys."""
        self.machines.make = lambda: BulkheadMachine(limit, queue)
        for machine in self.machines.values():
            self.changed(machine.resize(limit))

    async def drain(self, limit: int, queue: int, busy: Callable[[], object]) -> None:
        """Refuse new calls, and return when nobody is inside or waiting, nor `busy` is true."""

        def drained() -> BulkheadMachine:
            machine = BulkheadMachine(limit, queue)
            machine.drain()
            return machine

        self.machines.make = drained
        for machine in self.machines.values():
            machine.drain()
        while any(not machine.drained for machine in self.machines.values()) or busy():
            returned = anyio.Event()
            self._drains.add(returned)
            try:
                await returned.wait()
            finally:
                self._drains.discard(returned)

    def changed(self, granted: Iterable[Ticket] = ()) -> None:
        """Wake those who were granted permits, and whoever waits for the end."""
        for ticket in granted:
            wake(cast(Waiter, ticket.waiter))
        for drain in self._drains:
            drain.set()
