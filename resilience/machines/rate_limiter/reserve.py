"""Reserve, then settle: charge an estimate before a call, and what it really cost afterwards, exactly once.

    decision, states, record = reserve(rules, states, None, now, costs=(1, 1800), max_wait=2.0)
    settled, states, record = settle(rules, states, record, later, actual=(None, 1234))

The record of an id makes both safe to repeat, in any order: the first of each counts. An id that is settled without
ever having been reserved is charged in full, and then a reservation that comes late charges nothing. Who holds a
reservation and dies leaves it charged as reserved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from resilience.machines.rate_limiter.decide import Decision, left_over, longest_wait

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilience.machines.rate_limiter.rule import Rule

S = TypeVar("S")


class Record(NamedTuple):
    """What is remembered of one id."""

    costs: tuple[float, ...]
    """What each limit was charged for it in the end."""
    valid_at: float
    """When its permit becomes valid; when it was settled, if it is."""
    binding: int
    marks: tuple[object, ...] = ()
    """The position of each limit after it was reserved; none once it is settled."""
    before: tuple[Any, ...] = ()
    """Of a permit that lies ahead, the states on which it was booked."""
    settled: bool = False


def reserve(
    rules: Sequence[Rule[S]],
    states: Sequence[S | None],
    record: Record | None,
    now: float,
    costs: Sequence[float],
    max_wait: float,
) -> tuple[Decision, Sequence[S | None], Record | None]:
    """Return the decision, the states and the record; a refusal leaves none, an id that is known stays as it is."""
    if record is not None:
        wait = max(record.valid_at - now, 0.0)
        binding = record.binding if wait > 0.0 else 0
        return Decision(True, wait, binding, left_over(rules, states, now)), states, record
    wait, binding = longest_wait(rules, states, now, costs)
    if wait > max_wait:
        return Decision(False, wait, binding, left_over(rules, states, now)), states, None
    before = tuple(states) if wait > 0.0 else ()
    states = [
        rule.take(state, now, cost, wait) if cost else state
        for rule, state, cost in zip(rules, states, costs, strict=True)
    ]
    marks = tuple(None if state is None else rule.position(state) for rule, state in zip(rules, states, strict=True))
    record = Record(tuple(costs), now + wait, binding, marks, before)
    return Decision(True, wait, binding, left_over(rules, states, now)), states, record


def settle(
    rules: Sequence[Rule[S]],
    states: Sequence[S | None],
    record: Record | None,
    now: float,
    actual: Sequence[float | None],
    known: bool = False,
) -> tuple[bool, Sequence[S | None], Record | None]:
    """Return whether this settled it, the states and the record, with the difference charged or given back.

    An `actual` of None is what was reserved. With `known` there was a reservation, so an id without a record has been
    forgotten, and stays charged as it is; without, it is charged in full.
    """
    if known if record is None else record.settled:
        return False, states, record
    if record is None:
        record = Record((0.0,) * len(rules), now, 0, (None,) * len(rules))
    charged: list[float] = []
    changed: list[S | None] = []
    early = now < record.valid_at
    before = record.before or (None,) * len(rules)
    for rule, state, reserved, mark, was, cost in zip(
        rules, states, record.costs, record.marks, before, actual, strict=True
    ):
        due = reserved if cost is None else cost
        if due > reserved:
            state = rule.charge(state, now, due - reserved)
        elif due < reserved and state is not None:
            if early and rule.position(state) != mark:
                due = reserved  # a permit that is not valid yet is given back only where nothing was booked after it
            elif early and due <= 0.0 and record.before:
                state = rule.undo(state, was, now, reserved)
            else:
                state = rule.refund(state, now, reserved - due)
        charged.append(due)
        changed.append(state)
    return True, changed, Record(tuple(charged), now, record.binding, settled=True)
