"""One limit of a rate limiter, when a rate alone does not say enough of it.

RateLimiter(
    Limit("60/min", dimension="requests"),
    Limit("20000/min", dimension="tokens"),
    Limit("500/min", keyed=False, name="everybody"),
)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..machines.rate_limiter import Rule
from .rates import Algorithm, make_rule

DIMENSION = "requests"
"""What a limit counts that does not say."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A rate, what it counts, and for whom.

    `rate` is a string or a rule. `burst` and `algorithm` are those of the limiter by default. `dimension` is what it
    counts (default `"requests"`): a call is charged its cost in that dimension. With `keyed` (default) the limit is
    one for each key, without it is one for all keys together. `name` appears in refusals (default: the rate).

    Raises ValueError or TypeError for what is no rate, and for names that are no names.
    """

    rate: str | Rule[Any]
    burst: float | None = None
    algorithm: Algorithm | None = None
    name: str | None = None
    dimension: str = DIMENSION
    keyed: bool = True

    def __post_init__(self) -> None:
        for field in ("name", "dimension"):
            value = getattr(self, field)
            if (value is not None or field == "dimension") and (not isinstance(value, str) or not value):
                raise ValueError(f"{field} must be a non-empty string, got {value!r}")
        if self.algorithm is not None and not isinstance(self.rate, str):
            raise ValueError("algorithm must be left out when the rate is a rule, which has one")
        self.rule()

    def rule(self, algorithm: Algorithm = "gcra", burst: float | None = None) -> Rule[Any]:
        """The rule, with the limiter's own algorithm and burst where this limit has none."""
        return make_rule(self.rate, self.algorithm or algorithm, self.burst if self.burst is not None else burst)

    @property
    def label(self) -> str:
        """The name, or else the rate."""
        if self.name is not None:
            return self.name
        return self.rate if isinstance(self.rate, str) else f"{self.rate.limit:g}/{self.rate.period:g}s"
