"""What every rate-limit rule offers, and what they share.

A rule is immutable; the state of one key is a small plain value that the caller keeps, `None` when fresh:

    rule = GCRA(limit=100, period=1.0, burst=20)
    wait = rule.wait(state, now, 1)            # 0.0: now; else the time until the permit is valid
    state = rule.take(state, now, 1, wait)     # booked

The unit of time is the caller's: seconds in memory, microseconds in Redis. A rule does plain double
arithmetic, and its Lua twin in `resilience_redis/scripts` does the same operations in the same order.

Booked units may lie in the future, first come first served. A clock that runs backwards never mints: what
was booked stays booked, permits only come later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn, Protocol, TypeVar

from resilience._validate import positive

S = TypeVar("S")

MAX_RATE = 1_000_000.0
"""Units per second above which a double can no longer tell two permits apart at epoch microseconds."""

OPEN = 0.0
"""In a window that was never drained, the moment before which nothing fits."""

_PLAIN = (int, float)


class Rule(Protocol[S]):
    """`limit` units per `period`, as one algorithm understands it."""

    algorithm: ClassVar[str]

    @property
    def limit(self) -> float:
        """Units per period."""
        ...

    @property
    def period(self) -> float:
        """The length of a period, in the caller's unit of time."""
        ...

    @property
    def burst(self) -> float:
        """Units that may go at once after a rest."""
        ...

    @property
    def capacity(self) -> float:
        """The largest cost that can ever be admitted."""
        ...

    def wait(self, state: S | None, now: float, cost: float) -> float:
        """Return the time until `cost` units may go, behind everything already booked; 0.0 is now."""
        ...

    def take(self, state: S | None, now: float, cost: float, wait: float) -> S:
        """Return the state with `cost` booked at `now + wait`, where wait is at least `self.wait(...)`."""
        ...

    def refund(self, state: S | None, now: float, cost: float) -> S | None:
        """Return the state with `cost` units given back: never better than fresh."""
        ...

    def undo(self, state: S | None, before: S | None, now: float, cost: float) -> S | None:
        """Return the state without its last booking, which is not valid yet; `before` is the state it was made on.

        Not `refund`: another limit may have put that booking far ahead of where this one had room.
        """
        ...

    def charge(self, state: S | None, now: float, amount: float) -> S:
        """Return the state with `amount` units taken without asking: what is not there becomes a debt.

        The amount may be above `capacity`; a debt is paid back at the rate, by those who come after.
        """
        ...

    def drain(self, state: S | None, now: float, seconds: float) -> S:
        """Return the state in which nothing remains and nothing fits before `now + seconds`.

        Bookings already made stand. With 0 seconds everything that remains is gone, and comes back as the
        algorithm has it.
        """
        ...

    def observe(self, state: S | None, now: float, remaining: float, reset_after: float) -> S | None:
        """Return the state after somebody else, who keeps the same limit, said what remains there.

        It only ever lowers what remains here, and never raises it: calls that were booked here may still be on
        their way, uncounted there, and an old answer may come late. If nothing remains, nothing fits before
        `now + reset_after`. The same state comes back when it is not changed.
        """
        ...

    def remaining(self, state: S | None, now: float) -> float:
        """Return the units that could go right now."""
        ...

    def fresh_at(self, state: S) -> float:
        """Return the time from which the state means the same as `None`."""
        ...

    def position(self, state: S) -> float | tuple[float, ...]:
        """Return a mark that changes with every take.

        A cancelled booking may be refunded only while the mark is still its own: once something is booked
        behind it, giving the units back would let two bookings meet.
        """
        ...


class BaseRule:
    """The fields of every rule, checked once and then immutable.

    Raises TypeError or ValueError, naming the field, for numbers that make no limit; limits above a million
    units per second are refused, since their permits would be closer together than a clock can tell.
    """

    __slots__ = ("burst", "capacity", "limit", "period")

    algorithm: ClassVar[str]
    limit: float
    period: float
    burst: float
    capacity: float

    def _fill(self, limit: float, period: float, **derived: float) -> None:
        """Set every field: `burst` and `capacity` default to the limit."""
        values = {"limit": limit, "period": period, "burst": limit, "capacity": limit} | derived
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable: make a new one instead of setting {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable: {name} cannot be deleted")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments()

    def undo(self, state: Any, before: Any, now: float, cost: float) -> Any:
        """Return the state before the last booking: whatever passed since, it means the same."""
        return before

    def _arguments(self) -> tuple[float, ...]:
        return (self.limit, self.period)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._arguments() == other._arguments()

    def __hash__(self) -> int:
        return hash((type(self), self._arguments()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{value:g}' for value in self._arguments())})"


class BurstRule(BaseRule):
    """A rule with a burst of its own: the bucket may be smaller or larger than one period's units."""

    __slots__ = ()

    def _arguments(self) -> tuple[float, ...]:
        return (self.limit, self.period, self.burst)


def check_cost(rule: Rule[Any], cost: float) -> float:
    """Return `cost`, or raise ValueError (or TypeError) unless 0 < cost <= `rule.capacity`."""
    if type(cost) in _PLAIN and 0 < cost <= rule.capacity:  # the hot path; NaN fails too
        return cost
    if positive("cost", cost) > rule.capacity:
        raise ValueError(f"cost must be at most {rule.capacity:g}, the most ever admitted, got {cost!r}")
    return cost


def check_costs(rules: Sequence[Rule[Any]], costs: Sequence[float]) -> None:
    """Check a cost for each rule: 0 is a limit that takes no part, but one at least must.

    Raises ValueError or TypeError as `check_cost` does.
    """
    charged = False
    for rule, cost in zip(rules, costs, strict=True):
        if type(cost) not in _PLAIN or cost != 0:
            check_cost(rule, cost)
            charged = True
    if not charged:
        raise ValueError(f"cost must be greater than 0 for one limit at least, got {', '.join(map(repr, costs))}")


def check_limit(limit: float, period: float) -> tuple[float, float]:
    """Return limit and period as floats, or raise for what no algorithm can keep."""
    limit, period = float(positive("limit", limit)), float(positive("period", period))
    if limit / period > MAX_RATE:
        raise ValueError(f"limit must be at most 1000000 per second, got {limit:g} per {period:g}")
    return limit, period


def check_window(limit: float, period: float) -> tuple[float, float]:
    """Like `check_limit`, for rules that count: not even one unit in a period is no limit but a stop."""
    limit, period = check_limit(limit, period)
    if limit < 1:
        raise ValueError(f"limit must be at least 1 for a window, got {limit:g}: use a longer period")
    return limit, period


def check_burst(burst: float | None, limit: float) -> float:
    """Return `burst` as a float (default: the limit, at least 1), or raise when it is below 1."""
    if burst is None:
        return max(limit, 1.0)
    if positive("burst", burst) < 1:
        raise ValueError(f"burst must be at least 1, got {burst!r}")
    return float(burst)


def index_of(moment: float, period: float) -> int:
    """Return the number of the window that `moment` is in (windows are aligned to time 0)."""
    return math.floor(moment / period)


def text(*numbers: float) -> str:
    """Join numbers as Redis stores them: 17 digits, which every double survives."""
    return " ".join(f"{value:.17g}" for value in numbers)
