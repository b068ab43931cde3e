"""A retry budget in Redis: exact when it is quiet, never overspent while it is not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
import trio

from resilience import Backoff, Retry, TokenBudget
from resilience.events import RetryGaveUp, RetryScheduled
from resilience.testing import EventRecorder
from resilience_redis import RedisStore
from resilience_redis.budget import RedisBudget
from resilience_redis.server import Server, start_server
from tests.support.redis import sync_client

pytestmark = pytest.mark.asyncio


class Bank:
    """Budgets of several stores, each as good as a process of its own."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url, self.prefix = url, prefix
        self.stores: list[RedisStore] = []

    def member(self, capacity: float = 500.0, timeout: float = 5.0) -> RedisBudget:
        store = RedisStore.from_url(self.url, prefix=self.prefix, timeout=timeout)
        self.stores.append(store)
        return store.budget("calls", lambda: TokenBudget(capacity))

    async def leave(self) -> None:
        for store in self.stores:
            await store.aclose()
        self.stores.clear()

    async def __aenter__(self) -> Bank:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.leave()


@pytest_asyncio.fixture
async def bank(redis_server: Server, redis_prefix: str) -> AsyncGenerator[Bank]:
    async with Bank(redis_server.url, redis_prefix) as bank:
        yield bank


async def take(budget: RedisBudget, cost: float = 14.0) -> bool:
    await budget.stock(cost)
    return budget.reserve(0.0, cost)


def left(plain_redis: Any, budget: RedisBudget) -> tuple[float, float]:
    """What is in the bank, and in all slices."""
    tokens, lent = plain_redis.hmget(budget.keys[0], "tokens", "lent")
    return float(tokens), float(lent)


