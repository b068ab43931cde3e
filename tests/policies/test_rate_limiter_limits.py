"""Several limits in one limiter: dimensions, limits for one key and for all, corrections from outside."""

from __future__ import annotations

import math
import pickle
from typing import Any

import anyio
import pytest

from resilience import (
    GCRA,
    FixedWindow,
    Limit,
    MemoryStore,
    RateLimitedError,
    RateLimiter,
    Store,
    StoreUnavailableError,
    TokenBucket,
    clock,
)
from resilience.call import Call
from resilience.events import CallRejected
from resilience.limits.limiter_state import LimiterSpec, Observation, Reserved
from resilience.limits.memory_ledger import MemoryLedger
from resilience.limits.memory_limiter import MemoryLimiter
from resilience.testing import EventRecorder, FaultScript
from tests.policies.test_rate_limiter import ALGORITHMS, UP, Elsewhere, Far, Runner, hasten
from tests.support.engine import Engine
from tests.support.scopes import cancelled_after

pytestmark = pytest.mark.anyio


def llm(**options: Any) -> RateLimiter:
    return RateLimiter(
        Limit("60/min", dimension="requests"), Limit("20000/min", dimension="tokens"), name="llm", **options
    )


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Limit("fast"), ValueError, "rate must look like"),
        (lambda: Limit(10), TypeError, "rates must be strings or rules, got 10"),  # type: ignore[arg-type] # on purpose
        (lambda: Limit("1/s", name=""), ValueError, "name must be a non-empty string, got ''"),
        (lambda: Limit("1/s", dimension=""), ValueError, "dimension must be a non-empty string, got ''"),
        (lambda: Limit("1/s", burst=0), ValueError, "burst must be greater than 0"),
        (lambda: Limit(GCRA(1, 1.0), burst=2), ValueError, "burst must be given to the rule itself"),
        (lambda: Limit(GCRA(1, 1.0), algorithm="gcra"), ValueError, "algorithm must be left out when the rate is a"),
        (lambda: RateLimiter(Limit("1/s"), Limit("1/s", algorithm="sliding_log")), ValueError, "the same algorithm"),
        (lambda: RateLimiter(Limit("1/s", name="a"), Limit("2/s", name="a")), ValueError, "names of limits must dif"),
        (lambda: llm(cost={"token": 1}), ValueError, "cost must be of the dimensions 'requests', 'tokens', got 'tok"),
        (lambda: llm(cost={"tokens": 0}), ValueError, "cost must be greater than 0 for one limit at least, got 0, 0"),
        (lambda: llm(cost={"tokens": -1}), ValueError, "cost must be greater than 0, got -1"),
        (lambda: llm(cost={"tokens": 20_001}), ValueError, "cost must be at most 20000, the most ever admitted"),
        (lambda: llm(cost={"tokens": "1"}), TypeError, "cost must be a number, got '1'"),
        (lambda: llm(reservation_ttl=0), ValueError, "reservation_ttl must be greater than 0, got 0"),
    ],
)
def test_bad_limits_are_refused_by_name(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_limit_takes_the_limiters_algorithm_and_burst_where_it_has_none() -> None:
    limiter = RateLimiter("10/s", Limit("5/s", burst=3), Limit("7/s"), algorithm="token_bucket", burst=2)
    assert limiter.rules == (TokenBucket(10, 1, 2), TokenBucket(5, 1, 3), TokenBucket(7, 1, 2))
    assert RateLimiter(Limit("10/s", algorithm="fixed_window")).rules == (FixedWindow(10, 1),)
    assert RateLimiter(Limit(GCRA(10, 1.0))).rules == (GCRA(10, 1.0),)
    assert [limit.label for limit in RateLimiter("10/s", GCRA(5, 2.0), Limit("1/s", name="x")).limits.all] == [
        "10/s",
        "5/2s",
        "x",
    ]


async def test_every_limit_is_charged_in_its_dimension(engine: Engine) -> None:
    limiter = llm(max_wait=0)
    protected = engine(limiter)
    await protected.bind(cost={"requests": 1, "tokens": 1800}).call(UP)
    assert (await limiter.peek()).remaining == pytest.approx((59, 18_200))
    await protected.bind(cost=lambda: {"tokens": 200}).call(UP)
    assert (await limiter.peek()).remaining == pytest.approx((59, 18_000))
    await protected.bind(cost=9).call(UP)
    assert (await limiter.peek()).remaining == pytest.approx((50, 18_000)), "a plain number counts requests"
    await protected.call(UP)
    async with protected.guard(cost={"tokens": 8000, "requests": 0}):
        pass
    assert (await limiter.peek()).remaining == pytest.approx((49, 10_000))
    with pytest.raises(ValueError, match="cost must be of the dimensions 'requests', 'tokens', got 'calls'"):
        await protected.bind(cost={"calls": 1}).call(UP)
    with pytest.raises(ValueError, match="cost must be greater than 0 for one limit at least"):
        await protected.bind(cost={}).call(UP)


async def test_the_refusal_names_the_limit_that_binds(engine: Engine) -> None:
    recorder = EventRecorder()
    limiter = llm(max_wait=0, listeners=[recorder])
    protected = engine(limiter)
    large = protected.bind(cost={"requests": 1, "tokens": 20_000})
    assert await hasten(protected, cost={"requests": 1, "tokens": 20_000}) == 1
    with pytest.raises(RateLimitedError, match=r"^llm: more than 20000 tokens per 60 s, try again in 60 s$") as caught:
        await large.call(UP)
    assert caught.value.limit == "20000/min"
    assert pickle.loads(pickle.dumps(caught.value)).limit == "20000/min"
    assert await hasten(protected) == 59
    with pytest.raises(RateLimitedError, match=r"^llm: more than 60 per 60 s, try again in 1 s$") as caught:
        await protected.call(UP)
    assert caught.value.limit == "60/min"
    assert recorder.of(CallRejected)[0].error.limit == "20000/min"  # type: ignore[attr-defined] # it is the one above
    named = RateLimiter(Limit("1/s", name="tenant"), max_wait=0)
    await named.call(UP)
    with pytest.raises(RateLimitedError, match=r"more than 1 per 1 s \(tenant\), try again in 1 s"):
        await named.call(UP)


async def test_constant_costs_and_functions_of_the_call(engine: Engine) -> None:
    constant = llm(max_wait=0, cost={"requests": 1, "tokens": 10_000})
    assert await hasten(engine(constant)) == 2
    assert constant.constant_cost == 1

    def price(call: Call) -> dict[str, float]:
        return {"tokens": 5000}

    worked_out = llm(max_wait=0, cost=price)
    assert worked_out.constant_cost is None
    assert await hasten(engine(worked_out)) == 4
    single = RateLimiter(Limit("10/s", dimension="tokens"), max_wait=0, cost={"tokens": 5})
    assert single.constant_cost == 5
    assert await hasten(engine(single)) == 2


async def test_plain_numbers_need_to_mean_something() -> None:
    one = RateLimiter(Limit("10/s", dimension="tokens"), Limit("100/h", dimension="tokens"), max_wait=0)
    await one.bind(cost=4).call(UP)
    assert (await one.peek()).remaining == pytest.approx((6, 96)), "there is one dimension only"
    neither = RateLimiter(Limit("10/s", dimension="in"), Limit("10/s", dimension="out"))
    with pytest.raises(ValueError, match="cost must say how much of each dimension \\('in', 'out'\\), got 1"):
        await neither.call(UP)
    await neither.bind(cost={"in": 1, "out": 1}).call(UP)


async def test_a_tenant_and_all_of_them_together(engine: Engine) -> None:
    limiter = RateLimiter(Limit("3/s", name="tenant"), Limit("5/s", keyed=False, name="all"), max_wait=0)
    protected = engine(limiter)
    assert await hasten(protected, key="a") == 3
    assert await hasten(protected, key="b") == 2
    with pytest.raises(RateLimitedError) as caught:
        await protected.bind(key="b").call(UP)
    assert caught.value.limit == "all"
    assert (await limiter.peek(key="b")).remaining == pytest.approx((1, 0)), "refused by one, charged by none"
    await limiter.reset(key="a")
    assert (await limiter.peek(key="a")).remaining == pytest.approx((3, 0))
    await limiter.reset()
    assert await hasten(protected, key="a") == 3
    assert not RateLimiter(Limit("3/s", keyed=False)).keyed
    assert RateLimiter("3/s", Limit("3/s", keyed=False), keyed=False).partition("a") == ""


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_waiting_for_a_common_limit_keeps_both_rates(algorithm: Any) -> None:
    limiter = RateLimiter(Limit("4/s"), Limit("5/s", keyed=False), algorithm=algorithm)
    runner = Runner(limiter)
    async with anyio.create_task_group() as group:
        for number in range(30):
            await runner.start(group, str(number), key="abc"[number % 3])
    assert len(runner.admitted) == 30
    assert 4.4 <= clock.now() <= 6.6, "the common limit binds"
    for key in range(3):
        moments = [moment for name, moment in runner.admitted if int(name) % 3 == key]
        assert moments == sorted(moments)


async def test_places_in_line_weigh_by_the_time_they_take() -> None:
    """Five calls of 1,000 tokens need 15 s of the tokens, not 5,000 times the interval of a request."""
    limiter = llm(max_wait=16)
    runner = Runner(limiter)
    await limiter.bind(cost={"tokens": 20_000}).call(UP)
    async with anyio.create_task_group() as group:
        for number in range(6):
            await runner.start(group, str(number), cost={"requests": 1, "tokens": 1000})
    assert [moment for _, moment in runner.admitted] == pytest.approx([3, 6, 9, 12, 15])
    assert runner.refused == [("5", 0.0)]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_cancelled_wait_gives_every_dimension_back(algorithm: Any) -> None:
    limiter = RateLimiter(
        Limit("4/s"), Limit("100/s", dimension="tokens"), Limit("1000/h", keyed=False), algorithm=algorithm
    )
    cost = {"requests": 1, "tokens": 100 if algorithm != "leaky_bucket" else 60}
    await limiter.bind(key="a", cost=cost).call(UP)
    before = await limiter.peek(key="a", cost=cost)
    assert not before.allowed
    for delay in (0.0, 0.1, 0.2):
        async with cancelled_after(delay):
            await limiter.bind(key="a", cost=cost).call(UP)
    after = await limiter.peek(key="a", cost=cost)
    assert after.wait == pytest.approx(before.wait - 0.3)


@pytest.mark.parametrize("algorithm", [each for each in ALGORITHMS if each != "sliding_log"])
async def test_a_cancelled_wait_for_one_dimension_holds_up_no_other(algorithm: Any) -> None:
    """The request was booked for when the tokens would be there; given back, it is as if it never was."""
    limiter = RateLimiter("60/s", Limit("100/min", dimension="tokens"), algorithm=algorithm)
    await limiter.bind(cost={"tokens": 100}).call(UP)
    async with cancelled_after(0.5):
        await limiter.bind(cost={"requests": 1, "tokens": 50}).call(UP)
    assert (await limiter.peek()).remaining[0] == 60
    await limiter.call(UP)
    assert clock.now() == 0.5


# Corrections.


async def test_observe_lowers_what_is_left_and_never_raises_it(engine: Engine) -> None:
    limiter = llm(max_wait=0)
    await limiter.observe(limit="tokens", remaining=5000, reset_after=3)
    assert (await limiter.peek()).remaining == pytest.approx((60, 5000))
    await limiter.observe(limit="20000/min", remaining=15_000)
    assert (await limiter.peek()).remaining == pytest.approx((60, 5000))
    await limiter.observe(limit="requests", remaining=0, reset_after=7, key="a")
    assert (await limiter.peek(key="a")).wait >= 7
    assert (await limiter.peek(key="a", cost={"tokens": 1})).allowed
    with pytest.raises(ValueError, match="limit must name one of the limits '60/min', '20000/min' or a dimension wi"):
        await limiter.observe(remaining=5)
    with pytest.raises(ValueError, match="got 'words'"):
        await limiter.observe(remaining=5, limit="words")
    for bad in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match="remaining must be"):
            await limiter.observe(remaining=bad, limit="tokens")
        with pytest.raises(ValueError, match="reset_after must be"):
            await limiter.observe(remaining=1, reset_after=bad, limit="tokens")
    single = RateLimiter("10/s", max_wait=0)
    await single.observe(remaining=2)
    assert await hasten(engine(single)) == 2


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_drained_limiter_waits_and_goes_on(algorithm: Any, engine: Engine) -> None:
    limiter = RateLimiter("10/s", algorithm=algorithm)
    protected = engine(limiter)
    await limiter.drain(retry_after=2.5)
    assert (await limiter.peek()).remaining[0] == pytest.approx(0)
    with pytest.raises(ValueError, match="retry_after must be at least 0"):
        await limiter.drain(retry_after=-1)
    await protected.call(UP)
    assert 2.5 <= clock.now() <= 2.6001
    await limiter.drain()
    assert not (await limiter.peek()).allowed
    await protected.call(UP)
    assert clock.now() <= 3.61


