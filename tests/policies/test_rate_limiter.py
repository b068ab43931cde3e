from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import pytest

from resilience import (
    GCRA,
    FixedWindow,
    LeakyBucket,
    MemoryStore,
    RateLimitedError,
    RateLimiter,
    RejectedError,
    SlidingLog,
    SlidingWindow,
    Store,
    StoreUnavailableError,
    TimedOutError,
    Timeout,
    TokenBucket,
    clock,
)
from resilience.call import Call
from resilience.events import CallRejected, PermitAwaited, StoreDegraded, StoreRecovered
from resilience.limits.limiter_state import Booking, LimiterSpec
from resilience.limits.memory_limiter import MemoryLimiter
from resilience.machines.rate_limiter import Decision
from resilience.testing import EventRecorder, FaultScript, run
from tests.support.engine import Engine
from tests.support.scopes import cancelled_after

pytestmark = pytest.mark.anyio

ALGORITHMS = ["gcra", "token_bucket", "fixed_window", "sliding_window", "sliding_log", "leaky_bucket"]
UP = FaultScript("up", repeat=True)


async def hasten(protected: Any, **binding: Any) -> int:
    """Call until refused; how often it went well."""
    for count in range(10_000):
        if not (await protected.bind(**binding).outcome(UP)).ok:
            return count
    raise AssertionError("never refused")


class Runner:
    """Calls that note when they were admitted."""

    def __init__(self, protected: Any) -> None:
        self.protected = protected
        self.admitted: list[tuple[str, float]] = []
        self.refused: list[tuple[str, float]] = []

    async def start(self, group: anyio.abc.TaskGroup, name: str, **binding: Any) -> None:
        """Start a caller and let it come as far as it gets at once."""
        group.start_soon(self, name, binding)
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()

    async def __call__(self, name: str, binding: dict[str, Any] | None = None) -> None:
        outcome = await self.protected.bind(**(binding or {})).outcome(FaultScript("up"))
        (self.admitted if outcome.ok else self.refused).append((name, clock.now()))


@pytest.mark.parametrize(
    ("rates", "options", "error", "message"),
    [
        ((), {}, ValueError, "rates must hold at least one rate"),
        (("fast",), {}, ValueError, 'rate must look like "100/s", "10/minute" or "5000/2h", got \'fast\''),
        (("10/fortnight",), {}, ValueError, "rate must look like"),
        (("-1/s",), {}, ValueError, "rate must look like"),
        (("0/s",), {}, ValueError, "limit must be greater than 0, got 0"),
        (("10/0s",), {}, ValueError, "period must be greater than 0, got 0"),
        ((10,), {}, TypeError, "rates must be strings or rules, got 10"),
        (("10/s",), {"algorithm": "guess"}, ValueError, "algorithm must be one of gcra, token_bucket"),
        (("10/s",), {"burst": 0}, ValueError, "burst must be greater than 0, got 0"),
        (("10/s",), {"burst": 0.5}, ValueError, "burst must be at least 1, got 0.5"),
        (("10/s",), {"burst": math.nan}, ValueError, "burst must be finite, got nan"),
        (("10/s",), {"burst": True}, TypeError, "burst must be a number, got True"),
        (("10/s",), {"burst": 5, "algorithm": "sliding_log"}, ValueError, "burst must be left out for algorithm"),
        ((GCRA(10, 1),), {"burst": 5}, ValueError, "burst must be given to the rule itself"),
        ((GCRA(10, 1), SlidingLog(10, 1)), {}, ValueError, "rates must all have the same algorithm"),
        (("0.5/s",), {"algorithm": "fixed_window"}, ValueError, "limit must be at least 1 for a window"),
        (("2000000/s",), {}, ValueError, "limit must be at most 1000000 per second"),
        (("10/s",), {"max_wait": -1}, ValueError, "max_wait must be at least 0, got -1"),
        (("10/s",), {"max_wait": math.inf}, ValueError, "max_wait must be finite, got inf"),
        (("10/s",), {"cost": 0}, ValueError, "cost must be greater than 0, got 0"),
        (("10/s",), {"cost": "1"}, TypeError, "cost must be a number, got '1'"),
        (("10/s",), {"on_outage": "panic"}, ValueError, "on_outage must be one of 'local', 'open', 'closed'"),
        (("10/s",), {"local_share": 0}, ValueError, "local_share must be greater than 0, got 0"),
        (("10/s",), {"local_share": 1.5}, ValueError, "local_share must be at most 1, got 1.5"),
        (("10/s",), {"mode": "on"}, ValueError, "mode must be one of"),
        (("10/s",), {"max_keys": 0}, ValueError, "max_keys must be at least 1, got 0"),
        (("10/s",), {"store": MemoryStore()}, ValueError, "name is required with a store"),
    ],
)
def test_bad_options_are_refused(rates: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RateLimiter(*rates, **options)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("100/s", GCRA(100, 1.0)),
        ("100 / sec", GCRA(100, 1.0)),
        ("10/minute", GCRA(10, 60.0)),
        ("10 per min", GCRA(10, 60.0)),
        ("5000/2h", GCRA(5000, 7200.0)),
        ("1000/Day", GCRA(1000, 86400.0)),
        ("2.5/500ms", GCRA(2.5, 0.5)),
        ("1/1.5 hours", GCRA(1, 5400.0)),
    ],
)
def test_rates_as_people_write_them(text: str, rule: GCRA) -> None:
    assert RateLimiter(text).rules == (rule,)


