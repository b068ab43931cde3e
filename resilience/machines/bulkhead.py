"""A bulkhead: at most `limit` units of work at once, a bounded queue behind them, first come first served.

    machine = BulkheadMachine(limit=2, queue=1)
    machine.try_acquire()                  # True
    machine.try_acquire()                  # True
    machine.try_acquire()                  # False: full
    ticket = machine.enqueue(waiter=event)  # the shell waits for its event
    for granted in machine.release():      # [ticket]: its permit is already taken
        ...                                # wake granted.waiter

The life of a ticket:

    queued  --release, resize, abandon of another-->  granted  --the caller is done: release(weight)-->  over
    queued  --abandon-->  over (skipped, nothing taken)
    granted --abandon-->  over (its permit goes to whoever is next)

Invariants: a permit is in exactly one place (free, or with one holder); whoever waits at the head is next,
however heavy; nobody overtakes the queue.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from resilience._validate import check_integer

if TYPE_CHECKING:
    from collections.abc import Sequence


class Ticket:
    """A place in the queue. `waiter` is the shell's own (an event, a future); the machine ignores it."""

    __slots__ = ("abandoned", "granted", "waiter", "weight")

    def __init__(self, weight: int, waiter: object | None = None) -> None:
        self.weight: int = weight
        self.waiter: object | None = waiter
        self.granted: bool = False
        self.abandoned: bool = False


class BulkheadMachine:
    """Counts permits and keeps the queue. Never waits: it says whom to wake.

    `limit` is the number of units at work at once, `queue` how many may wait (0 by default). A piece of work
    weighs 1 unit unless told otherwise.

    Raises TypeError or ValueError unless `limit` is an integer of at least 1 and `queue` one of at least 0.
    """

    __slots__ = ("_ceiling", "_tickets", "draining", "in_use", "limit", "queue", "waiting")

    def __init__(self, limit: int, queue: int = 0) -> None:
        check_integer("limit", limit, 1)
        check_integer("queue", queue, 0)
        self.limit: int = limit
        self.queue: int = queue
        self.in_use: int = 0
        self.waiting: int = 0
        self.draining: bool = False
        # The live tickets in order, with abandoned ones in between: removing those at once would be O(n)
        # each.
        self._tickets: deque[Ticket] = deque()
        # What newcomers may fill up to: the limit, or 0 while somebody waits or while draining. It makes
        # trying to acquire a single comparison.
        self._ceiling = limit

    def try_acquire(self, weight: int = 1) -> bool:
        """Take `weight` units if they are free and nobody waits for them.

        Raises TypeError or ValueError unless `weight` is an integer between 1 and the limit.
        """
        if weight != 1:
            check_weight(weight, self.limit)
        in_use = self.in_use + weight
        if in_use > self._ceiling:
            return False
        self.in_use = in_use
        return True

    def occupy(self, weight: int) -> None:
        """Count `weight` units that somebody else has granted; may go beyond the limit."""
        self.in_use += weight

    def enqueue(self, weight: int = 1, waiter: object | None = None) -> Ticket | None:
        """Join the queue, or None if it is full or the bulkhead is draining.

        If there is room the ticket comes back granted: look at `granted` before waiting. Raises as
        `try_acquire` does.
        """
        if self.try_acquire(weight):
            ticket = Ticket(weight, waiter)
            ticket.granted = True
            return ticket
        if self.draining or self.waiting >= self.queue:
            return None
        ticket = Ticket(weight, waiter)
        self._tickets.append(ticket)
        self.waiting += 1
        self._ceiling = 0
        return ticket

    def release(self, weight: int = 1) -> Sequence[Ticket]:
        """Give `weight` units back. Returns the tickets that this granted, in order: wake their waiters.

        Raises ValueError if less than `weight` is in use: somebody released twice.
        """
        in_use = self.in_use - weight
        if in_use < 0 or weight < 1:
            raise ValueError(f"weight must be between 1 and what is in use ({self.in_use}), got {weight!r}")
        self.in_use = in_use
        return self._grant() if self.waiting else ()

    def abandon(self, ticket: Ticket) -> Sequence[Ticket]:
        """The waiter of `ticket` is gone (cancelled, timed out). Returns the tickets granted in its stead.

        Whatever it had is passed on, a permit granted but not yet noticed included. Abandoning twice does
        nothing. A caller that has begun its work releases instead.
        """
        if ticket.abandoned:
            return ()
        ticket.abandoned = True
        if ticket.granted:
            return self.release(ticket.weight)
        self.waiting -= 1
        if len(self._tickets) > 2 * self.waiting + 32:
            # Behind a head that waits for long, dead tickets would pile up: sweep when they are the majority.
            self._tickets = deque(t for t in self._tickets if not t.abandoned)
        # A heavy head that leaves may have been all that kept lighter ones waiting.
        return self._grant()

    def resize(self, limit: int) -> Sequence[Ticket]:
        """Change the limit. Returns the tickets granted by the new room.

        Lowering it takes nothing away from current holders; what they return is not handed out until the use
        is below the new limit. A ticket that has become heavier than the limit is served alone.
        Raises TypeError or ValueError unless `limit` is an integer of at least 1.
        """
        check_integer("limit", limit, 1)
        self.limit = limit
        return self._grant()

    def drain(self) -> None:
        """Refuse everything new from now on. Whoever is already queued is still served."""
        self.draining = True
        self._ceiling = 0

    @property
    def drained(self) -> bool:
        """Draining, with nobody inside and nobody waiting."""
        return self.draining and self.in_use == 0 and self.waiting == 0

    def _grant(self) -> Sequence[Ticket]:
        """Grant from the head as long as it fits, and let newcomers in again once nobody waits."""
        tickets = self._tickets
        granted: list[Ticket] = []
        while tickets:
            head = tickets[0]
            if not head.abandoned:
                # Alone it always fits: only a lowered limit can make a ticket heavier than the limit.
                if self.in_use and self.in_use + head.weight > self.limit:
                    break
                self.in_use += head.weight
                self.waiting -= 1
                head.granted = True
                granted.append(head)
            tickets.popleft()
        self._ceiling = 0 if self.waiting or self.draining else self.limit
        return granted


def check_weight(weight: int, limit: int) -> int:
    """Return `weight`. Raises TypeError or ValueError unless it is an integer between 1 and the limit."""
    check_integer("weight", weight, 1)
    if weight > limit:
        raise ValueError(f"weight must be at most the limit ({limit}), got {weight!r}")
    return weight
