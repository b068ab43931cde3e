"""Five policies around one function: timeout, bulkhead, retry, breaker, limiter, the first outermost.

Everyone gets the same five with the settings of `Setup`, in this order where the order is the user's to choose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from resilience import Pipeline
from tests.bench.contest import Contestant, Setup, Wrap
from tests.bench.guards import breaker, bulkhead, limiter, retry, timeout
from tests.bench.peers import module
from tests.bench.timing import Work


def ours(setup: Setup) -> Pipeline:
    """The shipped policies as anyone would put them together."""
    return Pipeline(
        timeout.ours(setup),
        bulkhead.ours(setup),
        retry.ours(setup),
        breaker.ours(setup),
        limiter.ours(setup),
        name="bench",
    )


def _nopanic(setup: Setup) -> Wrap:
    nopanic = module("nopanic")
    rejections = (nopanic.CircuitOpen, nopanic.RateLimited)  # by default it would wait for the circuit to close
    stack: Wrap = nopanic.compose(
        nopanic.timeout(setup.seconds),
        nopanic.bulkhead(setup.permits, max_wait=0),
        nopanic.retry(
            setup.attempts,
            backoff=nopanic.backoff.full_jitter(base=setup.pause, cap=1.0),
            giveup=partial(_is_one_of, rejections),
        ),
        nopanic.circuit_breaker(failure_threshold=0.5, min_calls=setup.failures, reset_timeout=setup.open_for),
        nopanic.rate_limit(setup.rate, setup.per, max_wait=0),
    )
    return stack


def _pyresilience(setup: Setup) -> Wrap:
    library = module("pyresilience")
    policy: Wrap = library.resilient(
        retry=library.RetryConfig(max_attempts=setup.attempts, delay=setup.pause),
        timeout=library.TimeoutConfig(seconds=setup.seconds, per_attempt=False),
        circuit_breaker=library.CircuitBreakerConfig(
            sliding_window_size=setup.window, minimum_calls=setup.failures, recovery_timeout=setup.open_for
        ),
        bulkhead=library.BulkheadConfig(max_concurrent=setup.permits, max_wait=0.0),
        rate_limiter=library.RateLimiterConfig(max_calls=setup.rate, period=setup.per, max_wait=0.0),
    )
    return policy


def by_hand(makes: Sequence[Callable[[Setup], Wrap]]) -> Callable[[Setup], Wrap]:
    """One library's guard around the next one's, the first outermost."""

    def make(setup: Setup) -> Wrap:
        wraps = [make(setup) for make in makes]

        def wrap(fn: Work) -> Work:
            for each in reversed(wraps):
                fn = each(fn)
            return fn

        return wrap

    return make


def _of_one(library: str) -> Callable[[Setup], Wrap]:
    """The five decorators of a library that has all of them."""

    def make(setup: Setup) -> Wrap:
        return by_hand([_find(discipline, library) for discipline in DISCIPLINES.values()])(setup)

    return make


def _popular(setup: Setup) -> Wrap:
    parts = [("timeout", "asyncio timeout"), ("bulkhead", "asyncio Semaphore"), ("retry", "stamina")]
    parts += [("breaker", "purgatory"), ("limiter", "aiolimiter")]
    return by_hand([_find(DISCIPLINES[policy], name) for policy, name in parts])(setup)


def _find(discipline: Any, name: str) -> Callable[[Setup], Wrap]:
    make: Callable[[Setup], Wrap] = next(each.make for each in discipline.CONTESTANTS if each.name == name)
    return make


def _is_one_of(kinds: tuple[type[Exception], ...], error: BaseException) -> bool:
    return isinstance(error, kinds)


DISCIPLINES: dict[str, Any] = {
    "timeout": timeout,
    "bulkhead": bulkhead,
    "retry": retry,
    "breaker": breaker,
    "limiter": limiter,
}
"""The modules of single policies, outermost of a stack first."""

PEERS = [
    Contestant("nopanic", _nopanic),
    Contestant("hyx", _of_one("hyx"), "consecutive breaker"),
    Contestant("pyresilience", _pyresilience),
    Contestant("aioresilience", _of_one("aioresilience"), "consecutive breaker"),
]
"""Libraries that bring all five."""

POPULAR = Contestant("by hand", _popular, how="asyncio timeout + Semaphore, stamina, purgatory, aiolimiter")
