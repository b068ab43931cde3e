"""Rates as people write them: `"100/s"`, `"10/minute"`, `"5000/2h"`.

parse_rate("10/minute")     # (10.0, 60.0)
"""

from __future__ import annotations

import re
from typing import Any, Literal, TypeAlias, cast, get_args

from ..machines.rate_limiter import (
    GCRA,
    FixedWindow,
    LeakyBucket,
    Rule,
    SlidingLog,
    SlidingWindow,
    TokenBucket,
)

Algorithm: TypeAlias = Literal["gcra", "token_bucket", "fixed_window", "sliding_window", "sliding_log", "leaky_bucket"]

_UNITS = {
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), 0.001),
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}
_RATE = re.compile(r"\s*(?P<limit>\d+(?:\.\d+)?)\s*(?:/|per)\s*(?P<count>\d+(?:\.\d+)?)?\s*(?P<unit>[a-z]+)\s*")


def parse_rate(text: str) -> tuple[float, float]:
    """The limit and its period in seconds. Raises ValueError for anything that is not a rate."""
    match = _RATE.fullmatch(text.lower())
    if match is None or match["unit"] not in _UNITS:
        raise ValueError(f'rate must look like "100/s", "10/minute" or "5000/2h", got {text!r}')
    return float(match["limit"]), float(match["count"] or 1) * _UNITS[match["unit"]]


def make_rule(rate: str | Rule[Any], algorithm: str, burst: float | None) -> Rule[Any]:
    """A rule for a rate, or the rule itself. Raises ValueError for options that the algorithm does not have."""
    if not isinstance(rate, str):
        if not hasattr(rate, "algorithm"):
            raise TypeError(f"rates must be strings or rules, got {rate!r}")
        if burst is not None:
            raise ValueError("burst must be given to the rule itself when a rate is a rule")
        return rate
    if algorithm not in get_args(Algorithm):
        raise ValueError(f"algorithm must be one of {', '.join(get_args(Algorithm))}, got {algorithm!r}")
    limit, period = parse_rate(rate)
    if algorithm == "gcra":
        return GCRA(limit, period, burst)
    if algorithm == "token_bucket":
        return TokenBucket(limit, period, burst)
    if burst is not None:
        raise ValueError(f"burst must be left out for algorithm {algorithm!r}, which has none")
    plain = {
        "fixed_window": FixedWindow,
        "sliding_window": SlidingWindow,
        "sliding_log": SlidingLog,
        "leaky_bucket": LeakyBucket,
    }[algorithm]
    return cast("Rule[Any]", plain(limit, period))
