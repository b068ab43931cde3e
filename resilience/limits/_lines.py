"""The waiting line for one limit, or for several that weigh their costs differently.

line = make_line(MemoryLedger(rules), rules)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..machines.rate_limiter import Rule, check_costs
from ._line import Line
from .limiter_state import LocalLimiter


class WeighedLine(Line):
    """A line in front of several limits: places weigh the seconds in which the slowest of them gives their costs.

    A thousand tokens and one request cannot be added up; the time they take can.
    """

    def rescale(self, rules: Sequence[Rule[Any]]) -> None:
        """Go on with other limits, which the limiter has already."""
        super().rescale(rules)
        self._interval = 1.0

    def _weight(self, costs: Sequence[float]) -> float:
        check_costs(self._rules, costs)
        return max(cost * rule.period / rule.limit for rule, cost in zip(self._rules, costs, strict=True))


def make_line(limiter: LocalLimiter, rules: Sequence[Rule[Any]]) -> Line:
    """The line for a limiter with those rules."""
    return Line(limiter, rules) if len(rules) == 1 else WeighedLine(limiter, rules)