def test_every_algorithm_by_name_and_as_a_rule() -> None:
    rules = (GCRA(10, 1), TokenBucket(10, 1), FixedWindow(10, 1), SlidingWindow(10, 1), SlidingLog(10, 1))
    for rule in (*rules, LeakyBucket(10, 1)):
        named: Any = rule.algorithm
        assert RateLimiter("10/s", algorithm=named).rules == RateLimiter(rule).rules == (rule,)
    assert RateLimiter("10/s", burst=3).rules == (GCRA(10, 1, 3),)
    assert RateLimiter("10/s", burst=3, algorithm="token_bucket").rules == (TokenBucket(10, 1, 3),)


async def test_a_burst_may_go_and_then_it_is_refused(engine: Engine) -> None:
    recorder = EventRecorder()
    protected = engine(RateLimiter("10/s", burst=3, max_wait=0, name="api", listeners=[recorder]))
    assert await hasten(protected) == 3
    script = FaultScript("never")
    with pytest.raises(RateLimitedError, match=r"api: more than 10 per 1 s, try again in 0.1 s") as caught:
        await protected.call(script)
    assert caught.value.policy == "api"
    assert caught.value.retry_after == pytest.approx(0.1)
    assert isinstance(caught.value, RejectedError)
    assert script.calls == []
    assert recorder.kinds() == ["call_rejected", "call_rejected"]
    await anyio.sleep(0.1)
    assert await protected.call(FaultScript("up")) == "up"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_overload_gets_the_rate_and_no_more(algorithm: Any) -> None:
    limiter = RateLimiter("10/s", algorithm=algorithm, max_wait=0)
    admitted: list[float] = []
    for _ in range(2000):  # 200 a second for 10 seconds
        if (await limiter.outcome(UP)).ok:
            admitted.append(clock.now())
        await anyio.sleep(0.005)
    assert 95 <= len(admitted) <= 111
    longest = 2.0 if algorithm == "fixed_window" else 1.0
    window = max(sum(start <= moment < start + 0.999 for moment in admitted) for start in admitted)
    assert window <= {"gcra": 20, "token_bucket": 20, "fixed_window": 20}.get(algorithm, 10 * longest) + 1
    assert limiter.rejected == 2000 - len(admitted)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_waiting_callers_are_served_in_order_at_the_rate(algorithm: Any) -> None:
    recorder = EventRecorder()
    runner = Runner(RateLimiter("10/s", algorithm=algorithm, listeners=[recorder]))
    async with anyio.create_task_group() as group:
        for number in range(50):
            await runner.start(group, str(number))
    moments = {int(name): moment for name, moment in runner.admitted}
    assert len(moments) == 50
    assert [moments[number] for number in range(50)] == sorted(moments.values())
    assert 3.9 <= clock.now() <= 5.0
    assert recorder.kinds().count("permit_awaited") >= 40
    waits = [event.waited for event in recorder.of(PermitAwaited)]
    assert waits == sorted(waits)


