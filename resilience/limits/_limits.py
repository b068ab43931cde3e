"""The limits of one limiter, and how costs by dimension fall on them.

limits = Limits(("60/min", Limit("20000/min", dimension="tokens")), "gcra", None)
limits.costs({"requests": 1, "tokens": 1800})     # (1, 1800)
limits.costs({"tokens": 1800})                    # (0, 1800): the first takes no part
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..call import Cost
from ..machines.rate_limiter import Rule
from .limit import DIMENSION, Limit
from .rates import Algorithm


class Limits:
    """The limits of one limiter, and how costs by dimension fall on them.

    Raises ValueError if they cannot be decided in one step, or two have the same name.
    """

    def __init__(self, rates: tuple[str | Rule[Any] | Limit, ...], algorithm: Algorithm, burst: float | None) -> None:
        if not rates:
            raise ValueError('rates must hold at least one rate, such as "100/s"')
        self.all: tuple[Limit, ...] = tuple(_as_limit(rate) for rate in rates)
        self.rules: tuple[Rule[Any], ...] = tuple(limit.rule(algorithm, burst) for limit in self.all)
        if len({rule.algorithm for rule in self.rules}) > 1:
            raise ValueError("rates must all have the same algorithm: they are decided in one step")
        names = [limit.name for limit in self.all if limit.name is not None]
        if len(set(names)) < len(names):
            raise ValueError(f"names of limits must differ, got {', '.join(names)}")
        self.common: tuple[int, ...] = tuple(n for n, limit in enumerate(self.all) if not limit.keyed)
        """The places of those that hold for all keys together."""
        self.dimensions: tuple[str, ...] = tuple(dict.fromkeys(limit.dimension for limit in self.all))
        only = len(self.dimensions) == 1
        # Whether a plain number counts for a limit; none of them if nobody could tell what it counts.
        self._plain = tuple(only or limit.dimension == DIMENSION for limit in self.all)
        self._all_plain = all(self._plain)

    def costs(self, cost: Cost) -> tuple[float, ...]:
        """What each limit is charged. Raises ValueError for an unknown dimension, or a number that has none."""
        if not isinstance(cost, Mapping):
            if self._all_plain:
                return (cost,) * len(self._plain)
            if not any(self._plain):
                raise ValueError(f"cost must say how much of each dimension ({self._known()}), got {cost!r}")
            return tuple(cost if plain else 0 for plain in self._plain)
        self._check_dimensions("cost", cost)
        return tuple(cost.get(limit.dimension, 0) for limit in self.all)

    def actual(self, actual: Cost) -> tuple[float | None, ...]:
        """What each limit is charged in the end; None, as reserved, where that is not said."""
        if isinstance(actual, Mapping):
            self._check_dimensions("actual", actual)
            return tuple(actual.get(limit.dimension) for limit in self.all)
        costs = self.costs(actual)
        return tuple(cost if plain else None for cost, plain in zip(costs, self._plain, strict=True))

    def cost(self, costs: tuple[float, ...]) -> Cost:
        """The reverse of `costs`: a number if there is one dimension, else a number for each."""
        by_dimension = {limit.dimension: cost for limit, cost in zip(self.all, costs, strict=True)}
        return by_dimension if len(by_dimension) > 1 else costs[0]

    def index(self, limit: str | None) -> int:
        """The place of a limit by its name or its dimension. Raises ValueError unless it is exactly one."""
        for attribute in ("name", "label", "dimension"):
            found = [n for n, each in enumerate(self.all) if limit in (None, getattr(each, attribute))]
            if len(found) == 1:
                return found[0]
        labels = ", ".join(repr(each.label) for each in self.all)
        raise ValueError(f"limit must name one of the limits {labels} or a dimension with a single one, got {limit!r}")

    def quickest(self) -> set[int]:
        """The limits that, drained, stop every call: of each dimension the one that is soonest full again.

        Those for one key go before those for all: others are not to be stopped.
        """
        return {
            min(
                (n for n, each in enumerate(self.all) if each.dimension == dimension),
                key=lambda n: (not self.all[n].keyed, self.rules[n].burst * self.rules[n].period / self.rules[n].limit),
            )
            for dimension in self.dimensions
        }

    def says(self, index: int) -> str:
        """A limit in words."""
        limit, rule = self.all[index], self.rules[index]
        what = "" if limit.dimension == DIMENSION else f" {limit.dimension}"
        name = "" if limit.name is None else f" ({limit.name})"
        return f"more than {rule.limit:g}{what} per {rule.period:g} s{name}"

    def _check_dimensions(self, field: str, cost: Mapping[str, float]) -> None:
        unknown = [dimension for dimension in cost if dimension not in self.dimensions]
        if unknown:
            raise ValueError(f"{field} must be of the dimensions {self._known()}, got {', '.join(map(repr, unknown))}")

    def _known(self) -> str:
        return ", ".join(map(repr, self.dimensions))


def _as_limit(rate: str | Rule[Any] | Limit) -> Limit:
    return rate if isinstance(rate, Limit) else Limit(rate)
