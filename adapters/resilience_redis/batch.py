"""Acquires on one key in one script call: each is answered as if it had come alone, in order of arrival.

    cargo = load(requests)                      # one batch per key, in the order that keeps the meaning
    replies = await run_all(wire.exchange, [each.call() for each in cargo])
    late = [each.settle(reply) for each, reply in zip(cargo, replies)]

A batch tells the rules once and equal requests once with their number; the script loads the states once, decides
and books one after the other, and saves once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from resilience.limiter_state import Booking
from resilience.machines.rate_limiter import Decision
from resilience.machines.rate_limiter.rule import text
from resilience_redis.outage import as_outage
from resilience_redis.scripts import Call, Script

MICROSECONDS = 1e6
_LONGEST = 9e15

# NamedTuples are made by the constructor that theirs wraps, at half the price: one of each per decision.
_new_decision: Callable[[type[Decision], tuple[object, ...]], Decision] = vars(tuple)["__new__"]
_new_booking: Callable[[type[Booking], tuple[object, ...]], Booking] = vars(tuple)["__new__"]


class Target:
    """One key of a limiter: what all requests to it have in common."""

    __slots__ = ("identity", "keys", "rules", "script")

    def __init__(self, script: Script, keys: Sequence[str], rules: tuple[str, ...]) -> None:
        self.script = script
        self.keys = keys
        self.rules = rules
        self.identity = keys[0]

    def call(self, operation: str, arguments: Iterable[str]) -> Call:
        """Return the call of an operation at the server's own time."""
        if operation == "reset":
            return self.script, self.keys, (operation, "")
        return self.script, self.keys, (operation, "", *self.rules, *arguments)

    def booking(self, fields: Sequence[str], at: int = 0) -> Booking:
        """Read the answer to one request, which begins at a field of the reply."""
        count = len(self.keys)
        allowed, wait, first = fields[at] == "1", fields[at + 1], at + 3
        # Rounded up to the next microsecond: never early.
        delay = 0.0 if wait == "0" else math.ceil(float(wait)) / MICROSECONDS
        remaining = (float(fields[first]),) if count == 1 else tuple(map(float, fields[first : first + count]))
        decision = _new_decision(Decision, (allowed, delay, int(fields[at + 2]), remaining))
        stamp = tuple(fields[first + count : first + 2 * count]) if allowed else None
        return _new_booking(Booking, (decision, stamp))

    def accepts(self, other: Target) -> bool:
        """Whether requests to the other, which has the same keys, may travel with those to this one."""
        return self is other or (self.script is other.script and self.rules == other.rules and self.keys == other.keys)


Request: TypeAlias = tuple[asyncio.Future[Any], Target, str, tuple[str, ...], float]
"""Who waits, target, operation, arguments (the costs first), max_wait in seconds."""

Grant: TypeAlias = tuple[Request, Booking]
"""What was booked for a request."""


class Batch:
    """Acquires on one key, with the same rules."""

    __slots__ = ("groups", "size", "target")

    def __init__(self, target: Target) -> None:
        self.target = target
        self.groups: list[list[Request]] = []
        self.size = 0

    def add(self, request: Request) -> None:
        """Append a request: to the last group, if it is equal."""
        self.size += 1
        if self.groups:
            group = self.groups[-1]
            head = group[0]
            if head[4] == request[4] and head[3] == request[3]:
                group.append(request)
                return
        self.groups.append([request])

    def call(self) -> Call:
        """Return the script call that carries all of them."""
        arguments: list[str] = []
        for group in self.groups:
            head = group[0]
            arguments += (str(len(group)), _patience(head[4]), *head[3])
        return self.target.call("acquire", arguments)

    def settle(self, reply: Any) -> list[Grant]:
        """Tell everybody; return the grants that nobody waits for any more, in the order they were booked."""
        if isinstance(reply, Exception):
            for group in self.groups:
                for request in group:
                    fail(request, as_outage(reply))
            return []
        late: list[Grant] = []
        read, fields, at = self.target.booking, fields_of(reply), 0
        refusal = 3 + len(self.target.keys)
        grant = refusal + len(self.target.keys)
        for group in self.groups:
            booking: Booking | None = None
            allowed = True
            for request in group:
                if allowed:  # a refusal speaks for the rest of its group
                    booking = read(fields, at)
                    allowed = booking[0][0]
                    at += grant if allowed else refusal
                assert booking is not None
                if not request[0].done():
                    request[0].set_result(booking)
                elif allowed:
                    late.append((request, booking))
        return late


class Single:
    """Any other operation."""

    __slots__ = ("request",)

    def __init__(self, request: Request) -> None:
        self.request = request

    def call(self) -> Call:
        """Return the script call."""
        return self.request[1].call(self.request[2], self.request[3])

    def settle(self, reply: Any) -> list[Grant]:
        """Tell the one who asked."""
        if isinstance(reply, Exception):
            fail(self.request, as_outage(reply))
        elif not self.request[0].done():
            self.request[0].set_result(reply)
        return []


def load(requests: Iterable[Request]) -> list[Batch | Single]:
    """Put requests that somebody still waits for into as few calls as their meaning allows.

    An acquire joins the acquires on its key before it, unless another operation on that key came in between.
    """
    cargo: list[Batch | Single] = []
    open_batches: dict[str, Batch] = {}
    for request in requests:
        if request[0].done():
            continue
        target = request[1]
        if request[2] != "acquire":
            open_batches.pop(target.identity, None)
            cargo.append(Single(request))
            continue
        batch = open_batches.get(target.identity)
        if batch is None or batch.size >= target.script.largest or not batch.target.accepts(target):
            batch = open_batches[target.identity] = Batch(target)
            cargo.append(batch)
        batch.add(request)
    return cargo


def fail(request: Request, error: Exception) -> None:
    """Let go whoever still waits."""
    if not request[0].done():
        request[0].set_exception(error)


def fields_of(reply: str | bytes) -> list[str]:
    """Return the fields of a reply, whether the client decodes or not."""
    return (reply if isinstance(reply, str) else reply.decode()).split(",")


def _patience(max_wait: float) -> str:
    return "0" if max_wait == 0.0 else text(max(-_LONGEST, min(max_wait * MICROSECONDS, _LONGEST)))