async def test_a_wait_that_cannot_suffice_is_refused_at_once(engine: Engine) -> None:
    runner = Runner(engine(RateLimiter("1/s", burst=1, max_wait=2.5)))
    async with anyio.create_task_group() as group:
        for name in "abcdef":
            await runner.start(group, name)
    assert runner.admitted == [("a", 0.0), ("b", 1.0), ("c", 2.0)]
    assert runner.refused == [("d", 0.0), ("e", 0.0), ("f", 0.0)]


async def test_the_deadline_bounds_the_wait(engine: Engine) -> None:
    protected = engine(Timeout(1.5), RateLimiter("1/s", burst=1))
    runner = Runner(protected)
    async with anyio.create_task_group() as group:
        for name in "abc":
            await runner.start(group, name)
    assert runner.admitted == [("a", 0.0), ("b", 1.0)]
    assert runner.refused == [("c", 0.0)]  # at once, not when the time is up


async def test_a_deadline_further_out_bounds_the_wait(engine: Engine) -> None:
    limiter = engine(RateLimiter("1/s", burst=1))
    await limiter.call(UP)
    outcome = await engine(Timeout(0.5)).outcome(limiter.call, UP)
    assert isinstance(outcome.error, RateLimitedError)
    assert clock.now() == 0.0


async def test_refusals_cost_nothing(engine: Engine) -> None:
    limiter = RateLimiter("1/s", burst=2, max_wait=0)
    protected = engine(limiter)
    await hasten(protected)
    for _ in range(50):
        await protected.outcome(UP)
    await anyio.sleep(1)
    assert await hasten(protected) == 1


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("victim", [0, 1, 4])
async def test_a_cancelled_wait_leaves_nothing_behind(algorithm: Any, victim: int) -> None:
    limiter = RateLimiter("2/s", algorithm=algorithm)
    while (await limiter.peek()).allowed:
        await limiter.call(UP)
    before = await limiter.peek()
    runner = Runner(limiter)
    scopes = [anyio.CancelScope() for _ in range(5)]

    async def wait(number: int) -> None:
        with scopes[number]:
            await runner(str(number))

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(wait, number)
            await anyio.wait_all_tasks_blocked()
        scopes[victim].cancel()
        await anyio.wait_all_tasks_blocked()
        for number in [each for each in range(5) if each != victim]:
            scopes[number].cancel()
    assert runner.admitted == []
    after = await limiter.peek()
    assert (after.allowed, after.remaining) == (before.allowed, before.remaining)
    assert after.wait == pytest.approx(before.wait)


async def test_those_behind_a_cancelled_waiter_move_up(engine: Engine) -> None:
    runner = Runner(engine(RateLimiter("1/s", burst=1)))
    scope = anyio.CancelScope()

    async def victim() -> None:
        with scope:
            await runner("victim")

    async with anyio.create_task_group() as group:
        for start in (lambda: runner("a"), victim, lambda: runner("b"), lambda: runner("c")):
            group.start_soon(start)
            await anyio.wait_all_tasks_blocked()
        await anyio.sleep(0.5)
        scope.cancel()
    assert runner.admitted == [("a", 0.0), ("b", 1.0), ("c", 2.0)]


async def test_a_large_request_is_not_starved_by_small_ones(engine: Engine) -> None:
    runner = Runner(engine(RateLimiter("10/s", burst=10)))
    async with anyio.create_task_group() as group:
        await runner.start(group, "first", cost=10)
        await runner.start(group, "large", cost=10)
        for _ in range(5):
            await runner.start(group, "small")
    assert runner.admitted[:2] == [("first", 0.0), ("large", pytest.approx(1.0))]


