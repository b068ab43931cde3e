"""One key of a limiter: what all requests to it have in common, made once.

target = Target(script, ["{limit:key}:gcra"], ("100", "1000000", "20"))
target.call("peek", ("1",))
target.booking("1,0,0,19,1700000000010000")
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from resilience.limiter_state import Booking
from resilience.machines.rate_limiter import Decision
from resilience_redis.scripts import Call, Script

MICROSECONDS = 1e6

# NamedTuples are made by the constructor that theirs wraps, at half the price: one of each per decision.
_new_decision: Callable[[type[Decision], tuple[object, ...]], Decision] = vars(tuple)["__new__"]
_new_booking: Callable[[type[Booking], tuple[object, ...]], Booking] = vars(tuple)["__new__"]


class Target:
    """Keys, all in one slot, with the limits that hold for them as the script is told."""

    __slots__ = ("_refusal", "_single", "identity", "keys", "rules", "script")

    def __init__(self, script: Script, keys: Sequence[str], rules: tuple[str, ...]) -> None:
        self.script = script
        self.keys = keys
        self.rules = rules
        self.identity = keys[0]
        self._single = len(keys) == 1
        # The last one read: many callers may hear the very same.
        self._refusal: tuple[str, Booking | None] = ("", None)

    def call(self, operation: str, arguments: Iterable[str]) -> Call:
        """Return the call of an operation at the server's own time."""
        return self.script, self.keys, (operation, "", *self.rules, *arguments)

    def accepts(self, other: Target) -> bool:
        """Whether requests to the other, which has the same identity, may travel with those to this one."""
        return self is other or (self.script is other.script and self.rules == other.rules and self.keys == other.keys)

    def booking(self, answer: str) -> Booking:
        """Read the answer to one request. It is also the stamp: it holds the positions that a refund names."""
        if self._single and answer.startswith("1,0,0,"):  # by far the most
            decision = _new_decision(Decision, (True, 0.0, 0, (float(answer[6:].partition(",")[0]),)))
            return _new_booking(Booking, (decision, answer))
        seen, refusal = self._refusal
        if answer is seen and refusal is not None:
            return refusal
        count = len(self.keys)
        fields = answer.split(",")
        allowed = fields[0] == "1"
        # Rounded up to the next microsecond: never early.
        wait = math.ceil(float(fields[1])) / MICROSECONDS
        decision = Decision(allowed, wait, int(fields[2]), tuple(map(float, fields[3 : 3 + count])))
        if allowed:
            return Booking(decision, answer)
        refusal = Booking(decision)
        self._refusal = answer, refusal
        return refusal

    def marks(self, stamp: object) -> tuple[str, ...]:
        """Return the positions of what was booked, which a refund must find unchanged; of none, what fits any."""
        if stamp is None:
            return ("",) * len(self.keys)
        if not isinstance(stamp, str):
            raise TypeError(f"stamp must be that of a booking, got {type(stamp).__name__}")
        return tuple(stamp.split(",")[3 + len(self.keys) :])