async def test_a_drain_stops_a_call_by_the_limit_that_recovers_first() -> None:
    limiter = RateLimiter(
        Limit("10/s"), Limit("1000/h"), Limit("100/s", keyed=False), Limit("9/s", dimension="tokens", keyed=False)
    )
    await limiter.drain(key="a", retry_after=5)
    assert (await limiter.peek(key="a")).remaining == pytest.approx((0, 1000, 100, 0))
    assert (await limiter.peek(key="b")).allowed, "one tenant was refused, not all"
    assert not (await limiter.peek(key="b", cost={"tokens": 1})).allowed, "there is no limit of its own for tokens"
    await limiter.drain(key="b", retry_after=5, limit="1000/h")
    assert (await limiter.peek(key="b")).remaining == pytest.approx((10, 0, 100, 0))


async def test_a_state_far_ahead_is_not_forgotten() -> None:
    limiter = RateLimiter("10/s", max_wait=0)
    await limiter.drain(key="a", retry_after=1000)
    for _ in range(50):
        await anyio.sleep(19)
        await limiter.call(UP)
        await limiter.bind(key="b").call(UP)
        assert not (await limiter.bind(key="a").outcome(UP)).ok
    await anyio.sleep(51)
    await limiter.bind(key="a").call(UP)


# With a store elsewhere.


