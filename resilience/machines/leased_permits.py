"""Permits of a bulkhead that many processes share: each is a lease that its holder renews while it works.

    record = LeasedPermits()
    record.acquire(now, "p1.1", weight=1, limit=1, queue=5, lease=10_000_000)   # token > 0: granted
    record.acquire(now, "p2.1", weight=1, limit=1, queue=5, lease=10_000_000)   # token 0: in the queue
    record.release(now, "p1.1", limit=1, lease=10_000_000)
    record.handed                                                               # [("p2.1", token)]: tell p2

The specification of `scripts/permits.lua`: same answers, same state. Times are whole microseconds of the server.

The life of an id, which its owner chooses and never uses again:

    unknown --acquire-->  queued  --room, and its turn-->  holds  --release-->  unknown
    unknown --acquire-->  holds
    any     --release with a mark-->  gone: what comes late for it does nothing
    any     --its lease ends-->  unknown
    unknown --renew-->  holds, if what its owner says of itself can be believed: see `renew`

A lease belongs to an id from the moment it joins the queue; being granted does not touch it. So whoever dies,
waiting or working, is out of the way one lease after its last sign of life. Every grant has a fencing token, larger
than all before it, also after the record was lost: it is the time, or one more than the last.
(Gray and Cheriton, "Leases", SOSP 1989; Burrows, "The Chubby lock service", OSDI 2006.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from resilience.machines.bulkhead import check_weight

QUEUED = 0
"""In place of a token: the id waits its turn."""

GONE = -1
"""In place of a token: refused, released or unknown."""


class Entry(NamedTuple):
    """What is known of one id; a mark that it is gone weighs nothing."""

    weight: int
    token: int


class Claim(NamedTuple):
    """What an owner says of its id: `token` of its grant, QUEUED, or GONE if it works without ever having had one."""

    id: str
    weight: int
    token: int


class Answer(NamedTuple):
    """The `token` of the grant, QUEUED or GONE (refused); units in use and ids in the queue after it."""

    token: int
    in_use: int
    waiting: int


class LeasedPermits:
    """The record of one bulkhead (and key).

    Every operation takes the limit of its caller: processes may disagree while one of them is being replaced.
    Time may run backwards; leases then keep the rest that they had.
    """

    def __init__(self) -> None:
        self.in_use: int = 0
        self.fence: int = 0
        """The last token."""
        self.place: int = 0
        """The last place in the queue."""
        self.seen: int = 0
        """The time of the last change."""
        self.entries: dict[str, Entry] = {}
        self.leases: dict[str, int] = {}
        self.queue: dict[str, int] = {}
        """Ids by place, in order."""
        self.handed: list[tuple[str, int]] = []
        """Who got a permit from the queue in the last operation, with the token: their owners have to be told."""

    def acquire(self, now: int, id: str, weight: int, limit: int, queue: int, lease: int) -> Answer:
        """Take the permits, or a place among the at most `queue` that wait, or be refused.

        Asked again for the same id it answers for what became of it. Refusals change nothing.
        Raises TypeError or ValueError unless 1 <= `weight` <= `limit`.
        """
        check_weight(weight, limit)
        self._begin(now)
        self._grant(now, limit)
        known = self.entries.get(id)
        if known is None:
            token = GONE
            if not self.queue and self.in_use + weight <= limit:
                token = self._next_token(now)
                self.in_use += weight
            elif len(self.queue) < queue:
                token = QUEUED
                self.place += 1
                self.queue[id] = self.place
            if token != GONE:
                self.entries[id] = Entry(weight, token)
                self._extend(now, id, lease)
        else:
            token = known.token
            if token != GONE:
                self._extend(now, id, lease)
        return Answer(token, self.in_use, len(self.queue))

    def renew(self, now: int, claims: Sequence[Claim], limit: int, lease: int, force: bool) -> tuple[list[int], int]:
        """Extend leases; the token of each id, and microseconds until the next lease of all ends (-1: there is none).

        An unknown id whose owner holds permits (the record was lost, or they were taken without it) becomes known
        again if there is room and nobody waits, or in any case with `force`: what runs is counted.
        """
        self._begin(now)
        for claim in claims:
            known = self.entries.get(claim.id)
            if known is None and claim.token != QUEUED:
                room = not self.queue and self.in_use + claim.weight <= limit
                if force or room:
                    self._adopt(now, claim)
            known = self.entries.get(claim.id)
            if known is not None and known.token != GONE:
                self._extend(now, claim.id, lease)
        self._grant(now, limit)
        tokens = [self.entries.get(claim.id, Entry(0, GONE)).token for claim in claims]
        return tokens, min(self.leases.values(), default=now - 1) - now

    def release(self, now: int, id: str, limit: int, lease: int, mark: bool = False) -> bool:
        """Give back what the id has, permits or a place in the queue; whether it had any.

        With `mark` the id stays gone for one `lease`: commands for it may still be on their way.
        """
        self._begin(now)
        known = self.entries.get(id)
        had = known is not None and known.token != GONE
        if had:
            self._remove(now, id)
        if mark:
            self.entries[id] = Entry(0, GONE)
            self._extend(now, id, lease)
        self._grant(now, limit)
        return had

    def peek(self, now: int) -> Answer:
        """What is in use and waiting, with the last token."""
        self._begin(now)
        return Answer(self.fence, self.in_use, len(self.queue))

    def _begin(self, now: int) -> None:
        """Forget whose lease has ended. If the clock was set back, move the leases with it."""
        self.handed = []
        if now < self.seen:
            back = self.seen - now
            self.leases = {id: until - back for id, until in self.leases.items()}
            self.seen = now
        for id in sorted((id for id, until in self.leases.items() if until <= now), key=self._by_lease):
            self._remove(now, id)

    def _by_lease(self, id: str) -> tuple[int, str]:
        return self.leases[id], id

    def _remove(self, now: int, id: str) -> None:
        entry = self.entries.pop(id)
        del self.leases[id]
        if entry.token > QUEUED:
            self.in_use -= entry.weight
        elif entry.token == QUEUED:
            del self.queue[id]
        self.seen = now

    def _extend(self, now: int, id: str, lease: int) -> None:
        self.leases[id] = now + lease
        self.seen = now

    def _grant(self, now: int, limit: int) -> None:
        """Hand permits to the head of the queue as long as it fits; whoever is too heavy is served alone."""
        while self.queue:
            head = next(iter(self.queue))
            weight = self.entries[head].weight
            if self.in_use and self.in_use + weight > limit:
                return
            del self.queue[head]
            token = self._next_token(now)
            self.in_use += weight
            self.entries[head] = Entry(weight, token)
            self.handed.append((head, token))
            self.seen = now

    def _adopt(self, now: int, claim: Claim) -> None:
        token = claim.token if claim.token > QUEUED else self._next_token(now)
        self.fence = max(self.fence, token)
        self.in_use += claim.weight
        self.entries[claim.id] = Entry(claim.weight, token)

    def _next_token(self, now: int) -> int:
        self.fence = max(self.fence + 1, now)
        return self.fence
