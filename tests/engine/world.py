"""A script brought to life: real policies in virtual time, and a trace of everything that can be seen."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import anyio

from resilience import (
    Advice,
    Backoff,
    Bulkhead,
    CircuitBreaker,
    Classifier,
    Fallback,
    HazardWarning,
    LastGood,
    Pipeline,
    Policy,
    RateLimiter,
    RatioBudget,
    Retry,
    Timeout,
    TokenBudget,
    Value,
    Verdict,
    clock,
)
from resilience.call import Call
from resilience.events import Event
from tests.support.failures import broken, is_bad
from tests.support.rules import make_rule

from .lateness import late
from .scripts import QUANTUM, PolicySpec, Script, spread

KEYS = ("", "a", "b")
NEVER = 40_000 * QUANTUM
"""Seconds until a timeout that no script lives to see."""


def draw() -> float:
    """Randomness that depends on the time only: the paths do not draw equally often."""
    return int(clock.now() * 2**26) * 2654435761 % 2**32 // 2**26 / 64


def describe(error: BaseException | None, context: bool = True) -> Any:
    """An exception as a value: what it is, its notes, and the kinds of those it came from."""
    if error is None:
        return None
    if isinstance(error, anyio.get_cancelled_exc_class()):  # trio's tell who cancelled
        return "cancelled"
    chain = [type(link).__name__ for link in _contexts(error)] if context else []
    notes = getattr(error, "__notes__", [])
    return (type(error).__name__, error.args, list(notes), type(error.__cause__).__name__, chain)


def _contexts(error: BaseException) -> Iterator[BaseException]:
    link = error.__context__
    while link is not None:
        yield link
        link = link.__context__


def on_fast_path() -> bool:
    """Whether the innermost thing above the caller that guards it is a generated frame."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<resilience frame"):
            return True
        if frame.f_code.co_name in ("guarded", "retrying", "resume"):
            return False
        frame = frame.f_back
    return False


def _throttled(result: Any, error: Exception | None) -> Advice | None:
    return Advice(QUANTUM * 4, throttled=True) if result == "bad" or isinstance(error, KeyError) else None


def _bad(result: Any) -> Verdict:
    return Verdict.FAILURE if is_bad(result) else Verdict.SUCCESS


def _tolerated(result: Any) -> Verdict:
    return Verdict.IGNORED if is_bad(result) else Verdict.SUCCESS


CLASSIFIERS = {
    "default": Classifier(),
    "bad": Classifier(result=_bad),
    "throttled": Classifier(result=_tolerated, advice=_throttled),
}
_ON: dict[str | None, Any] = {None: None, "key": KeyError, "bad": is_bad, "broken": broken}


class World:
    """A pipeline made of specs, and the trace of what happens to it."""

    def __init__(self, script: Script, together: bool) -> None:
        self.trace: list[tuple[Any, ...]] = []
        self._together = together
        self.leaves: list[Policy] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HazardWarning)
            policies = [self._make(spec) for spec in script.policies]
            self.pipeline = Pipeline(*policies, name="all", classifier=CLASSIFIERS[script.judge])
        if script.listen:
            self.pipeline.listen(self.hear)

    def note(self, *what: Any) -> None:
        """Add to the trace, with the time."""
        self.trace.append((clock.now(), *what))

    def hear(self, event: Event) -> None:
        """Listen."""
        fields = {
            name: describe(value) if isinstance(value, BaseException) else value
            for name, value in event.as_dict().items()
        }
        self.note("event", event.kind, fields)

    def look(self) -> None:
        """Put the state of everything into the trace."""
        for leaf in self.leaves:
            match leaf:
                case CircuitBreaker():
                    self.note(leaf.name, leaf.rejected, [leaf.metrics(key) for key in KEYS])
                case Bulkhead():
                    self.note(leaf.name, leaf.rejected, [(leaf.in_use(key), leaf.waiting(key)) for key in KEYS])
                case RateLimiter():
                    costs = (1,) * len(leaf.rules)
                    self.note(leaf.name, leaf.rejected, [leaf.line.limiter.peek(key, costs) for key in KEYS])
                case Retry(budget=budget) if budget is not None:
                    self.note(leaf.name, budget.available(clock.now()))
                case _:
                    pass

    async def act(self, what: str, which: int) -> None:
        """Do something to a policy by hand, if it has a hand for it."""
        leaf = self.leaves[which % len(self.leaves)]
        self.note("act", what, leaf.name)
        match what, leaf:
            case "mode", CircuitBreaker() | Bulkhead() | RateLimiter():
                leaf.mode = "shadow" if leaf.mode == "enforce" else "enforce"
            case "resize", Bulkhead():
                leaf.resize(leaf.limit % 4 + 1)
            case "drain", Bulkhead():
                await leaf.drain()
            case "reset", RateLimiter():
                await leaf.reset()
            case "reset", CircuitBreaker():
                leaf.reset()
            case "refund", RateLimiter():
                await leaf.refund()
            case "isolate", CircuitBreaker():
                leaf.isolate()
            case "listen", _:
                leaf.listen(self.hear)
            case _:
                self.look()

    def _make(self, spec: PolicySpec) -> Policy:
        if spec.kind == "Pipeline":
            return Pipeline(*map(self._make, spec.inside), name="nested")
        mark = len(self.leaves)
        policy = _MAKERS[spec.kind](dict(spec.options), f"{spec.kind}{mark}", 1000 + mark)
        if self._together and isinstance(policy, Timeout):
            policy = Timeout(NEVER + policy.seconds, name=policy.name)
        elif not self._together and isinstance(policy, Retry):
            late(policy)
        self.leaves.append(policy)
        return policy


