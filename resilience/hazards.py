"""Known mistakes in the order of policies, found when a pipeline is built."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from .policies.cache import Cache
from .policies.chaos import Chaos
from .policies.circuit_breaker import CircuitBreaker
from .policies.fallback import Fallback
from .policies.hedge import Hedge
from .policies.rate_limiter import RateLimiter
from .policies.retry import Retry
from .policies.timeout import Timeout
from .policy import Policy


def hazards(policies: Sequence[Policy]) -> Iterator[str]:
    """One sentence per mistake; `policies` are listed outermost first, nested pipelines included."""
    flat = list(_flat(policies))
    for outer, inner in combinations(flat, 2):
        hazard = _pair(outer, inner)
        if hazard:
            yield hazard
    yield from _windows(flat)


def _flat(policies: Sequence[Policy]) -> Iterator[Policy]:
    for policy in policies:
        nested = getattr(policy, "policies", None)
        if nested is None:
            yield policy
        else:
            yield from _flat(nested)


def _pair(outer: Policy, inner: Policy) -> str | None:
    match outer, inner:
        case _ if outer is inner:
            return f"{outer.name} is listed twice: every call passes it twice"
        case Timeout(), Timeout() if inner.seconds >= outer.seconds:
            return (
                f"the inner timeout of {inner.seconds:g} s never fires, because the outer one of {outer.seconds:g} s "
                "is over first"
            )
        case Retry(), Fallback():
            return "a retry around a fallback never sees a failure; put the fallback outside"
        case Retry(), Retry():
            return f"nested retries multiply: {outer.attempts} x {inner.attempts} attempts at worst"
        case Hedge(), Retry():
            return "a hedge around a retry hedges its pauses, and all its attempts once more; put the retry outside"
        case Hedge(), Hedge():
            return f"nested hedges multiply: {1 + outer.at_most} x {1 + inner.at_most} attempts at worst"
        case Retry(), Hedge() if inner.fills and inner.budget is not None and inner.budget is outer.budget:
            return "every call fills the budget twice; give the hedge the retry instead: Hedge(..., budget=retry)"
        case Chaos(), _ if not isinstance(inner, Chaos):
            return f"chaos around {inner.name} disturbs that policy instead of the dependency; put it innermost"
        case CircuitBreaker(), Retry():
            return "a breaker around a retry sees one outcome for several attempts; put the breaker inside"
        case RateLimiter(), Retry():
            return "a rate limiter around a retry does not count the retries; put the limiter inside"
        case CircuitBreaker(), Fallback():
            return "a breaker around a fallback never sees a failure; put the fallback outside"
        case Cache(), Fallback():
            return "a cache around a fallback keeps its answers as long as good ones; put the fallback outside"
        case CircuitBreaker(), Cache():
            return "a breaker around a cache takes hits for successes; put the breaker inside"
        case _:
            return None


def _windows(flat: Sequence[Policy]) -> Iterator[str]:
    """A call that takes longer than the breaker's window leaves before it is counted with its peers."""
    breakers = [policy for policy in flat if isinstance(policy, CircuitBreaker)]
    timeouts = [policy.seconds for policy in flat if isinstance(policy, Timeout)]
    for breaker in breakers:
        period = breaker.rule.period
        if timeouts and period is not None and period < min(timeouts):
            yield (
                f"the window of {breaker.name} ({period:g} s) is shorter than the shortest timeout "
                f"({min(timeouts):g} s): timed-out calls hardly count"
            )
