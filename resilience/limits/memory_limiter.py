"""The states of one rate limiter in memory, by key.

A key costs one dictionary entry with a small plain value, and leaves by itself once its state means nothing
any more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .. import clock
from .._validate import whole
from ..machines.rate_limiter import Decision, Rule, check_cost, check_costs, decide, decide_one, peek
from .limiter_state import Booking, LocalLimiter


class MemoryLimiter(LocalLimiter):
    """Keyed states of a limiter, in two generations; `common` are the rules that hold for all keys together.

    A state that was not touched for `span` seconds is as good as fresh. So every `span` the older generation,
    untouched for that long, is dropped as a whole. If keys come faster than that and exceed `max_keys`, fresh
    ones are swept out early; a key with an unpaid debt is never dropped.
    """

    def __init__(self, rules: Sequence[Rule[Any]], max_keys: int = 1_000_000, common: Sequence[int] = ()) -> None:
        self._rules = tuple(rules)
        # The state of a key: that of the only rule (a float for GCRA), or a tuple with one for each.
        self._only = self._rules[0] if len(self._rules) == 1 else None
        self._fresh: Any = None if self._only is not None else (None,) * len(self._rules)
        self.unkeyed: Any = self._fresh
        """The state for calls without a key, which never leaves."""
        # Which rules are common, if some are and some not; a key's own state has None for those.
        mixed = 0 < len(common) < len(self._rules)
        self._is_common = tuple(index in common for index in range(len(self._rules))) if mixed else ()
        self._common: tuple[Any, ...] = (None,) * len(self._is_common)
        self._max_keys = self._sweep_at = whole("max_keys", max_keys, 1)
        self._span = _span(self._rules)
        self._turn_at = clock.now() + self._span
        self._young: dict[str, Any] = {}
        self._old: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def acquire(self, key: str, costs: Sequence[float], max_wait: float, at: float | None = None) -> Booking:
        """Book the costs if they may go within `max_wait` seconds. Raises ValueError for impossible costs."""
        # The stamp of a booking is its position; of one that is not valid yet a list, with what was there before.
        now = clock.now() if at is None else at
        before = self.state(key, now)
        rule = self._only
        if rule is not None:
            cost = check_cost(rule, costs[0])
            decision, state = decide_one(rule, before, now, cost, max_wait)
            if not key and decision.allowed:
                self.unkeyed = state
                mark = rule.position(state)
                return Booking(decision, mark if decision.wait <= 0.0 else [mark, before])
        else:
            check_costs(self._rules, costs)
            before = self._with_common(before)
            decision, states = decide(self._rules, before, now, costs, max_wait)
            state = tuple(states)
        if not decision.allowed:
            return Booking(decision)
        self.put(key, state)
        if decision.wait <= 0.0:
            return Booking(decision, self._position(state))
        if key:  # a booking ahead is fresh that much later
            self._turn_at = max(self._turn_at, now + decision.wait + self._span)
        return Booking(decision, [self._position(state), before])

    def take(self, key: str, costs: Sequence[float]) -> bool:
        """Book the costs if they may go at once. Raises ValueError for impossible costs."""
        rule = self._only
        if rule is None:
            return super().take(key, costs)
        cost, now = check_cost(rule, costs[0]), clock.now()
        state = self.state(key, now)
        if rule.wait(state, now, cost) > 0.0:
            return False
        self.put(key, rule.take(state, now, cost, 0.0))
        return True

    def state(self, key: str, now: float) -> Any:
        """The state of a key that is about to be used, now; None if it is fresh and there is only one rule."""
        if not key:
            return self.unkeyed
        if now >= self._turn_at:
            self._old, self._young = self._young, {}
            self._turn_at = now + self._span
        state = self._young.get(key)
        if state is None:
            state = self._old.pop(key, None)
            if state is None:
                if len(self._young) >= self._sweep_at:
                    self._sweep(now)
                return self._fresh
            self._young[key] = state
        return state

    def put(self, key: str, state: Any) -> None:
        """The new state of a key whose `state` has just been asked for."""
        if self._is_common:
            self._common = tuple(one if shared else None for one, shared in zip(state, self._is_common, strict=True))
            state = tuple(None if shared else one for one, shared in zip(state, self._is_common, strict=True))
        if key:
            self._young[key] = state
        else:
            self.unkeyed = state

    def charge(self, key: str, costs: Sequence[float]) -> None:
        """Book costs that were admitted elsewhere, whatever remains here."""
        now, rule = clock.now(), self._only
        if rule is not None:
            state = self.state(key, now)
            self.put(key, rule.charge(state, now, costs[0]))
            return
        self._put_all(
            key,
            [
                rule.charge(state, now, cost) if cost else state
                for rule, state, cost in zip(self._rules, self._states(key), costs, strict=True)
            ],
        )

    def rescale(self, rules: Sequence[Rule[Any]]) -> None:
        """Go on with other limits of the same kind. States that would mean something else by them are forgotten."""
        if any(rule.algorithm not in _SCALABLE for rule in rules):
            self.unkeyed, self._common = self._fresh, (None,) * len(self._is_common)
            self._young, self._old = {}, {}
        self._rules = tuple(rules)
        self._only = self._rules[0] if len(self._rules) == 1 else None
        self._span = max(self._span, _span(self._rules))

    def peek(self, key: str, costs: Sequence[float]) -> Decision:
        """What a booking of `costs` would find; changes nothing. Raises ValueError for impossible costs."""
        check_costs(self._rules, costs)
        return peek(self._rules, self._states(key), clock.now(), costs)

    def refund(self, key: str, costs: Sequence[float], stamp: object = None) -> None:
        """Give units back; with a stamp only to limits where nothing was booked after that booking."""
        now = clock.now()
        given: list[Any] = []
        marks: Any = stamp
        befores: Any = None
        ahead = isinstance(stamp, list)
        if ahead:
            marks, befores = marks
        if self._only is not None or stamp is None:
            marks, befores = (marks,) * len(self._rules), (befores,)
        for index, (rule, state, cost) in enumerate(zip(self._rules, self._states(key), costs, strict=True)):
            if state is not None and cost and (stamp is None or rule.position(state) == marks[index]):
                state = rule.undo(state, befores[index], now, cost) if ahead else rule.refund(state, now, cost)
            given.append(state)
        self._put_all(key, given)

    def reset(self, key: str) -> None:
        """Forget the key: it has its whole limit again; without one, also what holds for all keys together."""
        if not key:
            self.unkeyed = self._fresh
            self._common = (None,) * len(self._is_common)
        self._young.pop(key, None)
        self._old.pop(key, None)

    def keys(self) -> list[str]:
        """The keys that have a state, those used last at the end."""
        return [*([""] if self.unkeyed is not self._fresh else []), *self._old, *self._young]

    def in_use(self, key: str) -> tuple[float, ...]:
        """How much of each limit is used up now."""
        now, states = clock.now(), self._states(key)
        return tuple(
            max(0.0, rule.capacity - rule.remaining(state, now))
            for rule, state in zip(self._rules, states, strict=True)
        )

    def _states(self, key: str) -> tuple[Any, ...]:
        """A state for every rule, of a key that is looked at."""
        state = self._young.get(key, self._old.get(key, self._fresh)) if key else self.unkeyed
        return (state,) if self._only is not None else self._with_common(state)

    def _put_all(self, key: str, states: Sequence[Any]) -> None:
        """The reverse of `_states`; a key that is fresh need not be kept."""
        self.put(key, states[0] if self._only is not None else tuple(states))
        if key and all(one is None for one in states):
            self.reset(key)

    def _with_common(self, state: tuple[Any, ...]) -> tuple[Any, ...]:
        """The states of a key, with those of the common rules in their places."""
        if not self._is_common:
            return state
        both = zip(self._is_common, self._common, state, strict=True)
        return tuple(common if shared else own for shared, common, own in both)

    def _position(self, state: Any) -> object:
        if self._only is not None:
            return self._only.position(state)
        return tuple(None if one is None else rule.position(one) for rule, one in zip(self._rules, state, strict=True))

    def _sweep(self, now: float) -> None:
        """Drop what is fresh. The next sweep comes after as many new keys again, so that each pays a little."""
        self._young = {key: state for key, state in self._young.items() if self._fresh_at(state) > now}
        self._old = {key: state for key, state in self._old.items() if self._fresh_at(state) > now}
        self._sweep_at = max(self._max_keys, 2 * len(self._young))

    def _fresh_at(self, state: Any) -> float:
        states = (state,) if self._only is not None else state
        moments = [rule.fresh_at(one) for rule, one in zip(self._rules, states, strict=True) if one is not None]
        return max(moments, default=-math.inf)


_SCALABLE = ("gcra", "token_bucket")
"""Algorithms whose states are times or units, not numbers of windows."""


def _span(rules: Sequence[Rule[Any]]) -> float:
    """Twice the longest time from a cost that was taken at once to a fresh state, whatever the algorithm."""
    return max(2.0 * rule.period * max(1.0, rule.burst / rule.limit) for rule in rules)