async def until(condition: Callable[[], Awaitable[bool] | bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_all_spend_from_one_bank(bank: Bank) -> None:
    budgets = [bank.member() for _ in range(4)]
    taken = 0
    for turn in range(60):
        taken += await take(budgets[turn % 4])
    assert taken == 35, "as many as one process alone would have had"


async def test_one_after_the_other_has_all_of_it(bank: Bank) -> None:
    first, second = bank.member(100.0), bank.member(100.0)
    assert [await take(first) for _ in range(4)] == [True] * 4
    assert [await take(second) for _ in range(4)] == [True] * 3 + [False]


async def test_many_callers_at_once_share_an_exchange(bank: Bank) -> None:
    budget = bank.member()
    assert sum(await asyncio.gather(*(take(budget) for _ in range(50)))) == 35


async def test_what_is_not_used_goes_back_and_what_is_earned_comes_in(bank: Bank, plain_redis: Any) -> None:
    budget = bank.member()
    for _ in range(3):
        assert await take(budget)
    assert left(plain_redis, budget)[1] > 0
    budget.settle(0.0, succeeded=True, cost=14.0)
    budget.settle(0.0, succeeded=True)
    budget.settle(0.0, succeeded=False)
    budget.cancel(0.0, 5.0, 0.0)
    await until(lambda: left(plain_redis, budget) == (500 - 42 + 14 + 1 + 5, 0))
    await until(lambda: budget.available(0.0) == 478)


async def test_closing_the_store_gives_the_slice_back(bank: Bank, plain_redis: Any) -> None:
    budget = bank.member()
    await take(budget)
    for _ in range(20):
        await asyncio.sleep(0.01)
        assert await take(budget)
    assert left(plain_redis, budget)[1] > 0
    await bank.leave()
    assert left(plain_redis, budget) == (500 - 21 * 14, 0)


async def test_an_empty_bank_is_not_asked_again_at_once(bank: Bank, plain_redis: Any) -> None:
    budget = bank.member(14.0)
    assert await take(budget)
    assert not await take(budget)
    before = plain_redis.info("commandstats")["cmdstat_evalsha"]["calls"]
    for _ in range(50):
        assert not await take(budget)
    assert plain_redis.info("commandstats")["cmdstat_evalsha"]["calls"] <= before + 2
    budget.settle(0.0, succeeded=True, cost=14.0)
    await asyncio.sleep(0.25)
    assert await take(budget)


async def test_nothing_is_sent_while_nothing_happens(bank: Bank, own_server: Server) -> None:
    bank.url = own_server.url
    budget = bank.member()
    budget.settle(0.0, succeeded=True)
    await asyncio.sleep(0.3)
    assert budget._timer is None
    assert budget._part.idle


async def test_a_retry_uses_it(bank: Bank) -> None:
    recorder = EventRecorder()
    store = RedisStore.from_url(bank.url, prefix=bank.prefix, timeout=5.0)
    bank.stores.append(store)
    retry = Retry(3, backoff=Backoff.none(), budget=TokenBudget(60.0), store=store, name="calls", listeners=[recorder])

    async def down() -> None:
        raise ConnectionError

    for _ in range(5):
        with pytest.raises(ConnectionError):
            await retry.call(down)
    assert len(recorder.of(RetryScheduled)) == 4
    assert [event.reason for event in recorder.of(RetryGaveUp)] == ["attempts"] * 2 + ["budget"] * 3


async def test_a_result_is_closed_if_its_retry_is_cancelled_while_the_bank_is_asked(
    own_server: Server, redis_prefix: str
) -> None:
    class Result:
        closed = False

        def close(self) -> None:
            self.closed = True

    result = Result()

    async def work() -> Result:
        return result

    async with RedisStore.from_url(own_server.url, prefix=redis_prefix, timeout=5.0) as store:
        retry = Retry(3, on_result=lambda value: True, store=store, name="calls")
        assert own_server.pid is not None
        os.kill(own_server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await retry.call(work)
        finally:
            os.kill(own_server.pid, signal.SIGCONT)
        assert result.closed
        assert isinstance(retry.budget, RedisBudget)
        assert retry.budget._waiting == {}


async def test_without_the_store_each_process_has_its_share_and_pays_for_it_later(redis_prefix: str) -> None:
    with start_server("--loglevel", "warning") as server:
        port = int(server.url.rpartition(":")[2])
        async with Bank(server.url, redis_prefix) as bank:
            one, two = bank.member(timeout=0.2), bank.member(timeout=0.2)
            assert await take(one)
            assert await take(two)
            await until(lambda: one._link().members.count == 2)
            await until(lambda: one._part.idle and two._part.idle)
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            taken = sum([await take(one) for _ in range(40)])
            assert taken in (16, 17), "a half of what was left when it last heard of it"
            assert one.degraded
            one.settle(0.0, succeeded=True, cost=14.0)
            assert one.reserve(0.0, 14.0)
            with start_server("--loglevel", "warning", port=port):  # and all is forgotten
                await until(lambda: not one.degraded)
                await until(lambda: one.available(0.0) == 500 - (taken + 1) * 14 + 14)


async def test_nobody_listening(redis_prefix: str) -> None:
    async with Bank("redis://127.0.0.1:1", redis_prefix) as bank:
        budget = bank.member(100.0, timeout=0.2)
        assert [await take(budget) for _ in range(8)] == [True] * 7 + [False]


async def test_a_mistake_in_the_store_is_raised(bank: Bank, plain_redis: Any) -> None:
    budget = bank.member()
    plain_redis.set(budget.keys[0], "text")
    with pytest.raises(Exception, match="WRONGTYPE"):
        await budget.stock(14.0)
    assert not budget.degraded


async def test_only_token_budgets_can_be_shared(bank: Bank) -> None:
    from resilience import RatioBudget

    store = RedisStore.from_url(bank.url)
    with pytest.raises(TypeError, match="budget must be a TokenBudget to be shared in Redis, got RatioBudget"):
        Retry(budget=RatioBudget(), store=store, name="calls")
    assert store.budget("a", TokenBudget) is store.budget("a", TokenBudget)
    budget = store.budget("a", TokenBudget)
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="cost must be"):
            budget.reserve(0.0, wrong)
        with pytest.raises(ValueError, match="cost must be"):
            budget.cancel(0.0, wrong, 0.0)


async def test_it_goes_on_in_another_event_loop_and_refuses_trio(redis_server: Server, redis_prefix: str) -> None:
    store = RedisStore.from_url(redis_server.url, prefix=redis_prefix, timeout=5.0)
    retry = Retry(2, backoff=Backoff.none(), store=store, name="calls")
    budget = retry.budget
    assert isinstance(budget, RedisBudget)

    async def down() -> None:
        raise KeyError

    async def main() -> float:
        with pytest.raises(KeyError):
            await retry.call(down)
        await store.aclose()
        return budget.available(0.0)

    assert [await asyncio.to_thread(asyncio.run, main()) for _ in range(3)] == [486, 472, 458]

    async def on_trio() -> None:
        with pytest.raises(RuntimeError, match="needs a running asyncio event loop"):
            await retry.call(down)

    await asyncio.to_thread(trio.run, on_trio)


def retriers(url: str, prefix: str, *numbers: object) -> list[dict[str, float]]:
    command = [sys.executable, "-m", "tests.support.retrier", url, prefix, *map(str, numbers)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    return [json.loads(process.communicate(timeout=60)[0]) for process in running]


@pytest.mark.long
@pytest.mark.parametrize("successes", [30, *(pytest.param(part, marks=pytest.mark.full) for part in (0, 90))])
async def test_eight_processes_never_overspend(own_server: Server, redis_prefix: str, successes: int) -> None:
    capacity, cost = 500.0, 14.0
    results = await asyncio.to_thread(retriers, own_server.url, redis_prefix, capacity, 4.0, successes, 8)
    retries, paid_in, calls = (sum(each[name] for each in results) for name in ("retries", "paid_in", "calls"))
    with sync_client(own_server.url) as admin:
        (key,) = [key for key in admin.keys("*budget*") if not key.endswith(b":slices")]
        tokens, lent = map(float, admin.hmget(key, "tokens", "lent"))
        trips = admin.info("commandstats")["cmdstat_evalsha"]["calls"]
    spent = retries * cost
    print(
        f"{successes} % succeed: {calls:.0f} calls, {retries:.0f} retries for {spent:.0f} tokens, {paid_in:.0f} paid "
        f"in, {tokens:.0f} left in the bank, {trips} round trips"
    )
    assert abs(lent) < 1e-9, "all slices went back, but for the rounding of many sums"
    assert spent + tokens <= capacity + paid_in
    if not successes:
        assert (retries, tokens) == (35, 10)
    if successes == 30:  # what was paid in while the bank was still full is all that is lost
        assert spent + tokens >= 0.95 * (capacity + paid_in)
