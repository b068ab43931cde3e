"""Random cancellations at every await of every policy, alone and stacked, leave nothing behind.

Every run takes a sample; `RESILIENCE_LONG=1` runs it in full: 100,000 cancellations on asyncio, 20,000 on trio.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import anyio
import pytest

from resilience import (
    Backoff,
    Bulkhead,
    CircuitBreaker,
    Fallback,
    Limit,
    MemoryStore,
    Pipeline,
    Policy,
    RateLimiter,
    Retry,
    Timeout,
    TokenBudget,
)
from resilience.engine import build
from resilience.limits.limiter_state import LimiterSpec
from resilience.limits.memory_ledger import MemoryLedger
from resilience.running import _deadlines
from resilience.testing import DeadlockError, VirtualClock
from tests.cancellation.storm import raging
from tests.cancellation.world import CAPACITY, Attempts, World
from tests.support.rules import ALGORITHMS, LONG

TOTAL = {"asyncio": 100_000 if LONG else 3_000, "trio": 20_000 if LONG else 1_000}
"""Cancellations that must hit, over all scenarios."""


def queueing() -> Bulkhead:
    return Bulkhead(2, queue=50)


def impatient() -> Bulkhead:
    return Bulkhead(2, queue=5, max_wait=0.01)


def heavy(random: Random) -> Bulkhead:
    return Bulkhead(3, queue=50, weight=lambda call: random.choice((1, 1, 2, 3)))


def counting() -> CircuitBreaker:
    """Never opens, so that its window holds every verdict."""
    limit = int(CAPACITY)
    return CircuitBreaker(failure_rate=1.0, period=CAPACITY, minimum_calls=limit, buckets=1)


def flapping() -> CircuitBreaker:
    """Opens all the time, so that many calls are probes."""
    return CircuitBreaker(
        count=4, minimum_calls=2, failure_rate=0.3, open_for=0.01, open_max=0.02, probes=2, probe_lease=CAPACITY
    )


def lined(algorithm: Any = "gcra") -> RateLimiter:
    burst = 2 if algorithm in {"gcra", "token_bucket"} else None
    return RateLimiter("200/s", algorithm=algorithm, burst=burst)


def dimensions(algorithm: Any = "gcra") -> RateLimiter:
    """Now one, now the other makes a call wait."""
    return RateLimiter(
        Limit("200/s"),
        Limit("900/s", dimension="tokens"),
        Limit("4000/20s", dimension="tokens"),
        algorithm=algorithm,
        burst=12 if algorithm in {"gcra", "token_bucket"} else None,
        cost={"requests": 1, "tokens": 5},
    )


def retry(random: Random) -> Retry:
    return Retry(
        4,
        backoff=Backoff.full(base=0.005, cap=0.02),
        budget=TokenBudget(CAPACITY),
        random=random.random,
        max_advice=1.0,
    )


def whole() -> Timeout:
    return Timeout(0.05, name="whole")


def attempt() -> Timeout:
    return Timeout(0.01, name="attempt")


def spare() -> Fallback:
    async def fallback(attempts: Attempts, key: str) -> str:
        attempts.over = True
        await anyio.sleep(0.001)
        return "spare"

    return Fallback(fallback)


SCENARIOS: dict[str, Callable[[Random], World]] = {
    "timeout": lambda random: World(random, [whole()]),
    "bulkhead": lambda random: World(random, [queueing()]),
    "bulkhead, short queue": lambda random: World(random, [impatient()]),
    "bulkhead, weights": lambda random: World(random, [heavy(random)]),
    "breaker, closed": lambda random: World(random, [counting()]),
    "breaker, half-open": lambda random: World(random, [flapping()], failures=0.5),
    "retry": lambda random: World(random, [retry(random)], failures=0.6),
    "fallback": lambda random: World(random, [spare()], failures=0.6),
    **{
        f"limiter, {algorithm}": lambda random, algorithm=algorithm: World(random, [lined(algorithm)])  # type: ignore[misc] # bound by the default
        for algorithm in ALGORITHMS
    },
    **{
        f"limiter with dimensions, {algorithm}": lambda random, algorithm=algorithm: World(  # type: ignore[misc] # bound by the default
            random, [dimensions(algorithm)]
        )
        for algorithm in ALGORITHMS
    },
    "timeout, bulkhead": lambda random: World(random, [whole(), queueing()]),
    "timeout, limiter": lambda random: World(random, [whole(), lined()]),
    "bulkhead, breaker, timeout": lambda random: World(random, [queueing(), counting(), attempt()]),
    "breaker, limiter, timeout": lambda random: World(random, [flapping(), lined(), attempt()]),
    "timeout, retry, timeout": lambda random: World(random, [whole(), retry(random), attempt()], failures=0.6),
    "retry, breaker": lambda random: World(random, [retry(random), counting()], failures=0.6),
    "all but the retry": lambda random: World(random, [whole(), queueing(), counting(), lined(), attempt()]),
    "everything": lambda random: World(
        random, [spare(), whole(), queueing(), retry(random), counting(), lined(), attempt()], failures=0.5
    ),
    "everything, half-open": lambda random: World(
        random, [whole(), queueing(), Retry(3, random=random.random, budget=None), flapping(), lined(), attempt()]
    ),
}

WAYS = ["asyncio task fused", "asyncio task plain", "asyncio scope fused", "trio scope fused", "trio scope plain"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scenario", list(SCENARIOS))
def test_nothing_is_missing_after_a_storm(scenario: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, kind, path = way.split()
    monkeypatch.setattr(build, "fused", path == "fused")
    shares = len(SCENARIOS) * sum(other.startswith(backend) for other in WAYS)
    hits = -(-TOTAL[backend] // shares)
    seed = zlib.crc32(f"{scenario} {way}".encode())
    virtual = VirtualClock()
    with virtual.installed():
        storm = virtual.run(
            raging(SCENARIOS[scenario], seed, kind == "task", hits),
            backend="trio" if backend == "trio" else "asyncio",
        )
    assert storm.hits >= hits
    assert not _deadlines._alarms, "an alarm is still armed"
    print(f"{storm.hits} cancellations hit in {storm.rounds} rounds")


class Leaking(Bulkhead):
    """Keeps the permits of cancelled calls."""

    def leave(self, call: Any, token: Any, result: Any, error: BaseException | None) -> None:
        if error is None or isinstance(error, Exception):
            super().leave(call, token, result, error)


class Judging(CircuitBreaker):
    """Counts cancelled calls as failures."""

    def leave(self, call: Any, token: Any, result: Any, error: BaseException | None) -> None:
        failed = error is None or isinstance(error, Exception)
        super().leave(call, token, result, error if failed else KeyError())


class Charging(MemoryLedger):
    """Charges for waits that were cancelled."""

    def refund(self, key: str, costs: Sequence[float], stamp: object = None) -> None:
        return


class ChargingStore(MemoryStore):
    def limiter(self, spec: LimiterSpec) -> MemoryLedger:
        return Charging(spec.rules)


FAULTY: dict[str, Callable[[], Policy]] = {
    "permits": lambda: Leaking(2, queue=50),
    "verdicts": lambda: Judging(failure_rate=1.0, period=CAPACITY, minimum_calls=int(CAPACITY), buckets=1),
    "units": lambda: RateLimiter("200/s", burst=2, name="charging", store=ChargingStore()),
}


@pytest.mark.parametrize("fault", list(FAULTY))
def test_the_account_notices(fault: str) -> None:
    """A storm over a policy that handles cancellation wrongly does fail."""
    virtual = VirtualClock(patience=0.1)
    with virtual.installed(), pytest.raises((AssertionError, DeadlockError)):
        virtual.run(raging(lambda random: World(random, [FAULTY[fault]()]), 1, True, 200))


def test_pipelines_in_worlds_are_fused() -> None:
    """Otherwise the storms would not reach the generated frames."""
    assert Pipeline(whole(), queueing(), retry(Random(1)), counting(), lined(), attempt()).source