async def test_many_waiters(engine: Engine) -> None:
    runner = Runner(engine(RateLimiter("1000/s", burst=1)))
    async with anyio.create_task_group() as group:
        for number in range(1001):
            await runner.start(group, str(number))
    assert [name for name, _ in runner.admitted] == [str(number) for number in range(1001)]
    assert clock.now() == pytest.approx(1.0)


async def test_costs(engine: Engine) -> None:
    by_option = engine(RateLimiter("10/s", cost=5, max_wait=0))
    assert await hasten(by_option) == 2

    def size(call: Call) -> float:
        return len(call.args[0])

    by_function = engine(RateLimiter("10/s", cost=size, max_wait=0))
    await by_function.call(UP, "12345678")
    assert not (await by_function.outcome(UP, "123")).ok
    assert (await by_function.outcome(UP, "12")).ok
    by_binding = engine(RateLimiter("10/s", max_wait=0))
    assert await hasten(by_binding, cost=2.5) == 4


async def test_impossible_costs_are_errors_and_charge_nothing(engine: Engine) -> None:
    limiter = RateLimiter("10/s", burst=5)
    protected = engine(limiter)
    for cost in (0, -1, math.nan, math.inf, 5.5):
        with pytest.raises(ValueError, match="cost must be"):
            await protected.bind(cost=cost).call(UP)
    assert (await limiter.peek()).remaining == (5.0,)


async def test_several_limits_are_charged_all_or_none(engine: Engine) -> None:
    limiter = RateLimiter("2/s", "3/m", max_wait=0)
    protected = engine(limiter)
    assert await hasten(protected) == 2
    assert (await limiter.peek()).remaining == (0.0, 1.0)
    await anyio.sleep(1)
    assert await hasten(protected) == 1
    outcome = await protected.outcome(UP)
    assert str(outcome.error).startswith("RateLimiter: more than 3 per 60 s")
    assert (await limiter.peek()).remaining[0] == pytest.approx(1.0)


async def test_limits_by_key(engine: Engine) -> None:
    protected = engine(RateLimiter("2/s", max_wait=0))
    assert await hasten(protected, key="eu") == 2
    assert await hasten(protected, key="us") == 2
    assert await hasten(protected) == 2
    shared = engine(RateLimiter("2/s", max_wait=0, keyed=False))
    assert await hasten(shared, key="eu") == 2
    assert await hasten(shared, key="us") == 0


async def test_one_key_waits_without_the_others(engine: Engine) -> None:
    runner = Runner(engine(RateLimiter("1/s", burst=1)))
    async with anyio.create_task_group() as group:
        for name in ("eu1", "eu2", "us1"):
            await runner.start(group, name, key=name[:2])
    assert sorted(runner.admitted) == [("eu1", 0.0), ("eu2", 1.0), ("us1", 0.0)]


@pytest.mark.parametrize("keyed", [True, False])
async def test_peek_refund_and_reset(keyed: bool, engine: Engine) -> None:
    limiter = RateLimiter("10/s", max_wait=0, keyed=keyed)
    protected = engine(limiter)
    assert await limiter.peek(key="eu") == Decision(True, 0.0, 0, (10.0,))
    assert await hasten(protected, key="eu") == 10
    decision = await limiter.peek(key="eu", cost=2)
    assert not decision.allowed
    assert decision.wait == pytest.approx(0.2)
    await limiter.refund(key="eu", cost=3)
    assert await hasten(protected, key="eu") == 3
    await limiter.reset(key="eu")
    assert await hasten(protected, key="eu") == 10
    with pytest.raises(ValueError, match="cost must be"):
        await limiter.peek(cost=11)


async def test_shadow_mode_reports_and_never_waits(engine: Engine) -> None:
    recorder = EventRecorder()
    limiter = RateLimiter("1/s", mode="shadow", listeners=[recorder])
    protected = engine(limiter)
    for _ in range(3):
        assert await protected.call(FaultScript("up")) == "up"
    assert clock.now() == 0.0
    assert limiter.rejected == 2
    assert [event.shadow for event in recorder.of(CallRejected)] == [True, True]


