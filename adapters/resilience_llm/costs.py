"""What requests cost in each of the limits that were given.

costs = Costs({"requests": 60, "tokens": "20000/min"}, margin=0.5)
costs.reserved(Estimate(20, 500))      # {"requests": 1, "tokens": 520}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

from resilience import GCRA, Limit
from resilience._validate import not_negative, positive
from resilience.limits.rates import parse_rate

from .estimate import Estimate

Rate: TypeAlias = float | str
"""So many a minute, or a rate such as `"1000/h"`."""
MINUTE = 60.0


class Costs:
    """The limits by what they count, and how requests fall on them. Raises ValueError or TypeError for bad rates."""

    def __init__(self, rates: Mapping[str, Rate | None], margin: float) -> None:
        self.rules: dict[str, GCRA] = {
            each: _rule(each, rate, margin) for each, rate in rates.items() if rate is not None
        }
        if not self.rules:
            raise ValueError(f"one of {', '.join(rates)} must be given")

    def limits(self) -> list[Limit]:
        """The same for a RateLimiter, each named for what it counts."""
        return [Limit(rule, dimension=each, name=each) for each, rule in self.rules.items()]

    def reserved(self, estimate: Estimate) -> dict[str, float]:
        """What is reserved: never more than a full bucket, which would never be there, and not nothing at all."""
        amounts = self._amounts(estimate)
        for dimension, rule in self.rules.items():
            amounts[dimension] = min(rule.burst, amounts[dimension])
        if not any(amounts.values()):
            amounts[next(iter(amounts))] = 1.0
        return amounts

    def used(self, used: Estimate) -> dict[str, float]:
        """What is charged in the end; requests are left as they were reserved."""
        amounts = self._amounts(used)
        amounts.pop("requests", None)
        return amounts

    def _amounts(self, used: Estimate) -> dict[str, float]:
        inward, outward = _tokens("input", used[0]), _tokens("output", used[1])
        amounts = {"requests": 1.0, "tokens": inward + outward, "input_tokens": inward, "output_tokens": outward}
        return {each: amounts[each] for each in self.rules}


def _tokens(field: str, value: float) -> float:
    return math.ceil(not_negative(f"estimate.{field}", value))


def _rule(dimension: str, rate: Rate, margin: float) -> GCRA:
    """A bucket that is full with `margin` seconds less than the limit; at least one unit."""
    limit, period = parse_rate(rate) if isinstance(rate, str) else (positive(dimension, rate), MINUTE)
    if not_negative("margin", margin) >= period:
        raise ValueError(f"margin must be shorter than the period of {dimension}, {period:g} s, got {margin!r}")
    return GCRA(limit, period, max(1.0, limit - limit / period * margin))
