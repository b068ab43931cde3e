"""Three attempts in all, any exception, a short growing pause with jitter where the library has one."""

from __future__ import annotations

from resilience import Backoff, Retry
from tests.bench.contest import OURS, Contestant, Setup, Wrap
from tests.bench.peers import module


def ours(setup: Setup) -> Retry:
    return Retry(attempts=setup.attempts, backoff=Backoff.full(base=setup.pause))


def _nopanic(setup: Setup) -> Wrap:
    nopanic = module("nopanic")
    policy: Wrap = nopanic.retry(setup.attempts, backoff=nopanic.backoff.full_jitter(base=setup.pause, cap=1.0))
    return policy


def _hyx(setup: Setup) -> Wrap:
    # Its attempts are those after the first.
    policy: Wrap = module("hyx", "retry").retry(attempts=setup.attempts - 1, backoff=setup.pause)
    return policy


def _pyresilience(setup: Setup) -> Wrap:
    pyresilience = module("pyresilience")
    policy: Wrap = pyresilience.resilient(
        retry=pyresilience.RetryConfig(max_attempts=setup.attempts, delay=setup.pause)
    )
    return policy


def _aioresilience(setup: Setup) -> Wrap:
    library = module("aioresilience")
    config = library.RetryConfig(max_attempts=setup.attempts, initial_delay=setup.pause)
    policy: Wrap = library.with_retry(library.RetryPolicy(config))
    return policy


def _tenacity(setup: Setup) -> Wrap:
    tenacity = module("tenacity")
    policy: Wrap = tenacity.retry(
        stop=tenacity.stop_after_attempt(setup.attempts),
        wait=tenacity.wait_random_exponential(multiplier=setup.pause),
        reraise=True,
    )
    return policy


def _stamina(setup: Setup) -> Wrap:
    stamina = module("stamina")
    stamina.instrumentation.set_on_retry_hooks([])  # it logs every retry by default, also those of our checks
    policy: Wrap = stamina.retry(
        on=Exception, attempts=setup.attempts, wait_initial=setup.pause, wait_jitter=setup.pause
    )
    return policy


CONTESTANTS = [
    Contestant(OURS, ours, "with a retry budget"),
    Contestant("nopanic", _nopanic),
    Contestant("hyx", _hyx, "no jitter"),
    Contestant("pyresilience", _pyresilience),
    Contestant("aioresilience", _aioresilience),
    Contestant("tenacity", _tenacity),
    Contestant("stamina", _stamina),
]
