"""How long to wait before the next retry: capped first, then jittered.

    backoff = Backoff.full(base=0.05, cap=20.0)
    delay, state = backoff.step(START, draw)      # before the first retry; draw is uniform in [0, 1)
    delay, state = backoff.step(state, draw)      # before the second

With n = 0 for the first retry, b = base, c = cap and U(x, y) uniform between x and y:

    full             U(0, min(c, b * 2**n))
    equal            U(h, 2h) with 2h = min(c, b * 2**n)
    decorrelated     U(b, min(c, 3 * previous)), previous = b at first
    decorrelated_v2  a smoother decorrelated; see `_decorrelated_v2`
    exponential      min(c, b * 2**n)
    linear           min(c, b * (n + 1))
    constant         b
    none             0

The cap comes before the jitter because clients whose delays are cut to the cap afterwards end up waiting
exactly the cap, all of them, and come back in step.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from resilience._validate import check_number

if TYPE_CHECKING:
    from collections.abc import Callable

Kind = Literal[
    "full", "equal", "decorrelated", "decorrelated_v2", "exponential", "linear", "constant", "none"
]  # fmt: skip


class BackoffState(NamedTuple):
    """What one sequence of retries carries from delay to delay. Begin with `START`."""

    retries: int = 0
    """Delays handed out so far."""
    carry: float = 0.0
    """What the kind remembers: decorrelated its last delay, decorrelated_v2 its last draw."""


START = BackoffState()


@dataclass(frozen=True, slots=True)
class Backoff:
    """A rule for the delays between retries, best made by `Backoff.full()` and its siblings.

    `base` (0.05 s) is the scale of the first delay, `cap` (20 s) the largest delay ever. Immutable: the state
    of a sequence of retries is passed in and out of `step`.

    The jittered kinds full, equal and decorrelated are those of Marc Brooker, "Exponential Backoff And
    Jitter" (AWS Architecture Blog, 2015), here with the cap inside the jitter. Full is the default: it
    spreads best for the least work.

    Raises TypeError or ValueError unless `base` is a positive finite number and `cap` a finite one of at
    least `base`, and ValueError for an unknown `kind`.
    """

    kind: Kind = "full"
    base: float = 0.05
    cap: float = 20.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        check_number("base", self.base, above=0)
        check_number("cap", self.cap)
        if self.cap < self.base:
            raise ValueError(f"cap must be at least base ({self.base!r}), got {self.cap!r}")

    @classmethod
    def full(cls, base: float = 0.05, cap: float = 20.0) -> Backoff:
        """Anything between nothing and the exponential delay."""
        return cls("full", base, cap)

    @classmethod
    def equal(cls, base: float = 0.05, cap: float = 20.0) -> Backoff:
        """Half the exponential delay, and up to half of it more."""
        return cls("equal", base, cap)

    @classmethod
    def decorrelated(cls, base: float = 0.05, cap: float = 20.0) -> Backoff:
        """Between `base` and three times the previous delay."""
        return cls("decorrelated", base, cap)

    @classmethod
    def decorrelated_v2(cls, base: float = 0.05, cap: float = 20.0) -> Backoff:
        """Polly's decorrelated jitter, version 2: medians near 1, 1, 2, 4, 8 times `base`, no peaks."""
        return cls("decorrelated_v2", base, cap)

    @classmethod
    def exponential(cls, base: float = 0.05, cap: float = 20.0) -> Backoff:
        """Double each time, no jitter: clients that fail together return together."""
        return cls("exponential", base, cap)

    @classmethod
    def linear(cls, base: float = 0.05, cap: float = 20.0) -> Backoff:
        """One `base` more each time, no jitter."""
        return cls("linear", base, cap)

    @classmethod
    def constant(cls, delay: float) -> Backoff:
        """The same `delay` in seconds each time."""
        check_number("delay", delay, above=0)
        return cls("constant", delay, delay)

    @classmethod
    def none(cls) -> Backoff:
        """Retry at once."""
        return cls("none")

    def step(self, state: BackoffState, draw: float) -> tuple[float, BackoffState]:
        """The next delay in seconds, and the state to pass next time.

        `draw` is a uniform random number in [0, 1); kinds without jitter ignore it. Pure, and defined for any
        number of retries: large ones neither overflow nor exceed the cap.
        """
        delay, carry = _KINDS[self.kind](self, state, draw)
        return delay, BackoffState(state.retries + 1, carry)