class FarLedger(Far):
    """The ledger in memory behind an await."""

    def __init__(self, store: Elsewhere, state: MemoryLedger) -> None:
        super().__init__(store, state)
        self.state = state
        self.voided: list[str] = []

    async def observe(self, key: str, said: list[Observation]) -> None:
        await self._store.reach()
        self.state.observe(key, said)

    async def drain(self, key: str, seconds: list[float | None]) -> None:
        await self._store.reach()
        self.state.drain(key, seconds)

    async def reserve(self, key: str, id: str, costs: tuple[float, ...], max_wait: float, ttl: float) -> Reserved:
        await self._store.reach()
        return self.state.reserve(key, id, costs, max_wait, ttl)

    async def settle(self, key: str, id: str, actual: list[float | None], ttl: float, known: bool = False) -> bool:
        await self._store.reach()
        return self.state.settle(key, id, actual, ttl, known)

    def charge(self, key: str, costs: tuple[float, ...]) -> None:
        self.state.charge(key, costs)

    def void(self, key: str, id: str, ttl: float) -> None:
        self.voided.append(id)


class LedgerElsewhere(Elsewhere):
    """A shared store that keeps account."""

    def limiter(self, spec: LimiterSpec) -> FarLedger:
        self.ledger = FarLedger(self, MemoryLedger(spec.rules, spec.max_keys, spec.common))
        return self.ledger