def _timeout(options: dict[str, Any], name: str, mark: int) -> Timeout:
    return Timeout(spread(options["seconds"], mark), name=name)


def _retry(options: dict[str, Any], name: str, mark: int) -> Retry:
    backoffs: dict[str, Callable[[float], Backoff]] = {
        "full": Backoff.full,
        "constant": Backoff.constant,
        "exponential": Backoff.exponential,
        "none": lambda base: Backoff.none(),
    }
    budgets = {"small": TokenBudget(30), "ratio": RatioBudget(0.25, window=1, minimum_per_second=1), None: None}
    return Retry(
        options["attempts"],
        backoff=backoffs[options["backoff"]](options["base"] * QUANTUM),
        throttled=Backoff.constant(options["base"] * QUANTUM),
        on=_ON[options["on"]],
        on_result=_ON[options["on_result"]],
        budget=budgets.get(options["budget"], "own"),
        random=draw,
        name=name,
    )


def _breaker(options: dict[str, Any], name: str, mark: int) -> CircuitBreaker:
    size, slow = options["size"], options["slow_call"]
    return CircuitBreaker(
        failure_rate=options["failure_rate"],
        slow_rate=None if slow is None else 0.5,
        slow_call=None if slow is None else spread(slow, mark),
        minimum_calls=size,
        count=size if options["window"] == "count" else None,
        period=size * 32 * QUANTUM if options["window"] == "period" else None,
        buckets=4,
        open_for=options["open_for"] * QUANTUM,
        jitter=0.25,
        probes=options["probes"],
        probe_lease=spread(300, mark),
        on=_ON[options["on"]],
        on_result=_ON[options["on_result"]],
        mode=options["mode"],
        keyed=options["keyed"],
        random=draw,
        name=name,
    )


def _bulkhead(options: dict[str, Any], name: str, mark: int) -> Bulkhead:
    weight, wait = options["weight"], options["max_wait"]
    return Bulkhead(
        options["limit"],
        queue=options["queue"],
        max_wait=None if wait is None else spread(wait, mark),
        weight=_weigh if weight == "cost" else min(weight, options["limit"]),
        mode=options["mode"],
        keyed=options["keyed"],
        name=name,
    )


def _weigh(call: Call) -> int:
    return 1 if call.args else 2


def _price(call: Call) -> float:
    assert isinstance(call.cost, int | float)
    return call.cost


def _limiter(options: dict[str, Any], name: str, mark: int) -> RateLimiter:
    period, cost, wait = options["period"] * QUANTUM, options["cost"], options["max_wait"]
    rules = [make_rule(options["algorithm"], options["limit"], period, options["burst"])]
    if options["second"]:
        rules.append(make_rule(options["algorithm"], options["limit"] * 4, period * 8, options["burst"] * 4))
    if cost == 2 and any(rule.capacity < 2 for rule in rules):
        cost = None
    return RateLimiter(
        *rules,
        cost=_price if cost == "cost" else cost,
        max_wait=None if wait is None else wait * QUANTUM,
        mode=options["mode"],
        keyed=options["keyed"],
        name=name,
    )


def _fallback(options: dict[str, Any], name: str, mark: int) -> Fallback:
    async def replace(*args: Any, **kwargs: Any) -> str:
        return "replaced"

    sources = {"value": Value("instead"), "function": replace, "broken": _explode, "last_good": LastGood(2)}
    return Fallback(sources[options["source"]], on=_ON[options["on"]], on_result=_ON[options["on_result"]], name=name)


def _explode(*args: Any, **kwargs: Any) -> Any:
    raise LookupError("no replacement")


_MAKERS: dict[str, Callable[[dict[str, Any], str, int], Policy]] = {
    "Timeout": _timeout,
    "Retry": _retry,
    "CircuitBreaker": _breaker,
    "Bulkhead": _bulkhead,
    "RateLimiter": _limiter,
    "Fallback": _fallback,
}
