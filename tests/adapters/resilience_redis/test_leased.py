"""Leased limits against a real server: what costs a round trip and what does not, and that nothing is lost."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from resilience import RateLimitedError, RateLimiter, clock
from resilience.errors import StoreUnavailableError
from resilience.limits.limiter_state import LimiterSpec, RemoteLedger
from resilience.machines.leased_slice import LIFETIME
from resilience.machines.rate_limiter import GCRA, TokenBucket
from resilience.store import Store
from resilience.testing.stores import LIMITER_CHECKS, LimiterCheck
from resilience_redis import RedisStore
from resilience_redis.limits.leased import LeasedLimiter
from resilience_redis.server import Server
from tests.support.rules import ALGORITHMS, AnyRule

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

SURPLUS = 0.05
PATIENT = 5.0  # seconds a call may take on a busy test machine, where the deadline is not the point
SLOW = GCRA(10_000, 3600.0, 10_000)
"""Nothing to speak of comes back while a test runs."""


@pytest_asyncio.fixture
async def store(redis_server: Server, redis_prefix: str) -> AsyncGenerator[RedisStore]:
    async with RedisStore.from_url(redis_server.url, prefix=redis_prefix, timeout=PATIENT) as store:
        yield store


def leased(store: RedisStore, *rules: AnyRule, surplus: float = SURPLUS, name: str = "leased") -> LeasedLimiter:
    limiter = store.limiter(LimiterSpec(name, rules, leased=surplus))
    assert isinstance(limiter, LeasedLimiter)
    return limiter


async def warm(limiter: LeasedLimiter, key: str = "a", calls: int = 20, least: float = 10) -> int:
    """Make so many calls of a key, and more until its slice holds enough; how many they were."""
    made = 0
    while made < calls or held(limiter, key) < least:
        await limiter.acquire(key, (1,) * limiter._terms.limits, 0.0)
        made += 1
    await answered(limiter, key)
    return made


async def answered(limiter: LeasedLimiter, key: str = "a") -> None:
    while limiter._desk().held[key].slice.asking:
        await asyncio.sleep(0.001)


def held(limiter: LeasedLimiter, key: str = "a") -> float:
    known = limiter._desk().held.get(key)
    return known.slice.held(clock.now()) if known else 0.0


def scripts_run(client: Any) -> int:
    stats = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))


def spent(client: Any, limiter: LeasedLimiter, key: str = "a") -> float:
    """Units debited in the server, of a GCRA limit that was fresh a moment ago."""
    arrival = float(client.get(limiter.keys(key)[0]) or 0)
    seconds, microseconds = client.time()
    ahead = arrival - (float(seconds) * 1e6 + float(microseconds))
    return max(0.0, ahead * limiter._rules[0].limit / limiter._rules[0].period / 1e6)


@pytest.mark.asyncio
async def test_calls_from_a_slice_cost_no_round_trip_and_no_turn_of_the_loop(
    store: RedisStore, plain_redis: Any
) -> None:
    limiter = leased(store, SLOW)
    await warm(limiter)
    before, there = scripts_run(plain_redis), int(held(limiter))
    for _ in range(there - 2):
        call = limiter.acquire("a", (1,), 0.0)
        with pytest.raises(StopIteration) as returned:  # it came to its end without ever waiting
            call.send(None)
        assert returned.value.value.decision.allowed
    assert scripts_run(plain_redis) == before


@pytest.mark.asyncio
async def test_who_is_in_a_hurry_takes_what_is_there(store: RedisStore) -> None:
    limiter = leased(store, SLOW)
    assert not limiter.take("a", (1,))
    await warm(limiter)
    there = held(limiter)
    assert limiter.take("a", (1,))
    assert held(limiter) == there - 1
    assert not limiter.take("a", (-1,))
    assert not limiter.take("a", (there,))
    assert not limiter.take("b", (1,))
    assert held(limiter) == there - 1


@pytest.mark.asyncio
async def test_all_that_is_used_was_debited_before(store: RedisStore, plain_redis: Any) -> None:
    limiter = leased(store, SLOW)
    made = await warm(limiter, calls=100)
    assert spent(plain_redis, limiter) == pytest.approx(made + held(limiter), abs=0.5)


@pytest.mark.asyncio
async def test_keys_seldom_used_and_large_costs_go_strict(store: RedisStore, plain_redis: Any) -> None:
    limiter = leased(store, SLOW)
    for key in "abcdef":
        assert (await limiter.acquire(key, (1,), 0.0)).decision.allowed
    assert not limiter._desk().held
    await warm(limiter)
    before = spent(plain_redis, limiter) - held(limiter)
    booking = await limiter.acquire("a", (700,), 0.0)
    assert booking.decision.allowed
    await answered(limiter)
    assert spent(plain_redis, limiter) - held(limiter) == pytest.approx(before + 700, abs=0.5)


@pytest.mark.asyncio
async def test_several_limits_are_leased_together(store: RedisStore, plain_redis: Any) -> None:
    limiter = leased(store, GCRA(1000, 3600.0), GCRA(5000, 7200.0))
    await warm(limiter)
    there = held(limiter)
    booking = await limiter.acquire("a", (1, 2000), 0.0)
    assert held(limiter) == there, "costs that differ are asked for strictly"
    assert booking.decision.remaining[1] - booking.decision.remaining[0] == pytest.approx(4000 - 1999, abs=5)


@pytest.mark.asyncio
async def test_an_empty_limit_is_refused_without_asking(store: RedisStore, plain_redis: Any) -> None:
    limiter = leased(store, GCRA(100, 3600.0), surplus=1.0)
    admitted = 0
    while (await limiter.acquire("a", (1,), 0.0)).decision.allowed:
        admitted += 1
    assert admitted == 100, "all of it, by one who asks for all of it"
    await answered(limiter)
    before = scripts_run(plain_redis)
    for _ in range(200):
        decision = (await limiter.acquire("a", (1,), 0.0)).decision
        assert not decision.allowed
        assert decision.wait > 0
    assert scripts_run(plain_redis) <= before + 2


@pytest.mark.asyncio
async def test_calls_that_may_wait_are_told_when_in_order(store: RedisStore, plain_redis: Any) -> None:
    limiter = leased(store, GCRA(100, 1.0, 100), surplus=1.0)
    await warm(limiter, calls=100, least=0)
    before = scripts_run(plain_redis)
    bookings = await asyncio.gather(*(limiter.acquire("a", (1,), 10.0) for _ in range(200)))
    waits = [each.decision.wait for each in bookings if each.decision.wait]
    assert all(each.decision.allowed for each in bookings)
    assert len(waits) >= 190
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(2.0, abs=0.2)
    assert scripts_run(plain_redis) - before <= 20


@pytest.mark.asyncio
async def test_patience_that_cannot_suffice_is_refused(store: RedisStore) -> None:
    limiter = leased(store, GCRA(100, 1.0, 100), surplus=1.0)
    await warm(limiter, calls=120, least=0)
    decisions = [(await limiter.acquire("a", (1,), 0.3)).decision for _ in range(100)]
    assert {each.allowed for each in decisions} == {True, False}
    assert all(each.wait <= 0.3 for each in decisions if each.allowed)
    assert all(each.wait > 0.25 for each in decisions if not each.allowed)


@pytest.mark.asyncio
async def test_one_question_at_a_time_and_the_others_wait_for_its_answer_in_order(
    store: RedisStore, plain_redis: Any
) -> None:
    limiter = leased(store, SLOW, surplus=1.0)
    await warm(limiter, calls=100)
    await limiter.acquire("a", (held(limiter),), 0.0)
    before = scripts_run(plain_redis)
    order: list[int] = []

    async def call(index: int) -> None:
        assert (await limiter.acquire("a", (1,), 0.0)).decision.allowed
        order.append(index)

    await asyncio.gather(*map(call, range(50)))
    assert order == list(range(50))
    assert scripts_run(plain_redis) - before <= 2


@pytest.mark.asyncio
async def test_a_caller_cancelled_while_it_waits_leaves_nothing(store: RedisStore, plain_redis: Any) -> None:
    limiter = leased(store, SLOW, surplus=1.0)
    await warm(limiter, calls=100)
    used = spent(plain_redis, limiter)
    await limiter.acquire("a", (held(limiter),), 0.0)
    tasks = [asyncio.ensure_future(limiter.acquire("a", (1,), 0.0)) for _ in range(20)]
    await asyncio.sleep(0)
    assert limiter._desk().held["a"].slice.asking
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(each, asyncio.CancelledError) for each in results) == 10
    await answered(limiter)
    assert spent(plain_redis, limiter) - held(limiter) == pytest.approx(used + 10, abs=1)


@pytest.mark.asyncio
async def test_a_caller_cancelled_after_the_answer_puts_it_back(store: RedisStore) -> None:
    limiter = leased(store, SLOW, surplus=1.0)
    await warm(limiter, calls=100)
    await limiter.acquire("a", (held(limiter),), 0.0)
    mine = limiter._desk().held["a"]
    task = asyncio.ensure_future(limiter.acquire("a", (1,), 0.0))
    await asyncio.sleep(0)
    assert mine.slice.asking
    while mine._waiting:
        await asyncio.sleep(0)
    before = held(limiter)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert held(limiter) == before + 1


@pytest.mark.asyncio
async def test_a_wait_that_is_cancelled_goes_back_into_the_slice(store: RedisStore) -> None:
    limiter = RateLimiter("100/s", shared="leased", surplus=1.0, store=store, name="cancelled")
    assert limiter.remote is not None
    remote = limiter.remote.limiter
    assert isinstance(remote, LeasedLimiter)
    await warm(remote, "", calls=120, least=0)
    while held(remote, "") < 5:
        assert (await remote.acquire("", (1,), 10.0)).decision.wait
        await answered(remote, "")

    async def call() -> None:
        async with limiter.guard():
            pass

    before = held(remote, "")
    tasks = [asyncio.ensure_future(call()) for _ in range(3)]
    await asyncio.sleep(0)
    assert held(remote, "") == before - 3
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert held(remote, "") == before


@pytest.mark.asyncio
async def test_idle_slices_go_back_to_the_server(store: RedisStore, plain_redis: Any) -> None:
    limiter = leased(store, SLOW)
    made = await warm(limiter, calls=50)
    async with asyncio.timeout(10):
        while limiter._desk().held:
            await asyncio.sleep(0.01)
    assert spent(plain_redis, limiter) == pytest.approx(made, abs=3)


@pytest.mark.asyncio
async def test_a_key_comes_back_after_a_rest(store: RedisStore) -> None:
    limiter = leased(store, SLOW)
    for _ in range(2):
        await warm(limiter, calls=50)
        async with asyncio.timeout(10):
            while limiter._desk().held:
                await asyncio.sleep(0.01)
        await warm(limiter, calls=4)


@pytest.mark.asyncio
async def test_two_limiters_of_one_name_have_a_slice_each(store: RedisStore, plain_redis: Any) -> None:
    first, second = leased(store, SLOW), leased(store, SLOW)
    made = await warm(first) + await warm(second)
    records = [float(each.split()[0]) for each in plain_redis.hvals(first.keys("a")[-1])]
    assert len(records) == 2
    assert sum(records) >= held(first) + held(second) >= 20
    assert spent(plain_redis, first) == pytest.approx(made + held(first) + held(second), abs=0.5)


@pytest.mark.asyncio
async def test_closing_the_store_gives_everything_back(
    redis_server: Server, redis_prefix: str, plain_redis: Any
) -> None:
    async with RedisStore.from_url(redis_server.url, prefix=redis_prefix, timeout=PATIENT) as store:
        limiter = leased(store, SLOW)
        made = await warm(limiter, calls=50)
        assert spent(plain_redis, limiter) >= made + 9
    assert spent(plain_redis, limiter) == pytest.approx(made, abs=1)
    assert not plain_redis.hkeys(limiter.keys("a")[-1])


@pytest.mark.asyncio
async def test_closing_the_store_gives_back_what_is_on_its_way(
    redis_server: Server, redis_prefix: str, plain_redis: Any
) -> None:
    async with RedisStore.from_url(redis_server.url, prefix=redis_prefix, timeout=PATIENT) as store:
        limiter = leased(store, SLOW)
        await warm(limiter, calls=50)
        await limiter.acquire("a", (held(limiter),), 0.0)
        used = spent(plain_redis, limiter)
        assert limiter._desk().held["a"].slice.asking
    assert spent(plain_redis, limiter) == pytest.approx(used, abs=1)


@pytest.mark.asyncio
async def test_a_closed_store_starts_anew(redis_server: Server, redis_prefix: str) -> None:
    store = RedisStore.from_url(redis_server.url, prefix=redis_prefix, timeout=PATIENT)
    limiter = leased(store, SLOW)
    for _ in range(2):
        async with store:
            await warm(limiter)


def test_a_limiter_outlives_its_loops(redis_server: Server, redis_prefix: str) -> None:
    store = RedisStore.from_url(redis_server.url, prefix=redis_prefix, timeout=PATIENT)
    limiter = leased(store, SLOW)

    async def use() -> int:
        async with store:
            return await warm(limiter)

    assert asyncio.run(use()) >= 20
    assert asyncio.run(use()) >= 20
    assert not limiter._desks


@pytest.mark.asyncio
async def test_peek_counts_what_is_held(store: RedisStore) -> None:
    limiter = leased(store, GCRA(100, 3600.0), surplus=1.0)
    assert await limiter.peek("a", (1,)) == await limiter.strict.peek("a", (1,))
    made = await warm(limiter, calls=20)
    assert (await limiter.peek("a", (1,))).remaining == pytest.approx([100 - made], abs=0.2)
    while (await limiter.acquire("a", (1,), 0.0)).decision.allowed:
        pass
    assert not (await limiter.peek("a", (1,))).allowed


@pytest.mark.asyncio
async def test_peek_finds_in_the_slice_what_the_store_has_no_more(store: RedisStore) -> None:
    limiter = leased(store, GCRA(100, 3600.0), surplus=1.0)
    await warm(limiter, calls=30)
    there = held(limiter)
    left = (await limiter.strict.peek("a", (1,))).remaining[0]
    await limiter.strict.acquire("a", (math.floor(left),), 0.0)
    decision = await limiter.peek("a", (1,))
    assert decision.allowed
    assert decision.remaining == pytest.approx([there], abs=1)


@pytest.mark.asyncio
async def test_a_refund_without_a_stamp_goes_to_the_store(store: RedisStore, plain_redis: Any) -> None:
    limiter = leased(store, SLOW)
    await warm(limiter)
    before = spent(plain_redis, limiter)
    await limiter.refund("a", (5,))
    assert spent(plain_redis, limiter) == pytest.approx(before - 5, abs=0.5)
    booking = await limiter.acquire("a", (1,), 0.0)
    there = held(limiter)
    await limiter.refund("a", (1,), booking.stamp)
    assert held(limiter) == there + 1
    single = await limiter.acquire("b", (3,), 0.0)
    await limiter.refund("b", (3,), single.stamp)
    assert (await limiter.peek("b", (1,))).remaining[0] == pytest.approx(10_000, abs=0.1)


@pytest.mark.asyncio
async def test_reset_forgets_the_slice_too(store: RedisStore) -> None:
    limiter = leased(store, GCRA(100, 3600.0), surplus=1.0)
    await warm(limiter, calls=50)
    await limiter.reset("a")
    assert held(limiter) == 0
    admitted = 0
    while (await limiter.acquire("a", (1,), 0.0)).decision.allowed:
        admitted += 1
    assert admitted == 100


@pytest.mark.asyncio
async def test_bad_costs_and_patience_raise_and_cost_nothing(store: RedisStore) -> None:
    limiter = leased(store, GCRA(100, 3600.0), surplus=1.0)
    await warm(limiter, calls=30)
    before = held(limiter)
    for cost in (0, -1, math.nan, math.inf, 101):
        with pytest.raises(ValueError, match="cost"):
            await limiter.acquire("a", (cost,), 0.0)
    with pytest.raises(ValueError, match="max_wait"):
        await limiter.acquire("a", (1,), math.nan)
    assert not (await limiter.acquire("a", (1,), -1.0)).decision.allowed, "its deadline has passed"
    assert held(limiter) == before


@pytest.mark.parametrize("algorithm", [each for each in ALGORITHMS if each not in ("gcra", "token_bucket")])
def test_algorithms_without_a_bucket_are_refused(algorithm: str) -> None:
    store = RedisStore.from_url("redis://127.0.0.1:1")
    with pytest.raises(ValueError, match=f"shared must be 'strict' for algorithm '{algorithm}'"):
        RateLimiter("100/s", algorithm=algorithm, shared="leased", store=store, name="refused")  # type: ignore[arg-type]  # a parameter


@pytest.mark.asyncio
async def test_the_policy_uses_slices(store: RedisStore, plain_redis: Any) -> None:
    limiter = RateLimiter("1000/s", shared="leased", max_wait=0, store=store, name="policy")
    before = scripts_run(plain_redis)
    admitted: list[None] = []

    async def until_refused() -> None:
        while True:
            async with limiter.guard():
                admitted.append(None)

    with pytest.raises(RateLimitedError) as refusal:
        await until_refused()
    assert len(admitted) >= 1000
    assert refusal.value.retry_after is not None
    assert 0 < refusal.value.retry_after < 1
    assert scripts_run(plain_redis) - before <= len(admitted) / 5


@pytest.mark.asyncio
async def test_a_refusal_names_the_limit_that_binds(store: RedisStore) -> None:
    limiter = leased(store, GCRA(1000, 3600.0), GCRA(100, 7200.0), surplus=1.0)
    await warm(limiter, calls=200, least=0)
    for _ in range(3):
        decision = (await limiter.acquire("a", (1, 1), 0.0)).decision
        assert (decision.allowed, decision.binding) == (False, 1)


@pytest.mark.asyncio
async def test_accounts_are_kept_in_the_store(store: RedisStore) -> None:
    limiter = leased(store, GCRA(100, 3600.0), surplus=1.0)
    assert isinstance(limiter, RemoteLedger)
    reserved = await limiter.reserve("a", "order", (30,), 0.0, 60.0)
    assert reserved.costs == (30,)
    assert await limiter.settle("a", "order", (10,), 60.0)
    assert not await limiter.settle("a", "order", (10,), 60.0)
    await limiter.reserve("a", "other", (30,), 0.0, 60.0)
    limiter.void("a", "other", 60.0)
    assert (await limiter.peek("a", (1,))).remaining == pytest.approx([90], abs=0.2)


@pytest.mark.asyncio
async def test_what_others_say_ends_a_slice_if_nothing_remains(store: RedisStore) -> None:
    limiter = leased(store, SLOW)
    await warm(limiter)
    there = held(limiter)
    await limiter.observe("a", [(500, 1.0)])
    assert held(limiter) == there
    await limiter.observe("a", [(0, 5.0)])
    assert not (await limiter.acquire("a", (1,), 0.0)).decision.allowed
    await warm(limiter, "b")
    await limiter.drain("b", [5.0])
    refused = (await limiter.acquire("b", (1,), 0.0)).decision
    assert not refused.allowed
    assert refused.wait == pytest.approx(5.0, abs=1.0)


def test_limits_of_which_some_hold_for_all_keys_are_refused(redis_server: Server) -> None:
    store = RedisStore.from_url(redis_server.url)
    spec = LimiterSpec("mixed", (GCRA(10, 1.0), GCRA(100, 60.0)), leased=SURPLUS, common=(1,))
    with pytest.raises(ValueError, match="shared must be 'strict' where some limits hold for each key"):
        store.limiter(spec)


class _Leased(Store):
    """A store whose limiters are leased, for the conformance kit, which knows of none."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    def limiter(self, spec: LimiterSpec) -> LeasedLimiter:
        return leased(self._store, *spec.rules, name=spec.name, surplus=1.0)