async def test_corrections_go_to_the_store_and_in_an_outage_to_this_process() -> None:
    store = LedgerElsewhere()
    limiter = RateLimiter("10/s", name="api", store=store, max_wait=0)
    await limiter.observe(remaining=4)
    await limiter.drain(key="a", retry_after=3)
    assert (await limiter.peek()).remaining == pytest.approx((4,))
    assert not (await limiter.peek(key="a")).allowed
    store.up = False
    assert (await limiter.bind(key="a").outcome(UP)).ok, "a limit of its own, that nobody has drained"
    with pytest.raises(StoreUnavailableError):
        await limiter.drain(key="a", retry_after=3)
    with pytest.raises(StoreUnavailableError):
        await limiter.observe(key="b", remaining=0, reset_after=3)
    assert not (await limiter.bind(key="a").outcome(UP)).ok
    assert not (await limiter.bind(key="b").outcome(UP)).ok


async def test_a_store_that_keeps_no_account_says_so() -> None:
    limiter = RateLimiter("10/s", name="api", store=Elsewhere())
    with pytest.raises(TypeError, match="store must be one that keeps account; Far does not"):
        await limiter.drain()

    class Plain(Store):
        def limiter(self, spec: LimiterSpec) -> MemoryLimiter:
            return MemoryLimiter(spec.rules)

    limiter = RateLimiter("10/s", name="api", store=Plain())
    with pytest.raises(TypeError, match="store must be one that keeps account; MemoryLimiter does not"):
        await limiter.reserve()
    await limiter.call(FaultScript("up"))


async def test_a_local_share_admits_whatever_the_whole_would() -> None:
    """A call that costs more than a share of the burst is not an error of its caller when the store is away."""
    store = LedgerElsewhere()
    limiter = RateLimiter("10/s", name="api", store=store, local_share=0.2, max_wait=0)
    store.up = False
    assert (await limiter.bind(cost=8).outcome(UP)).ok
    assert not (await limiter.outcome(UP)).ok


def test_leases_hold_no_mixed_limits() -> None:
    with pytest.raises(ValueError, match="shared must be 'strict' where some limits hold for each key"):
        RateLimiter("1/s", Limit("2/s", keyed=False), shared="leased", name="api", store=MemoryStore())
