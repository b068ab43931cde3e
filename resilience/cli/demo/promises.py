"""What the protection promises, held against what was measured.

Each promise is a sentence with a number that may not be exceeded (or fallen short of). They hold on slow and
busy machines too: where a moment of the machine's own could spoil a figure, the figure accounts for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from .plan import BURST, RATE, TIMEOUT, Plan
from .tally import Tally, quantiles, recovered_after, tightest_second

SLACK = 0.25
"""Seconds by which a busy machine may be late to run what is due."""

SHARE = 0.5
"""Of the unprotected load, what may reach an upstream that fails."""

RECOVERY = 3.0
"""Seconds after which an upstream that is back, cold at first, must be in use again."""


LONG = 12.0
"""Seconds from which on a demonstration shows what overload costs; in a shorter one phases hardly outlast timeouts."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A sentence, what was measured (None: it never happened), the bound, and whether it was kept."""

    text: str
    measured: float | None
    bound: float
    kept: bool


def judge(plan: Plan, protected: Tally, unprotected: Tally) -> list[Promise]:
    """All promises of a demonstration that is over."""
    promises = [
        _same_load(protected, unprotected),
        _limit(protected),
        _relief(plan, protected, unprotected),
        _patience(protected),
        _recovery(plan, protected),
        _nothing_held(protected),
    ]
    if plan.seconds >= LONG:
        promises.append(_goodput(plan, protected, unprotected))
    return promises


def _same_load(protected: Tally, unprotected: Tally) -> Promise:
    calls = len(protected.answers)
    bound = len(unprotected.answers)
    return Promise("both kinds of callers made the same number of calls", calls, bound, 0 < calls == bound)


def _limit(protected: Tally) -> Promise:
    second = tightest_second(protected.arrivals, RATE, BURST)
    text = (
        f"the shared limit held: in no second more requests than the {RATE}/s and the burst of {BURST} allow"
        f" (they travelled up to {second.late:.3f} s)"
    )
    return _at_most(text, second.requests, second.allowed)


def _relief(plan: Plan, protected: Tally, unprotected: Tally) -> Promise:
    begin, end = plan.span("failing")
    bound = SHARE * unprotected.load(begin, end)
    text = f"the failing upstream got at most {SHARE:.0%} of the requests it got without protection"
    return _at_most(text, protected.load(begin, end), bound)


def _goodput(plan: Plan, protected: Tally, unprotected: Tally) -> Promise:
    measured, bound = protected.goodput(0.0, plan.seconds), unprotected.goodput(0.0, plan.seconds)
    return Promise("at least as many good answers a second as without protection", measured, bound, measured >= bound)


def _patience(protected: Tally) -> Promise:
    _, p99 = quantiles(protected.answers)
    text = f"99 % of the callers had their answer within the pipeline's {TIMEOUT:g} s (and {SLACK:g} s for the machine)"
    return _at_most(text, p99, TIMEOUT + SLACK)


def _recovery(plan: Plan, protected: Tally) -> Promise:
    text = f"{RECOVERY:g} s after the upstream's return, half of the calls or more succeeded, and went on to"
    return _at_most(text, recovered_after(protected.answers, *plan.span("recovering")), RECOVERY)


def _nothing_held(protected: Tally) -> Promise:
    held = sum(protected.held.values()) if protected.held else None
    return _at_most("no permit was held when the last call was over", held, 0)


def _at_most(text: str, measured: float | None, bound: float) -> Promise:
    return Promise(text, measured, bound, measured is not None and measured <= bound)