async def test_off_takes_nothing(engine: Engine) -> None:
    limiter = RateLimiter("1/s", mode="off", max_wait=0)
    protected = engine(limiter)
    for _ in range(3):
        await protected.call(FaultScript("up"))
    limiter.mode = "enforce"
    assert await hasten(protected) == 1


async def test_a_limit_is_shared_by_name_and_store(engine: Engine) -> None:
    store = MemoryStore()
    first, second = (RateLimiter("4/s", name="api", store=store, max_wait=0) for _ in range(2))
    await engine(first).call(UP)
    assert await hasten(engine(second)) == 3
    with pytest.raises(ValueError, match="name 'api' is taken by a rate limiter with other settings"):
        RateLimiter("5/s", name="api", store=store)


async def test_a_block_and_a_call_that_failed_have_used_their_units(engine: Engine) -> None:
    protected = engine(RateLimiter("3/s", max_wait=0))
    with pytest.raises(KeyError):
        async with protected.guard():
            raise KeyError
    with pytest.raises(KeyError):
        await protected.call(FaultScript(KeyError))
    async with protected.guard():
        pass
    with pytest.raises(RateLimitedError):
        await protected.guard().__aenter__()


def test_it_works_in_a_second_run() -> None:
    limiter = RateLimiter("1/s", burst=1)

    async def main() -> float:
        runner = Runner(limiter)
        async with anyio.create_task_group() as group:
            for name in "abc":
                await runner.start(group, name)
        assert len(runner.admitted) == 3
        return clock.now()

    assert [run(main) >= 2.0, run(main, backend="trio") >= 2.0, run(main) >= 2.0] == [True] * 3


# With a store elsewhere.


class Elsewhere(Store):
    """A shared store whose server can be taken away."""

    def __init__(self) -> None:
        self.up = True
        self.slow = 0.0
        self.acquired = 0
        self.limiters: list[MemoryLimiter] = []

    def limiter(self, spec: LimiterSpec) -> Far:
        self.limiters.append(MemoryLimiter(spec.rules))
        return Far(self, self.limiters[-1])

    async def reach(self) -> None:
        if self.slow:
            await anyio.sleep(self.slow)
        if not self.up:
            raise StoreUnavailableError("gone")


class Far:
    def __init__(self, store: Elsewhere, state: MemoryLimiter) -> None:
        self._store = store
        self._state = state

    def fleet(self) -> None:
        return None

    async def acquire(self, key: str, costs: Sequence[float], max_wait: float) -> Booking:
        await self._store.reach()
        self._store.acquired += 1
        return self._state.acquire(key, costs, max_wait)

    async def peek(self, key: str, costs: Sequence[float]) -> Decision:
        await self._store.reach()
        return self._state.peek(key, costs)

    async def refund(self, key: str, costs: Sequence[float], stamp: object = None) -> None:
        await self._store.reach()
        self._state.refund(key, costs, stamp)

    async def reset(self, key: str) -> None:
        await self._store.reach()
        self._state.reset(key)


async def test_a_remote_limit_is_asked_once_per_call_waiting_included(engine: Engine) -> None:
    store, recorder = Elsewhere(), EventRecorder()
    limiter = RateLimiter("1/s", burst=1, name="api", store=store, listeners=[recorder])
    runner = Runner(engine(limiter))
    async with anyio.create_task_group() as group:
        for name in "abc":
            await runner.start(group, name)
    assert runner.admitted == [("a", 0.0), ("b", 1.0), ("c", 2.0)]
    assert store.acquired == 3
    assert [event.waited for event in recorder.of(PermitAwaited)] == [1.0, 2.0]
    assert await limiter.peek() == store.limiters[0].peek("", (1,))
    await limiter.refund()
    await limiter.reset()
    assert (await limiter.peek()).remaining == (1.0,)