_Step = tuple[float, float]
"""The delay, and what to carry to the next one."""


def _doubled(rule: Backoff, state: BackoffState) -> float:
    # 2.0 ** 1024 would raise OverflowError; a product that overflows is merely inf, which the cap cuts.
    return min(rule.cap, rule.base * 2.0 ** min(state.retries, 1023))


def _full(rule: Backoff, state: BackoffState, draw: float) -> _Step:
    return draw * _doubled(rule, state), 0.0


def _equal(rule: Backoff, state: BackoffState, draw: float) -> _Step:
    half = _doubled(rule, state) / 2.0
    return half + draw * half, 0.0


def _decorrelated(rule: Backoff, state: BackoffState, draw: float) -> _Step:
    previous = state.carry if state.retries else rule.base
    top = min(rule.cap, 3.0 * previous)
    delay = rule.base + draw * (top - rule.base)
    return delay, delay


def _exponential(rule: Backoff, state: BackoffState, draw: float) -> _Step:
    return _doubled(rule, state), 0.0


def _linear(rule: Backoff, state: BackoffState, draw: float) -> _Step:
    # An integer beyond the range of doubles would raise OverflowError.
    return min(rule.cap, rule.base * min(state.retries + 1, 2**1023)), 0.0


def _constant(rule: Backoff, state: BackoffState, draw: float) -> _Step:
    return rule.base, 0.0


def _none(rule: Backoff, state: BackoffState, draw: float) -> _Step:
    return 0.0, 0.0


def _decorrelated_v2(rule: Backoff, state: BackoffState, draw: float) -> _Step:
    """Retry n happens at a random point of a smooth curve: unit * curve(n + draw) after the first attempt.

    The delay is the way from the previous point, hence the name: each draw moves two delays in opposite
    directions. The curve and its constants are George Polevoy's (App-vNext/Polly, issue 530; shipped in
    Polly.Contrib.WaitAndRetry). To cap before the jitter, n stops growing at the last step whose longest
    possible delay is within the cap; from there on every delay has that step's distribution. So the previous
    draw is carried, not the previous point.
    """
    unit, last_step = _v2_scale(rule.base, rule.cap)
    step = min(state.retries, last_step)
    return unit * (_v2_curve(step + draw) - _v2_curve(step - 1 + state.carry)), draw


def _v2_curve(t: float) -> float:
    """Exponential, but flattened near its start so that the first delays have no pile-up at 0 or at base."""
    return 2.0**t * math.tanh(math.sqrt(4.0 * t)) if t > 0.0 else 0.0


@functools.lru_cache(maxsize=256)
def _v2_scale(base: float, cap: float) -> tuple[float, int]:
    """Seconds per unit of the curve (1 / 1.4 puts the first median near base), and the last step to use."""
    unit = min(base / 1.4, cap / _v2_curve(1.0))
    step = 0
    while unit * (_v2_curve(step + 2.0) - _v2_curve(float(step))) <= cap and step < 1000:
        step += 1
    return unit, step


_KINDS: dict[Kind, Callable[[Backoff, BackoffState, float], _Step]] = {
    "full": _full,
    "equal": _equal,
    "decorrelated": _decorrelated,
    "decorrelated_v2": _decorrelated_v2,
    "exponential": _exponential,
    "linear": _linear,
    "constant": _constant,
    "none": _none,
}
