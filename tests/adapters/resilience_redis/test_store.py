"""RedisStore against a real server: decisions, keys, batches, cancellation, loops."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
import redis
import redis.asyncio
import trio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from resilience.limits.limiter_state import LimiterSpec
from resilience.machines.rate_limiter import GCRA, FixedWindow, LeakyBucket, SlidingWindow, TokenBucket
from resilience_redis import RedisStore
from resilience_redis.limits.ledger import RedisLedger
from resilience_redis.server import Server
from tests.support.rules import ALGORITHMS, make_rule

PERIOD = 1e9  # seconds: windows are aligned, and the next of these begins in 2033
PATIENT = 5.0  # seconds a call may take on a busy test machine, where the deadline is not the point


@pytest.fixture
def store(redis_server: Server, redis_prefix: str) -> RedisStore:
    return RedisStore.from_url(redis_server.url, prefix=redis_prefix, timeout=PATIENT)


def calls_of(client: Any, *commands: str) -> int:
    stats = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{command}", {}).get("calls", 0) for command in commands)


@pytest.mark.asyncio
@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_the_whole_life_of_a_limit(store: RedisStore, algorithm: str) -> None:
    limiter = store.limiter(LimiterSpec("life", (make_rule(algorithm, 2, PERIOD),)))
    async with store:
        first = await limiter.acquire("a", (2,), 0.0)
        assert first.decision.allowed
        assert first.decision.wait == 0
        assert (await limiter.peek("a", (1,))).remaining[0] < 0.1
        refused = (await limiter.acquire("a", (1,), 1.0)).decision
        assert not refused.allowed
        assert 0 < refused.wait <= 2 * PERIOD
        assert (await limiter.acquire("b", (2,), 0.0)).decision.allowed, "keys are separate"
        await limiter.refund("a", (2,), first.stamp)
        assert (await limiter.peek("a", (2,))).allowed
        assert (await limiter.acquire("a", (2,), 0.0)).decision.allowed
        booked = await limiter.acquire("a", (1,), math.inf)
        assert booked.decision.allowed
        assert booked.decision.wait > 0
        await limiter.reset("a")
        assert (await limiter.peek("a", (2,))).allowed


@pytest.mark.asyncio
async def test_a_stamp_refunds_only_the_last_booking(store: RedisStore) -> None:
    limiter = store.limiter(LimiterSpec("stamp", (GCRA(10, 3600.0),)))
    async with store:
        first = await limiter.acquire("a", (3,), 0.0)
        second = await limiter.acquire("a", (3,), 0.0)
        await limiter.refund("a", (3,), first.stamp)
        assert (await limiter.peek("a", (1,))).remaining[0] == pytest.approx(4, abs=0.1)
        await limiter.refund("a", (3,), second.stamp)
        assert (await limiter.peek("a", (1,))).remaining[0] == pytest.approx(7, abs=0.1)
        await limiter.refund("a", (3,))
        assert (await limiter.peek("a", (1,))).remaining[0] == 10


@pytest.mark.asyncio
@pytest.mark.parametrize("algorithm", [each for each in ALGORITHMS if each != "sliding_log"])
async def test_what_one_limit_put_far_ahead_is_given_back_where_another_had_room(
    store: RedisStore, algorithm: str
) -> None:
    limiter = store.limiter(LimiterSpec("ahead", (make_rule(algorithm, 5, 1e-3), make_rule(algorithm, 5, PERIOD))))
    async with store:
        await limiter.acquire("a", (0, 5), 0.0)
        booking = await limiter.acquire("a", (1, 5), math.inf)
        assert booking.decision.wait > PERIOD / 10
        assert not (await limiter.peek("a", (1, 0))).allowed
        await limiter.refund("a", (1, 5), booking.stamp)
        assert (await limiter.peek("a", (1, 0))).allowed
        assert isinstance(limiter, RedisLedger)
        await limiter.reserve("a", "id", (1, 5), math.inf, 60.0)
        await limiter.settle("a", "id", (0.0, 0.0), 60.0)
        assert (await limiter.peek("a", (1, 0))).allowed


@pytest.mark.asyncio
async def test_several_limits_are_all_or_nothing(store: RedisStore) -> None:
    limiter = store.limiter(LimiterSpec("both", (FixedWindow(100, PERIOD), FixedWindow(3, 2 * PERIOD))))
    async with store:
        for _ in range(3):
            assert (await limiter.acquire("a", (1, 1), 0.0)).decision.allowed
        refused = (await limiter.acquire("a", (1, 1), 0.0)).decision
        assert (refused.allowed, refused.binding, refused.remaining) == (False, 1, (97, 0))


@pytest.mark.asyncio
async def test_refusals_and_peeks_write_nothing(store: RedisStore, plain_redis: Any) -> None:
    limiter = store.limiter(LimiterSpec("idle", (TokenBucket(1, 3600.0),)))
    [key] = limiter.keys("a")
    async with store:
        await limiter.peek("a", (1,))
        assert not plain_redis.exists(key)
        await limiter.acquire("a", (1,), 0.0)
        before = plain_redis.get(key)
        for _ in range(5):
            await limiter.acquire("a", (1,), 0.0)
            await limiter.peek("a", (1,))
        assert plain_redis.get(key) == before
        assert 3600_000 + 50_000 < plain_redis.pttl(key) <= 3600_000 + 60_000, "a minute beyond its meaning"


@pytest.mark.asyncio
async def test_keys_share_one_slot_whatever_their_text(store: RedisStore, plain_redis: Any) -> None:
    rules = (LeakyBucket(1, 1.0), LeakyBucket(10, 60.0))
    limiter = store.limiter(LimiterSpec("a:b", rules))
    other = store.limiter(LimiterSpec("a", rules))
    texts = ["plain", "", "{tag}", "}{", "a:b", "100%", "%7B", "ключ", "\n\0"]
    tags = [limiter.keys(text)[0].partition("}")[0] for text in texts]
    assert len(set(tags)) == len(texts)
    assert limiter.keys("c") != other.keys("b:c")
    async with store:
        for text in texts:
            first, second = limiter.keys(text)
            assert (first.count("{"), first.count("}")) == (1, 1)
            assert first.partition("}")[0] == second.partition("}")[0]
            assert (await limiter.acquire(text, (1, 1), 0.0)).decision.allowed
            assert plain_redis.exists(first, second) == 2


@pytest.mark.asyncio
@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_changed_limit_neither_crashes_nor_forgets(store: RedisStore, algorithm: str) -> None:
    async with store:
        old = store.limiter(LimiterSpec("deploy", (make_rule(algorithm, 100, PERIOD),)))
        new = store.limiter(LimiterSpec("deploy", (make_rule(algorithm, 5, PERIOD),)))
        await old.acquire("a", (100,), 0.0)
        assert not (await new.acquire("a", (1,), 0.0)).decision.allowed


@pytest.mark.asyncio
@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_old_and_new_processes_at_once_keep_one_limit(store: RedisStore, algorithm: str) -> None:
    """A rolling deploy: other limits and bursts on the same states, in turn, with every operation."""
    async with store:
        rules = [make_rule(algorithm, limit, PERIOD, burst) for limit, burst in ((40, 40), (60, 30), (20, 90))]
        versions = [store.limiter(LimiterSpec("rolling", (rule,))) for rule in rules]
        admitted = 0
        for step in range(300):
            limiter = versions[step % 3]
            assert isinstance(limiter, RedisLedger)
            booking = await limiter.acquire("a", (1,), 0.0)
            admitted += booking.decision.allowed
            await limiter.peek("a", (1,))
            if step % 7 == 0:
                held = await limiter.reserve("a", f"{step}", (2,), 0.0, 60.0)
                await versions[(step + 1) % 3].settle("a", f"{step}", (0.0,), 60.0, known=True)
                assert held.settled is False
            if booking.decision.allowed and step % 5 == 0:
                await versions[(step + 2) % 3].refund("a", (1,), booking.stamp)
                admitted -= 1
        lowest, highest = {"leaky_bucket": (0, 1), "gcra": (20, 200)}.get(algorithm, (20, 90))
        assert lowest <= admitted <= highest
        await versions[0].acquire("b", (20,), math.inf)
        waits = [(await each.acquire("b", (1,), math.inf)).decision.wait for each in versions * 2]
        assert all(wait <= 10 * PERIOD for wait in waits), "nobody is locked out by what others have booked"


@pytest.mark.asyncio
@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_limit_of_another_period_is_another_limit(store: RedisStore, algorithm: str) -> None:
    """Its states would be read with the wrong measure of time: an hour's debt is no debt of a second's limit."""
    async with store:
        hourly = make_rule(algorithm, 10, PERIOD)
        old = store.limiter(LimiterSpec("period", (hourly,)))
        await old.acquire("a", (10,), 0.0)
        new = store.limiter(LimiterSpec("period", (make_rule(algorithm, 10, PERIOD / 1000), hourly)))
        assert (await new.peek("a", (1, 0))).allowed, "a fresh one"
        assert not (await new.peek("a", (0, 1))).allowed, "and the old one, wherever it stands in the list"
        assert (await old.peek("b", (1,))).allowed


@pytest.mark.asyncio
async def test_states_of_windows_that_have_one_number_less_are_read(store: RedisStore, plain_redis: Any) -> None:
    async with store:
        for rule, text in ((FixedWindow(10, PERIOD), "1 4"), (SlidingWindow(10, PERIOD), "1 4 0")):
            limiter = store.limiter(LimiterSpec(rule.algorithm, (rule,)))
            plain_redis.set(limiter.keys("a")[0], text)
            assert (await limiter.peek("a", (1,))).remaining == (6,)
            assert (await limiter.acquire("a", (2,), 0.0)).decision.remaining == (4,)


@pytest.mark.asyncio
async def test_limits_for_one_key_and_for_all_share_a_slot_and_a_step(store: RedisStore, plain_redis: Any) -> None:
    rules = (FixedWindow(3, PERIOD), FixedWindow(5, PERIOD), FixedWindow(100, PERIOD / 2))
    limiter = store.limiter(LimiterSpec("mixed", rules, common=(1,)))
    one, other, none = (limiter.keys(key) for key in ("gcra", "b:c", ""))
    tags = {key.partition("}")[0] for key in one + other + none}
    assert len(tags) == 1, "all of them in the slot of the name"
    assert one[1] == other[1] == none[1]
    assert len({*one, *other, *none}) == 7
    async with store:
        for key, allowed in (("a", True), ("a", True), ("b", True), ("b", True), ("a", True), ("b", False)):
            booking = await limiter.acquire(key, (1, 1, 1), 0.0)
            assert booking.decision.allowed is allowed
        refused = await limiter.acquire("b", (1, 1, 1), 0.0)
        assert (refused.decision.binding, refused.decision.remaining) == (1, (1, 0, 98))
        assert (await limiter.acquire("b", (1, 0, 1), 0.0)).decision.allowed, "takes no part"
        bookings = await asyncio.gather(*(limiter.acquire(key, (1, 1, 0), math.inf) for key in "xyxyxyxyxy"))
        windows = [each.decision.wait > PERIOD * 0.5 for each in bookings]
        assert windows == sorted(windows), "in order of arrival, whatever the key"
        await limiter.reset("")
        assert (await limiter.peek("a", (1, 1, 1))).remaining == (0, 5, 97)
        await limiter.reset("a")
        assert (await limiter.acquire("a", (1, 1, 1), 0.0)).decision.remaining == (2, 4, 99)


@pytest.mark.asyncio
async def test_one_turn_of_the_loop_is_one_round_trip_and_as_exact_as_one_by_one(
    store: RedisStore, plain_redis: Any
) -> None:
    limiter = store.limiter(LimiterSpec("turn", (GCRA(30, 3600.0),)))
    async with store:
        bookings = await asyncio.gather(*(limiter.acquire("a", (1,), 0.0) for _ in range(100)))
        assert [each.decision.allowed for each in bookings] == [True] * 30 + [False] * 70
        plain_redis.script_flush()
        bookings = await asyncio.gather(*(limiter.acquire("b", (1,), 0.0) for _ in range(100)))
        assert sum(each.decision.allowed for each in bookings) == 30, "unknown scripts are sent again, once"


@pytest.mark.asyncio
async def test_a_flushed_script_cache_is_refilled(store: RedisStore, plain_redis: Any) -> None:
    limiter = store.limiter(LimiterSpec("flush", (GCRA(30, 3600.0),)))
    async with store:
        for used in range(1, 4):
            decision = (await limiter.acquire("a", (1,), 0.0)).decision
            assert decision.remaining[0] == pytest.approx(30 - used, abs=0.1)
            plain_redis.script_flush()


@pytest.mark.asyncio
async def test_cancelled_callers_get_their_tokens_back(store: RedisStore) -> None:
    limiter = store.limiter(LimiterSpec("cancel", (TokenBucket(1000, 1e6),)))
    async with store:
        await limiter.acquire("a", (1,), 0.0)
        for turns in range(40):
            task = asyncio.create_task(limiter.acquire("a", (5,), 0.0))
            for _ in range(turns % 8):
                await asyncio.sleep(0)
            if turns >= 20:  # somewhere on the way; below 20 before or just after the command left
                await asyncio.sleep(turns * 2e-5)
            cancelled = task.cancel()
            booking = None
            try:
                booking = await task
            except asyncio.CancelledError:
                assert cancelled
            lane = store._lane()  # pyright: ignore[reportPrivateUsage]  # the test waits for what is under way
            await lane.drain()
            if booking is not None:
                await limiter.refund("a", (5,), booking.stamp)
            assert (await limiter.peek("a", (1,))).remaining[0] == pytest.approx(999, abs=0.5)


def test_a_store_made_at_import_time_survives_a_second_loop(store: RedisStore) -> None:
    limiter = store.limiter(LimiterSpec("loops", (GCRA(10, 3600.0),)))

    async def use() -> float:
        async with store:
            return (await limiter.acquire("a", (1,), 0.0)).decision.remaining[0]

    assert asyncio.run(use()) == pytest.approx(9, abs=0.1)
    assert asyncio.run(use()) == pytest.approx(8, abs=0.1)


def test_trio_is_refused_with_the_reason(store: RedisStore) -> None:
    limiter = store.limiter(LimiterSpec("trio", (GCRA(10, 3600.0),)))
    with pytest.raises(RuntimeError, match="no trio support"):
        trio.run(limiter.acquire, "a", (1,), 0.0)


@pytest.mark.asyncio
async def test_bad_costs_are_refused_before_they_travel(store: RedisStore) -> None:
    limiter = store.limiter(LimiterSpec("costs", (GCRA(10, 1.0),)))
    for cost in (0, -1, math.nan, math.inf, 11):
        with pytest.raises(ValueError, match="cost must be"):
            await limiter.acquire("a", (cost,), 0.0)
    with pytest.raises(ValueError, match="at least a microsecond"):
        await limiter.acquire("a", (1e-6,), 0.0)
    with pytest.raises(ValueError, match="argument"):
        await limiter.acquire("a", (1, 1), 0.0)


def test_bad_settings_are_refused_by_name(store: RedisStore) -> None:
    with pytest.raises(ValueError, match="timeout must be"):
        RedisStore.from_url("redis://x", timeout=0)
    with pytest.raises(ValueError, match="connect_timeout must be"):
        RedisStore.from_url("redis://x", connect_timeout=-1)
    with pytest.raises(ValueError, match="prefix must not be empty"):
        RedisStore.from_url("redis://x", prefix="")
    with pytest.raises(TypeError, match=r"client must be a redis\.asyncio client, got Redis"):
        RedisStore(redis.Redis())
    with pytest.raises(ValueError, match="rules must have at least one"):
        store.limiter(LimiterSpec("none", ()))
    with pytest.raises(ValueError, match="all be of one algorithm, got fixed_window, gcra"):
        store.limiter(LimiterSpec("mixed", (GCRA(1, 1.0), FixedWindow(1, 1.0))))


@pytest.mark.asyncio
@pytest.mark.parametrize("options", [{}, {"retry": Retry(NoBackoff(), 0)}, {"decode_responses": True}])
async def test_the_users_own_client_is_used_as_it_is(
    redis_server: Server, redis_prefix: str, options: dict[str, Any]
) -> None:
    make: Any = redis.asyncio.Redis
    port = int(redis_server.url.rpartition(":")[2])
    client = make(host="127.0.0.1", port=port, **options)
    async with RedisStore(client, prefix=redis_prefix, timeout=PATIENT) as store:
        limiter = store.limiter(LimiterSpec("own", (GCRA(10, 3600.0),)))
        booking = await limiter.acquire("a", (4,), 0.0)
        await limiter.refund("a", (4,), booking.stamp)
        assert (await limiter.peek("a", (1,))).remaining == (10,)
        retry = store._lane().wire.client.get_retry()  # pyright: ignore[reportPrivateUsage]  # what is really used
        assert retry.get_retries() == 0, "a default client retries ten times, and each could charge"
    assert await client.ping(), "the store closes only what it made"
    await client.aclose()


@pytest.mark.asyncio
async def test_a_pool_of_the_users_own_kind_must_not_retry(redis_server: Server) -> None:
    class OwnPool(redis.asyncio.ConnectionPool):
        pass

    make: Any = OwnPool
    client = redis.asyncio.Redis(connection_pool=make.from_url(redis_server.url, retry=Retry(NoBackoff(), 3)))
    with pytest.raises(ValueError, match="must not retry, this one does so 3 times"):
        RedisStore(client)
    await client.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize("own", [True, False])
async def test_commands_have_the_deadline_of_the_store_and_no_other(redis_server: Server, own: bool) -> None:
    make: Any = redis.asyncio.Redis
    client = make.from_url(redis_server.url, retry=Retry(NoBackoff(), 3), socket_timeout=3)
    made = RedisStore.from_url(redis_server.url) if own else RedisStore(client)
    async with made as store:
        pool = store._lane().wire.client.connection_pool
        connection = await pool.get_connection()
        assert connection.socket_timeout is None
        await pool.release(connection)
    await client.aclose()