async def test_a_remote_refusal_and_shadow(engine: Engine) -> None:
    store = Elsewhere()
    limiter = RateLimiter("1/s", max_wait=0, name="api", store=store)
    protected = engine(limiter)
    assert await hasten(protected) == 1
    limiter.mode = "shadow"
    assert await protected.call(FaultScript("up")) == "up"
    limiter.mode = "off"
    assert await protected.call(FaultScript("up")) == "up"
    assert store.acquired == 3


async def test_a_cancelled_remote_wait_is_given_back(engine: Engine) -> None:
    store = Elsewhere()
    limiter = RateLimiter("1/s", burst=1, name="api", store=store)
    protected = engine(limiter)
    await protected.call(UP)
    before = await limiter.peek()
    async with cancelled_after(0.5):
        await protected.call(UP)
    assert (await limiter.peek()).wait == pytest.approx(before.wait - 0.5)
    await anyio.sleep(5)
    await protected.call(UP)

    async def vanish() -> None:
        await anyio.sleep(0.4)
        store.up = False

    async with anyio.create_task_group() as group:
        group.start_soon(vanish)
        async with cancelled_after(0.5):
            await protected.call(UP)
    assert store.limiters[0].peek("", (1,)).wait > 1.0  # could not be given back: less is admitted, never more


@pytest.mark.parametrize("on_outage", ["local", "open", "closed"])
async def test_outages_are_handled_as_told_reported_and_over(on_outage: Any, engine: Engine) -> None:
    store, recorder = Elsewhere(), EventRecorder()
    limiter = RateLimiter(
        "4/s", max_wait=0, name="api", store=store, on_outage=on_outage, local_share=0.5, listeners=[recorder]
    )
    protected = engine(limiter)
    await protected.call(UP)
    store.up = False
    served = [(await protected.outcome(UP)).ok for _ in range(5)]
    # Half the burst of four, less the one that the store has admitted just before.
    assert served.count(True) == {"local": 1, "open": 5, "closed": 0}[on_outage]
    assert limiter.degraded
    for operation in (limiter.peek, limiter.refund, limiter.reset):
        with pytest.raises(StoreUnavailableError):
            await operation()
    (degraded,) = recorder.of(StoreDegraded)
    assert degraded.behaviour == on_outage
    await anyio.sleep(3)
    store.up = True
    await protected.call(UP)
    assert not limiter.degraded
    assert recorder.of(StoreRecovered)[0].degraded_for == 3.0
    if on_outage == "closed":
        assert isinstance(recorder.of(CallRejected)[0].error.__cause__, StoreUnavailableError)


async def test_during_an_outage_a_local_limit_makes_callers_wait(engine: Engine) -> None:
    store = Elsewhere()
    store.up = False
    runner = Runner(engine(RateLimiter("2/s", burst=1, name="api", store=store, max_wait=1.2)))
    async with anyio.create_task_group() as group:
        for name in "abcd":
            await runner.start(group, name)
    assert runner.admitted == [("a", 0.0), ("b", 0.5), ("c", 1.0)]
    assert runner.refused == [("d", 0.0)]


async def test_closed_in_shadow_mode_lets_pass(engine: Engine) -> None:
    store = Elsewhere()
    store.up = False
    limiter = RateLimiter("2/s", name="api", store=store, on_outage="closed", mode="shadow")
    assert await engine(limiter).call(FaultScript("up")) == "up"
    assert limiter.rejected == 1


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_every_algorithm_has_a_local_share(algorithm: Any) -> None:
    store = Elsewhere()
    store.up = False
    limiter = RateLimiter("10/s", algorithm=algorithm, name="api", store=store, local_share=0.5, max_wait=0)
    admitted = 0
    for _ in range(2000):
        admitted += (await limiter.outcome(UP)).ok
        await anyio.sleep(0.01)
    assert 90 <= admitted <= 112


async def test_a_timeout_around_a_slow_store(engine: Engine) -> None:
    store = Elsewhere()
    store.slow = 5.0
    with pytest.raises(TimedOutError):
        await engine(Timeout(1.0), RateLimiter("2/s", name="api", store=store)).call(UP)
    assert clock.now() == 1.0
