"""Which calls are disturbed, and how: decided by draws that are given, so that a run can be repeated.

    rule = ChaosRule(rate=0.1, latency=Exponential(0.2), faults=2)
    rule.decide(0.03, 0.5, 0.7)            # Disturbance(latency=0.139, fault=1)
    rule.decide(0.90, 0.5, 0.7)            # None: this call is left alone

A call needs three draws whatever comes of it, so that another rate or latency disturbs the same calls otherwise alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, cast

from resilience._validate import check_integer, check_number

LatencyRule: TypeAlias = "float | tuple[float, float] | Callable[[float], float]"
"""Seconds: always the same, uniform between two, or a function of a draw from [0, 1)."""


@dataclass(frozen=True, slots=True)
class Exponential:
    """Latencies with an exponential distribution: `mean` seconds, never more than `most` (default: 10 times that).

    A function of a draw from [0, 1), as `Chaos` takes for its latency. Raises TypeError or ValueError unless both are
    positive and finite.
    """

    mean: float
    most: float | None = None

    def __post_init__(self) -> None:
        check_number("mean", self.mean, above=0)
        if self.most is not None:
            check_number("most", self.most, above=0)

    def __call__(self, draw: float) -> float:
        """Seconds for a draw from [0, 1)."""
        return min(-self.mean * math.log1p(-draw), 10 * self.mean if self.most is None else self.most)


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What happens to one call: a delay in seconds, then a fault, the number of one of several; None for none."""

    latency: float
    fault: int | None


class ChaosRule:
    """The share `rate` of calls is delayed by `latency` and then has one of so many `faults`, each as likely.

    Raises TypeError or ValueError unless `rate` is from 0 to 1, `latency` is a number, a pair of numbers or a
    function, none of them negative and the pair in order, and `faults` is an integer from 0; also if there is neither
    latency nor fault.
    """

    __slots__ = ("faults", "latency", "rate")

    def __init__(self, rate: float, latency: LatencyRule | None, faults: int) -> None:
        check_number("rate", rate, least=0, most=1)
        check_integer("faults", faults, 0)
        if latency is None and not faults:
            raise ValueError("latency, or at least one fault, must be given")
        self.rate: float = rate
        self.latency: Callable[[float], float] = _nothing if latency is None else _latency(latency)
        self.faults: int = faults

    def decide(self, hit: float, length: float, choice: float) -> Disturbance | None:
        """What happens to a call, by three draws from [0, 1); None leaves it alone.

        Raises TypeError or ValueError if the function for latencies gives none.
        """
        if hit >= self.rate:
            return None
        latency = self.latency(length)
        check_number("latency", latency, least=0)
        return Disturbance(latency, int(choice * self.faults) if self.faults else None)


def _nothing(draw: float) -> float:
    return 0.0


def _latency(latency: LatencyRule) -> Callable[[float], float]:
    if callable(latency):
        return latency
    if not isinstance(latency, tuple):
        check_number("latency", latency, least=0)
        fixed = latency
        return lambda draw: fixed
    if len(cast("tuple[float, ...]", latency)) != 2:
        raise ValueError(f"latency must be a pair of two numbers, got {latency!r}")
    low, high = latency
    check_number("latency", low, least=0)
    check_number("latency", high, least=low)
    return lambda draw: low + draw * (high - low)


class ChaosWindow:
    """Whether faults are wanted now: between two times, in seconds since the beginning; always without them.

    It begins with `begin`, or with the first question. Raises TypeError or ValueError unless both are numbers, none
    of them negative, the second above the first.
    """

    __slots__ = ("_began", "between")

    def __init__(self, between: tuple[float, float] | None) -> None:
        if between is not None:
            if not isinstance(between, tuple) or len(cast("tuple[float, ...]", between)) != 2:
                raise TypeError(f"between must be a pair of seconds, got {between!r}")
            check_number("between", between[0], least=0)
            check_number("between", between[1], above=between[0])
        self.between: tuple[float, float] | None = between
        self._began: float | None = None

    def begin(self, now: float) -> None:
        """Count from now on."""
        self._began = now

    def open(self, now: float) -> bool:
        """Whether `now` lies between the two times."""
        if self.between is None:
            return True
        if self._began is None:
            self._began = now
        start, end = self.between
        return start <= now - self._began < end
