"""Several limits, one decision: all of them or none.

    decision, states = decide(rules, states, now, costs=(1, 1800), max_wait=2.0)

The longest wait counts. If it is not longer than `max_wait` every limit books its cost for that same
moment; otherwise none books anything, so a refusal changes nothing and costs nothing. A limit whose cost is 0
takes no part: it is neither asked nor booked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resilience.machines.rate_limiter.rule import Rule

S = TypeVar("S")


class Decision(NamedTuple):
    """What a limiter answers, in the unit of time of its rules."""

    allowed: bool
    wait: float
    """Until the permit is valid (0.0: now) or, when refused, until a new try has a chance."""
    binding: int
    """The index of the limit that binds, which has the longest wait; 0 when none has to wait."""
    remaining: tuple[float, ...]
    """Units that each limit could still give right now, after this decision."""


# The constructor that NamedTuple generates costs as much as a rule does; this is what it calls.
_new_decision: Callable[[type[Decision], tuple[object, ...]], Decision] = vars(tuple)["__new__"]


def decide(
    rules: Sequence[Rule[S]],
    states: Sequence[S | None],
    now: float,
    costs: Sequence[float],
    max_wait: float,
) -> tuple[Decision, Sequence[S | None]]:
    """Return the decision and the new states: the same object as `states` when nothing was booked."""
    wait, binding = longest_wait(rules, states, now, costs)
    allowed = wait <= max_wait
    if allowed:
        states = [
            rule.take(state, now, cost, wait) if cost else state
            for rule, state, cost in zip(rules, states, costs, strict=True)
        ]
    return Decision(allowed, wait, binding, left_over(rules, states, now)), states


def decide_one(rule: Rule[S], state: S | None, now: float, cost: float, max_wait: float) -> tuple[Decision, S | None]:
    """Do what `decide` does for a single limit, at half the price."""
    wait = rule.wait(state, now, cost)
    allowed = wait <= max_wait
    if allowed:
        state = rule.take(state, now, cost, wait)
    return _new_decision(Decision, (allowed, wait, 0, (rule.remaining(state, now),))), state


def peek(rules: Sequence[Rule[S]], states: Sequence[S | None], now: float, costs: Sequence[float]) -> Decision:
    """Return what `decide` would find for `max_wait=0`, with what remains before it: nothing is booked."""
    wait, binding = longest_wait(rules, states, now, costs)
    return Decision(wait <= 0.0, wait, binding, left_over(rules, states, now))


def longest_wait(
    rules: Sequence[Rule[S]], states: Sequence[S | None], now: float, costs: Sequence[float]
) -> tuple[float, int]:
    """Return the longest wait of all limits and the index of the first one that has it."""
    wait, binding = 0.0, 0
    for index, (rule, state, cost) in enumerate(zip(rules, states, costs, strict=True)):
        own = rule.wait(state, now, cost) if cost else 0.0
        if own > wait:
            wait, binding = own, index
    return wait, binding


def left_over(rules: Sequence[Rule[S]], states: Sequence[S | None], now: float) -> tuple[float, ...]:
    """Return what remains of every limit right now."""
    return tuple(rule.remaining(state, now) for rule, state in zip(rules, states, strict=True))
