"""One key of a limiter: what all requests to it have in common, made once.

target = Target(script, ["{limit:key}:gcra"], ("100", "1000000", "20"))
target.call("peek", ("1",))
target.booking("1,0,0,19,1700000000010000")
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any, TypeAlias

from resilience.limits.limiter_state import Booking
from resilience.machines.rate_limiter import Decision
from resilience_redis.scripts import Call, Script

MICROSECONDS = 1e6

Answer: TypeAlias = str | Booking
"""To one request. If it may go at once on a single limit perhaps not read yet: what remains, and the position."""

_MANY = 128
"""More bookings than that are not made before they are wanted: the garbage collector would look at all of them."""

# NamedTuples are made by the constructor that theirs wraps, at half the price: one of each per decision.
_new: Any = vars(tuple)["__new__"]

# How the answer begins that lets a request to a single limit go at once, and what comes between two of them.
_AT_ONCE = "1,0,0,"
_NEXT_AT_ONCE = ";1,0,0,"


class Target:
    """Keys, all in one slot, with the limits that hold for them as the script is told."""

    __slots__ = ("_refusal", "_single", "identity", "keys", "rules", "script")

    def __init__(self, script: Script, keys: Sequence[str], rules: tuple[str, ...], identity: str = "") -> None:
        self.script = script
        for key in keys:
            key.encode()  # who has a key without bytes must not spoil it for those who travel along
        self.keys = keys
        self.rules = rules
        # Requests of one identity keep their order; by default that of the first key.
        self.identity = identity or keys[0]
        self._single = len(keys) == 1
        # The last one read: many callers may hear the very same.
        self._refusal: tuple[str, Booking | None] = ("", None)

    def call(self, operation: str, arguments: Iterable[str]) -> Call:
        """Return the call of an operation at the server's own time."""
        return self.script, self.keys, (operation, "", *self.rules, *arguments)

    def accepts(self, other: Target) -> bool:
        """Whether requests to the other, which has the same identity, may travel with those to this one."""
        return self is other or (self.script is other.script and self.rules == other.rules and self.keys == other.keys)

    def answers(self, text: str) -> Sequence[Answer]:
        """Take the answers to several requests apart; those to many are left to be read by whoever waits."""
        if self._single and text.startswith(_AT_ONCE):
            others = text.count(";")
            if text.count(_NEXT_AT_ONCE) == others:  # by far the most: all may go
                told = text[len(_AT_ONCE) :]
                return told.split(_NEXT_AT_ONCE) if others >= _MANY else _read_together(told)
        return [self.booking(answer) for answer in text.split(";")]

    def read(self, answer: Answer) -> Booking:
        """Return what an answer says."""
        if not isinstance(answer, str):
            return answer
        remaining, _, stamp = answer.partition(",")
        booking: Booking = _new(Booking, (_new(Decision, (True, 0.0, 0, (float(remaining),))), stamp))
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
        if not isinstance(stamp, str):
            raise TypeError(f"stamp must be that of a booking, got {type(stamp).__name__}")
        return tuple(stamp.split(","))


def _read_together(told: str) -> list[Booking]:
    """The same as splitting and `Target.read` of each, in two thirds of the time."""
    fields = told.replace(_NEXT_AT_ONCE, ",").split(",")
    decisions = map(_new, repeat(Decision), zip(repeat(True), repeat(0.0), repeat(0), zip(map(float, fields[::2]))))
    return list(map(_new, repeat(Booking), zip(decisions, fields[1::2], strict=True)))
