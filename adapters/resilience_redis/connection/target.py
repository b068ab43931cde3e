"""One key of a limiter: what all requests to it have in common, made once.

target = Target(script, ["{limit:key}:gcra"], ("100", "1000000", "20"))
target.call("peek", ("1",))
target.booking("1,0,0,19,1700000000010000")
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any, TypeAlias, cast

from resilience.limits.limiter_state import Booking
from resilience.machines.rate_limiter import Decision
from resilience.machines.rate_limiter.rule import text
from resilience_redis.connection.replies import as_text
from resilience_redis.scripts import Call, Script

MICROSECONDS = 1e6

Answer: TypeAlias = tuple[float, ...] | Booking
"""To one request. If it may go at once on a single limit perhaps not read yet: what remains, and the position."""

_MANY = 128
"""More bookings than that are not made before they are wanted: the garbage collector would look at all of them."""

# NamedTuples are made by the constructor that theirs wraps, at half the price: one of each per decision.
_new: Any = vars(tuple)["__new__"]

_first = itemgetter(slice(1))

_WIDEST = ord("/")
"""The scripts' packed answers begin with how many numbers there are to each, others with the digit 0 or 1."""


class Target:
    """Keys, all in one slot, with the limits that hold for them as the script is told."""

    __slots__ = ("_refusal", "identity", "keys", "rules", "script")

    def __init__(self, script: Script, keys: Sequence[str], rules: tuple[str, ...], identity: str = "") -> None:
        self.script = script
        for key in keys:
            key.encode()  # who has a key without bytes must not spoil it for those who travel along
        self.keys = keys
        self.rules = rules
        # Requests of one identity keep their order; by default that of the first key.
        self.identity = identity or keys[0]
        # The last one read: many callers may hear the very same.
        self._refusal: tuple[str, Booking | None] = ("", None)

    def call(self, operation: str, arguments: Iterable[str]) -> Call:
        """Return the call of an operation at the server's own time."""
        return self.script, self.keys, (operation, "", *self.rules, *arguments)

    def accepts(self, other: Target) -> bool:
        """Whether requests to the other, which has the same identity, may travel with those to this one."""
        return self is other or (self.script is other.script and self.rules == other.rules and self.keys == other.keys)

    def answers(self, reply: str | bytes) -> Sequence[Answer]:
        """Take the answers to several requests apart; those to many are left to be read by whoever waits."""
        if isinstance(reply, bytes) and reply[0] <= _WIDEST:
            try:
                rows = list(struct.iter_unpack(f"<{reply[0]}d", memoryview(reply)[1:]))
            except struct.error as broken:
                raise ValueError(f"an answer to no number of requests: {broken}") from broken
            return rows if len(rows) >= _MANY else _read_together(rows)
        return [self.booking(answer) for answer in as_text(reply).split(";")]

    def read(self, answer: Answer) -> Booking:
        """Return what an answer says."""
        if isinstance(answer, Booking):
            return answer
        booking: Booking = _new(Booking, (_new(Decision, (True, 0.0, 0, answer[:1])), answer))
        return booking

    def booking(self, answer: str) -> Booking:
        """Return what the answer to one request says. The stamp are the positions, which a refund names."""
        seen, refusal = self._refusal
        if answer == seen and refusal is not None:
            return refusal
        count = len(self.keys)
        fields = answer.split(",")
        allowed = fields[0] == "1"
        # Rounded up to the next microsecond: never early.
        wait = math.ceil(float(fields[1])) / MICROSECONDS
        decision = Decision(allowed, wait, int(fields[2]), tuple(map(float, fields[3 : 3 + count])))
        if allowed:
            return Booking(decision, ",".join(fields[3 + count :]))
        refusal = Booking(decision)
        self._refusal = answer, refusal
        return refusal

    def marks(self, stamp: object) -> tuple[str, ...]:
        """Return the positions of what was booked, which a refund must find unchanged; of none, what fits any."""
        if stamp is None:
            return ("",) * len(self.keys)
        if isinstance(stamp, tuple):
            row = cast("tuple[float, ...]", stamp)
            return (" ".join(map(text, row[1:])),)  # behind what remains
        if not isinstance(stamp, str):
            raise TypeError(f"stamp must be that of a booking, got {type(stamp).__name__}")
        return tuple(stamp.split(","))


def _read_together(rows: Sequence[tuple[float, ...]]) -> list[Booking]:
    """The same as `Target.read` of each, in half the time."""
    decisions = map(_new, repeat(Decision), zip(repeat(True), repeat(0.0), repeat(0), map(_first, rows)))
    return list(map(_new, repeat(Booking), zip(decisions, rows, strict=True)))
