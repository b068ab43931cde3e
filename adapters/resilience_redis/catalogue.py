"""What the limits of a store are, told to the server once by every process, for those who look at it.

    catalogue = Catalogue("resilience")
    catalogue.add(LimiterSpec("search", (GCRA(100, 1.0),)), lane)

The states of limits say what was used, not of how much: that comes with every request, so that a deploy can change it.
Nothing is decided by the catalogue, and nobody waits for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from resilience.limits.limiter_state import LimiterSpec
from resilience.machines.rate_limiter import (
    GCRA,
    FixedWindow,
    LeakyBucket,
    Rule,
    SlidingLog,
    SlidingWindow,
    TokenBucket,
)
from resilience_redis.connection.replies import ignore
from resilience_redis.scripts import script_of

if TYPE_CHECKING:
    from resilience_redis.connection.lane import Lane

_RULES: Mapping[str, Any] = {
    each.algorithm: each for each in (GCRA, TokenBucket, FixedWindow, SlidingWindow, SlidingLog, LeakyBucket)
}
_WITH_BURST = ("gcra", "token_bucket")


class Catalogue:
    """What one process tells."""

    def __init__(self, prefix: str) -> None:
        self._key = catalogue_key(prefix)
        self._known: dict[str, str] = {}

    def add(self, spec: LimiterSpec, lane: Lane | None) -> None:
        """Tell of one limiter more; without a way to the server yet, when there is one."""
        text = describe(spec)
        if self._known.get(spec.name) != text:
            self._known[spec.name] = text
            if lane is not None:
                self._send(lane, {spec.name: text})

    def tell(self, lane: Lane) -> None:
        """Tell of all of them, on a new way to the server."""
        if self._known:
            self._send(lane, self._known)

    def _send(self, lane: Lane, texts: Mapping[str, str]) -> None:
        said = [word for entry in texts.items() for word in entry]
        lane.run(script_of("_prelude", "catalogue"), (self._key,), ("", *said)).add_done_callback(ignore)


def catalogue_key(prefix: str) -> str:
    """Return the key of a namespace's catalogue."""
    return f"{{{prefix}:catalogue}}:v1"


def describe(spec: LimiterSpec) -> str:
    """Return the text from which `spec_of` makes the same limits."""
    rules = [[rule.limit, rule.period, *([rule.burst] if rule.algorithm in _WITH_BURST else [])] for rule in spec.rules]
    return json.dumps({"algorithm": spec.rules[0].algorithm, "rules": rules, "common": spec.common})


def spec_of(name: str, text: str) -> LimiterSpec:
    """Return the limits that a description is of. Raises ValueError, TypeError or KeyError if it is of none."""
    said = json.loads(text)
    rules: tuple[Rule[Any], ...] = tuple(_RULES[said["algorithm"]](*numbers) for numbers in said["rules"])
    return LimiterSpec(name, rules, common=tuple(said["common"]))
