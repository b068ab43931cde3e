"""The strategies: which of the endpoints that may be used gets the next request.

    chooser("two_choices").choose(endpoints, now=0.0, draw=0.25, key=None)

    round_robin      in turn
    weighted         in turn, as often as their weights say, evenly mixed
    least_in_flight  the fewest requests under way for its weight
    two_choices      the cheaper of two taken at random (default)
    consistent_hash  the same one for the same key

A chooser never looks at health: it gets the endpoints that are left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol, get_args

from resilience._validate import check_number, one_of

from .endpoint import EndpointState
from .hashing import rank

Strategy = Literal["round_robin", "weighted", "least_in_flight", "two_choices", "consistent_hash"]


class Chooser(Protocol):
    """A strategy."""

    def choose(self, endpoints: Sequence[EndpointState], now: float, draw: float, key: str | None) -> EndpointState:
        """One of `endpoints`, of which there is at least one. `draw` is uniform in [0, 1)."""
        ...


def chooser(strategy: Strategy, *, decay: float = 10.0, bound: float | None = None) -> Chooser:
    """The chooser of that name.

    `decay` (10 s) is the memory of latencies in two_choices; `bound` (None: none), at least 1, keeps the load of
    each endpoint under consistent_hash below `bound` times its fair part. Raises ValueError or TypeError for
    anything else, and for a bound with another strategy.
    """
    one_of("strategy", strategy, get_args(Strategy))
    check_number("decay", decay, above=0)
    if bound is not None:
        check_number("bound", bound, least=1)
        if strategy != "consistent_hash":
            raise ValueError(f"bound must be left out unless the strategy is consistent_hash, got {strategy!r}")
    match strategy:
        case "round_robin":
            return SmoothWeighted(equal=True)
        case "weighted":
            return SmoothWeighted(equal=False)
        case "least_in_flight":
            return LeastInFlight()
        case "two_choices":
            return TwoChoices(decay)
        case _:
            return ConsistentHash(bound)


class SmoothWeighted:
    """Smooth weighted round robin, as in nginx: weights 5, 1, 1 give a a b a c a a; equal weights plain turns."""

    def __init__(self, equal: bool) -> None:
        self._equal = equal

    def choose(self, endpoints: Sequence[EndpointState], now: float, draw: float, key: str | None) -> EndpointState:
        """The endpoint that has waited longest for its weight."""
        total = 0.0
        best = endpoints[0]
        for endpoint in endpoints:
            weight = 1.0 if self._equal else endpoint.weight
            endpoint.current += weight
            total += weight
            if endpoint.current > best.current:
                best = endpoint
        best.current -= total
        return best


class LeastInFlight:
    """The fewest requests under way for its weight; of several one at random."""

    def choose(self, endpoints: Sequence[EndpointState], now: float, draw: float, key: str | None) -> EndpointState:
        """An endpoint whose (requests under way + 1) / weight is least."""
        loads = [(endpoint.in_flight + 1) / endpoint.weight for endpoint in endpoints]
        least = min(loads)
        idlest = [endpoint for endpoint, load in zip(endpoints, loads, strict=True) if load == least]
        return idlest[int(draw * len(idlest))]


class TwoChoices:
    """The cheaper of two at random (Mitzenmacher, 2001), by the cost of Finagle's peak EWMA.

    Two instead of all: clients that know the same do not all run to the same endpoint.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay

    def choose(self, endpoints: Sequence[EndpointState], now: float, draw: float, key: str | None) -> EndpointState:
        """The one of two with the lower `EndpointState.cost`."""
        count = len(endpoints)
        if count == 1:
            return endpoints[0]
        first, second = divmod(int(draw * count * (count - 1)), count - 1)
        one, other = endpoints[first], endpoints[second + (second >= first)]
        return one if one.cost(now, self._decay) <= other.cost(now, self._decay) else other


class ConsistentHash:
    """The same endpoint for the same key, as long as it is there; without a key one at random.

    With a `bound`, an endpoint that has more than `bound` times its fair part of the requests under way passes on
    to the next in the key's order (Mirrokni, Thorup and Zadimoghaddam, 2018).
    """

    def __init__(self, bound: float | None) -> None:
        self._bound = bound

    def choose(self, endpoints: Sequence[EndpointState], now: float, draw: float, key: str | None) -> EndpointState:
        """The endpoint that `key` prefers and whose load is within the bound."""
        if key is None:
            return endpoints[int(draw * len(endpoints))]
        named = {endpoint.name: endpoint for endpoint in endpoints}
        order = [named[name] for name in rank(key, {name: each.weight for name, each in named.items()})]
        if self._bound is None:
            return order[0]
        part = self._bound * (1 + sum(each.in_flight for each in order)) / sum(each.weight for each in order)
        # The parts add up to more than there is under way, so one of them has room.
        return next(each for each in order if each.in_flight < math.ceil(part * each.weight))
