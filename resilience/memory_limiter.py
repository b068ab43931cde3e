"""The states of one rate limiter in memory, by key.

A key costs one dictionary entry with a small plain value, and leaves by itself once its state means nothing
any more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from . import clock
from ._validate import whole
from .limiter_state import Booking, LocalLimiter
from .machines.rate_limiter import Decision, Rule, check_cost, decide, decide_one, peek


class MemoryLimiter(LocalLimiter):
    """Keyed states of a limiter, in two generations.

    A state that was not touched for `span` seconds is as good as fresh. So every `span` the older generation,
    untouched for that long, is dropped as a whole. If keys come faster than that and exceed `max_keys`, fresh
    ones are swept out early; a key with an unpaid debt is never dropped.
    """

    def __init__(self, rules: Sequence[Rule[Any]], max_keys: int = 1_000_000) -> None:
        self._rules = tuple(rules)
        # The state of a key: that of the only rule (a float for GCRA), or a tuple with one for each.
        self._only = self._rules[0] if len(self._rules) == 1 else None
        self._fresh: Any = None if self._only is not None else (None,) * len(self._rules)
        self.unkeyed: Any = self._fresh
        """The state for calls without a key, which never leaves."""
        self._max_keys = self._sweep_at = whole("max_keys", max_keys, 1)
        # Twice the longest time from a cost that was taken at once to a fresh state, whatever the algorithm.
        self._span = max(2.0 * rule.period * max(1.0, rule.burst / rule.limit) for rule in self._rules)
        self._turn_at = clock.now() + self._span
        self._young: dict[str, Any] = {}
        self._old: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def acquire(self, key: str, costs: Sequence[float], max_wait: float, at: float | None = None) -> Booking:
        """Book the costs if they may go within `max_wait` seconds. Raises ValueError for impossible costs."""
        now = clock.now() if at is None else at
        state = self._state(key, now) if key else self.unkeyed
        rule = self._only
        if rule is not None:
            cost = check_cost(rule, costs[0])
            decision, state = decide_one(rule, state, now, cost, max_wait)
            if not key and decision.allowed:
                self.unkeyed = state
                return Booking(decision, rule.position(state))
        else:
            for rule, cost in zip(self._rules, costs, strict=True):
                check_cost(rule, cost)
            decision, states = decide(self._rules, state, now, costs, max_wait)
            state = tuple(states)
        if not decision.allowed:
            return Booking(decision)
        self._put(key, state)
        if key and decision.wait > 0.0:  # a booking ahead is fresh that much later
            self._turn_at = max(self._turn_at, now + decision.wait + self._span)
        return Booking(decision, self._position(state))

    def take(self, key: str, costs: Sequence[float]) -> bool:
        """Book the costs if they may go at once. Raises ValueError for impossible costs."""
        rule = self._only
        if rule is None:
            return super().take(key, costs)
        cost, now = check_cost(rule, costs[0]), clock.now()
        state = self._state(key, now) if key else self.unkeyed
        if rule.wait(state, now, cost) > 0.0:
            return False
        self._put(key, rule.take(state, now, cost, 0.0))
        return True

    def peek(self, key: str, costs: Sequence[float]) -> Decision:
        """What a booking of `costs` would find; changes nothing. Raises ValueError for impossible costs."""
        for rule, cost in zip(self._rules, costs, strict=True):
            check_cost(rule, cost)
        return peek(self._rules, self._states(key), clock.now(), costs)

    def refund(self, key: str, costs: Sequence[float], stamp: object = None) -> None:
        """Give units back; with a stamp only if nothing was booked after that booking."""
        states = self._states(key)
        if all(state is None for state in states):
            return
        if stamp is not None and stamp != self._position(states[0] if self._only is not None else states):
            return
        now = clock.now()
        states = tuple(
            rule.refund(state, now, cost) for rule, state, cost in zip(self._rules, states, costs, strict=True)
        )
        if all(state is None for state in states):
            self.reset(key)
        else:
            self._put(key, states[0] if self._only is not None else states)

    def reset(self, key: str) -> None:
        """Forget the key: it has its whole limit again."""
        if not key:
            self.unkeyed = self._fresh
        self._young.pop(key, None)
        self._old.pop(key, None)

    def _states(self, key: str) -> tuple[Any, ...]:
        state = self._young.get(key, self._old.get(key, self._fresh)) if key else self.unkeyed
        return (state,) if self._only is not None else state

    def _put(self, key: str, state: Any) -> None:
        if key:
            self._young[key] = state
        else:
            self.unkeyed = state

    def _position(self, state: Any) -> object:
        if self._only is not None:
            return self._only.position(state)
        return tuple(None if one is None else rule.position(one) for rule, one in zip(self._rules, state, strict=True))

    def _state(self, key: str, now: float) -> Any:
        """The state of a key that is about to be used."""
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

    def _sweep(self, now: float) -> None:
        """Drop what is fresh. The next sweep comes after as many new keys again, so that each pays a little."""
        self._young = {key: state for key, state in self._young.items() if self._fresh_at(state) > now}
        self._old = {key: state for key, state in self._old.items() if self._fresh_at(state) > now}
        self._sweep_at = max(self._max_keys, 2 * len(self._young))

    def _fresh_at(self, state: Any) -> float:
        states = (state,) if self._only is not None else state
        moments = [rule.fresh_at(one) for rule, one in zip(self._rules, states, strict=True) if one is not None]
        return max(moments, default=-math.inf)
