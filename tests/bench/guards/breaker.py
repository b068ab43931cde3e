"""Opens after 20 failures; where there is a sliding window, at half of at least 20 calls."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from resilience import CircuitBreaker
from tests.bench.contest import OURS, Contestant, Setup, Wrap, fresh
from tests.bench.peers import module
from tests.bench.timing import Work


def ours(setup: Setup) -> CircuitBreaker:
    return CircuitBreaker(count=setup.window, minimum_calls=setup.failures, open_for=setup.open_for, jitter=0.0)


def _nopanic(setup: Setup) -> Wrap:
    policy: Wrap = module("nopanic").circuit_breaker(
        failure_threshold=0.5, min_calls=setup.failures, reset_timeout=setup.open_for
    )
    return policy


def _hyx(setup: Setup) -> Wrap:
    policy: Wrap = module("hyx", "circuitbreaker").consecutive_breaker(
        failure_threshold=setup.failures, recovery_time_secs=setup.open_for
    )
    return policy


def _pyresilience(setup: Setup) -> Wrap:
    library = module("pyresilience")
    policy: Wrap = library.resilient(
        circuit_breaker=library.CircuitBreakerConfig(
            sliding_window_size=setup.window, minimum_calls=setup.failures, recovery_timeout=setup.open_for
        )
    )
    return policy


def _aioresilience(setup: Setup) -> Wrap:
    library = module("aioresilience")
    config = library.CircuitConfig(failure_threshold=setup.failures, recovery_timeout=setup.open_for)
    policy: Wrap = library.with_circuit_breaker(library.CircuitBreaker(fresh(), config))
    return policy


def _aiobreaker(setup: Setup) -> Wrap:
    policy: Wrap = module("aiobreaker").CircuitBreaker(
        fail_max=setup.failures, timeout_duration=timedelta(seconds=setup.open_for)
    )
    return policy


def _purgatory(setup: Setup) -> Wrap:
    factory: Any = module("purgatory").AsyncCircuitBreakerFactory(
        default_threshold=setup.failures, default_ttl=setup.open_for
    )
    policy: Wrap = factory(fresh())
    return policy


def _interlock(setup: Setup) -> Wrap:
    interlock = module("interlock-cb")
    config = interlock.Config(
        minimum_number_of_calls=setup.failures, window_size=setup.window, wait_duration_in_open=setup.open_for
    )
    breaker: Any = interlock.CircuitBreaker(name=fresh(), config=config)

    def wrap(fn: Work) -> Work:
        guarded: Work = breaker(fn)
        return guarded

    return wrap


CONTESTANTS = [
    Contestant(OURS, ours, "sliding window of 100 calls"),
    Contestant("nopanic", _nopanic, "sliding window of 30 s"),
    Contestant("hyx", _hyx, "consecutive failures"),
    Contestant("pyresilience", _pyresilience, "sliding window of 100 calls"),
    Contestant("aioresilience", _aioresilience, "consecutive failures"),
    Contestant("aiobreaker", _aiobreaker, "consecutive failures"),
    Contestant("purgatory", _purgatory, "consecutive failures"),
    Contestant("interlock-cb", _interlock, "sliding window of 100 calls"),
]
