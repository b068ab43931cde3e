"""What a random history consists of: the policies of a pipeline, its callers, and what is done to it meanwhile.

Times are whole quanta of 1/64 s, so that all arithmetic on them is exact. `spread` adds to each a tiny part of
its own: things that have nothing to do with each other never happen at the same instant, whose order no event
loop promises. Where a policy itself brings callers to one instant, `lateness` parts them again. Only scripts whose
callers come `together` keep their instants, and in those no timeout is ever due.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

QUANTUM = 1 / 64
HORIZON = 4000
"""Quanta after which every caller is cancelled."""


def spread(quanta: int, mark: int) -> float:
    """Seconds; `mark` tells what they are for. Sums below an hour of them need less than the 53 bits of a float."""
    return quanta * QUANTUM + random.Random(mark).getrandbits(34) / 2**40


@dataclass(frozen=True)
class PolicySpec:
    """One policy; `Pipeline` has policies inside."""

    kind: str
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    inside: tuple[PolicySpec, ...] = ()


@dataclass(frozen=True)
class Attempt:
    """What the protected function does once: steps with a length each, then an ending."""

    steps: tuple[tuple[str, int], ...]
    end: str


@dataclass(frozen=True)
class Caller:
    """One task. `use` is how it calls, `cancel` when it is cancelled, after its start."""

    start: int
    use: str
    key: str
    cost: int
    attempts: tuple[Attempt, ...]
    cancel: int | None


@dataclass(frozen=True)
class Script:
    """A whole history."""

    policies: tuple[PolicySpec, ...]
    callers: tuple[Caller, ...]
    acts: tuple[tuple[int, str, int], ...]
    """When something is done by hand, what, and to which policy."""
    listen: bool
    judge: str
    """The classifier of the pipeline."""
    together: bool = False
    """Whether callers that start in the same quantum start at the same instant (only under asyncio)."""


_short, _long = st.integers(1, 64), st.integers(1, 512)
_modes = st.sampled_from(["enforce"] * 10 + ["shadow", "off"])
_ons = st.sampled_from([None] * 6 + ["key", "broken"])
_results = st.sampled_from([None] * 6 + ["bad", "broken"])


def _options(kind: str, **options: st.SearchStrategy[Any]) -> st.SearchStrategy[PolicySpec]:
    return st.builds(PolicySpec, st.just(kind), st.fixed_dictionaries(options))


_leaves = {
    "Timeout": _options("Timeout", seconds=_long),
    "Retry": _options(
        "Retry",
        attempts=st.integers(1, 4),
        backoff=st.sampled_from(["full", "constant", "exponential", "none"]),
        base=_short,
        on=_ons,
        on_result=_results,
        budget=st.sampled_from(["own", "small", "ratio", None]),
    ),
    "CircuitBreaker": _options(
        "CircuitBreaker",
        window=st.sampled_from(["count", "count", "count", "period"]),
        size=st.integers(1, 5),
        failure_rate=st.sampled_from([0.25, 0.5, 1.0, 1.0, 1.0]),
        slow_call=st.sampled_from([None] * 4 + [4, 32]),
        open_for=st.integers(8, 256),
        probes=st.integers(1, 3),
        on=_ons,
        on_result=_results,
        mode=_modes,
        keyed=st.booleans(),
    ),
    "Bulkhead": _options(
        "Bulkhead",
        limit=st.integers(1, 4),
        queue=st.integers(0, 3),
        max_wait=st.none() | _long,
        weight=st.sampled_from([1, 1, 1, 1, 2, "cost"]),
        mode=_modes,
        keyed=st.booleans(),
    ),
    "RateLimiter": _options(
        "RateLimiter",
        algorithm=st.sampled_from(
            ["gcra"] * 6 + ["token_bucket", "fixed_window", "sliding_window", "sliding_log", "leaky_bucket"]
        ),
        limit=st.sampled_from([1, 2, 8, 32, 32]),
        period=st.sampled_from([64, 128]),
        burst=st.sampled_from([1, 2, 8]),
        second=st.sampled_from([False] * 4 + [True]),
        cost=st.sampled_from([None, None, None, 2, "cost"]),
        max_wait=st.none() | st.integers(0, 256),
        mode=_modes,
        keyed=st.booleans(),
    ),
    "Fallback": _options(
        "Fallback",
        source=st.sampled_from(["value", "function", "broken", "last_good"]),
        on=_ons,
        on_result=_results,
    ),
}
_fusable = [spec for kind, spec in _leaves.items() if kind != "Fallback"]
_leaf = st.one_of(*_fusable, *_fusable, _leaves["Fallback"])
_nested = st.lists(_leaf, min_size=1, max_size=2).map(tuple)
_policy = st.one_of(*[_leaf] * 6, st.builds(PolicySpec, st.just("Pipeline"), st.just({}), _nested))
_step = st.tuples(
    st.sampled_from(["sleep"] * 6 + ["checkpoint", "hang", "stubborn", "scope", "call", "until_timeout"]), _short
)
_attempt = st.builds(
    Attempt,
    st.lists(_step, max_size=2).map(tuple),
    st.sampled_from(["good"] * 6 + ["bad", "closable", "down", "down", "key", "rejected", "base"]),
)
_caller = st.builds(
    Caller,
    start=st.integers(0, 512),
    use=st.sampled_from(["function", "function", "call", "call", "outcome", "bound", "bound_function", "lease"]),
    key=st.sampled_from([""] * 4 + ["a", "b"]),
    cost=st.integers(1, 2),
    attempts=st.lists(_attempt, min_size=1, max_size=3).map(tuple),
    cancel=st.one_of(st.none(), st.none(), _long),
)
_act = st.tuples(
    st.integers(0, 640),
    st.sampled_from(["mode", "resize", "drain", "reset", "refund", "isolate", "listen", "look"]),
    st.integers(0, 5),
)

scripts: st.SearchStrategy[Script] = st.builds(
    Script,
    policies=st.lists(_policy, min_size=1, max_size=6).map(tuple),
    callers=st.lists(_caller, min_size=4, max_size=14).map(tuple),
    acts=st.one_of(st.just(()), st.lists(_act, max_size=3).map(tuple)),
    listen=st.booleans(),
    judge=st.sampled_from(["default", "default", "bad", "throttled"]),
    together=st.sampled_from([False, False, False, True]),
)
