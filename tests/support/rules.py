"""All rate-limit rules, and how tests make and drive them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeAlias

from resilience.machines.rate_limiter import (
    GCRA,
    FixedWindow,
    LeakyBucket,
    SlidingLog,
    SlidingWindow,
    TokenBucket,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience.machines.rate_limiter import Rule

AnyRule: TypeAlias = "Rule[Any]"

LONG = os.environ.get("RESILIENCE_LONG") == "1"
"""The gate runs property tests in full; every other run a sample."""

BUCKETS: tuple[type[GCRA] | type[TokenBucket], ...] = (GCRA, TokenBucket)
WINDOWS: tuple[type[FixedWindow] | type[SlidingWindow] | type[SlidingLog], ...] = (
    FixedWindow,
    SlidingWindow,
    SlidingLog,
)
ALGORITHMS = ("gcra", "token_bucket", "fixed_window", "sliding_window", "sliding_log", "leaky_bucket")

_MAKERS: dict[str, Callable[[float, float, float], AnyRule]] = {
    "gcra": GCRA,
    "token_bucket": TokenBucket,
    "fixed_window": lambda limit, period, _: FixedWindow(limit, period),
    "sliding_window": lambda limit, period, _: SlidingWindow(limit, period),
    "sliding_log": lambda limit, period, _: SlidingLog(limit, period),
    "leaky_bucket": lambda limit, period, _: LeakyBucket(limit, period),
}


def make_rule(algorithm: str, limit: float, period: float, burst: float | None = None) -> AnyRule:
    """Make a rule of any algorithm; those that have no burst ignore it."""
    return _MAKERS[algorithm](limit, period, limit if burst is None else burst)


def promise(rule: AnyRule, window: float) -> float:
    """The most units that may be admitted in any window of that length."""
    rate = rule.limit / rule.period
    if rule.algorithm in ("gcra", "token_bucket"):
        return rule.burst + rate * window
    if rule.algorithm == "leaky_bucket":
        return 1 + rate * window  # for costs of 1
    whole = int(window / rule.period) + 1
    if rule.algorithm == "sliding_log":
        return rule.limit * whole
    return rule.limit * (whole + 1)  # aligned windows: a window that is not touches one more