OTHERWISE = ("refunds_no_stale_stamp", "holds_common_limits_together")
"""What goes back into a slice may do so whatever was booked meanwhile: it counts as surplus. The other is refused."""

KEPT = [check for check in LIMITER_CHECKS if check.__name__ not in OTHERWISE]


@pytest.mark.asyncio
@pytest.mark.parametrize("rule", [GCRA(20, 1e6), TokenBucket(20, 1e6), GCRA(200, 1e6)], ids=repr)
@pytest.mark.parametrize("check", KEPT, ids=lambda check: check.__name__)
async def test_leased_limiters_pass_the_conformance_kit(store: RedisStore, check: LimiterCheck, rule: AnyRule) -> None:
    await check(_Leased(store), rule)


@pytest.mark.asyncio
async def test_a_slice_outlasts_its_store_until_its_end(own_server: Server) -> None:
    async with RedisStore.from_url(own_server.url, timeout=1.0) as store:
        limiter = leased(store, SLOW)
        await warm(limiter, calls=60)
        there = int(held(limiter))
        assert own_server.pid is not None
        os.kill(own_server.pid, signal.SIGSTOP)
        try:
            for _ in range(there):
                assert (await limiter.acquire("a", (1,), 0.0)).decision.allowed
            with pytest.raises(StoreUnavailableError):
                await limiter.acquire("a", (1,), 0.0)
            with pytest.raises(StoreUnavailableError):
                await limiter.acquire("b", (1,), 0.0)
        finally:
            os.kill(own_server.pid, signal.SIGCONT)
        async with asyncio.timeout(10):
            while True:
                try:
                    assert (await limiter.acquire("a", (1,), 0.0)).decision.allowed
                    break
                except StoreUnavailableError:
                    await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_a_slice_is_not_used_after_its_end(own_server: Server) -> None:
    async with RedisStore.from_url(own_server.url, timeout=1.0) as store:
        limiter = leased(store, SLOW)
        await warm(limiter, calls=60)
        assert own_server.pid is not None
        os.kill(own_server.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(LIFETIME + 0.01)
            with pytest.raises(StoreUnavailableError):
                await limiter.acquire("a", (1,), 0.0)
        finally:
            os.kill(own_server.pid, signal.SIGCONT)
