"""What travels together: fewer calls, never another meaning."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from typing import Any

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from resilience.errors import StoreUnavailableError
from resilience.limits.limiter_state import LimiterSpec
from resilience.machines.rate_limiter import GCRA, FixedWindow, LeakyBucket
from resilience_redis import RedisStore
from resilience_redis.connection.batch import Batch, Group, load
from resilience_redis.connection.target import Target
from resilience_redis.scripts import script_for
from resilience_redis.server import Server
from tests.support.redis import sync_client
from tests.support.rules import ALGORITHMS, make_rule

PATIENT = 5.0  # seconds a call may take on a busy test machine, where the deadline is not the point
RULES = ("10", "1000000", "10")


def store_at(server: Server, prefix: str) -> RedisStore:
    return RedisStore.from_url(server.url, prefix=prefix, timeout=PATIENT)


def wire_of(store: RedisStore) -> Any:
    return store._lane().wire


def script_calls(client: Any) -> int:
    stats = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))


def group(target: Target, count: int = 1, operation: str = "acquire", cost: str = "1", max_wait: float = 0.0) -> Group:
    loop = asyncio.get_running_loop()
    return Group(target, operation, (cost,), max_wait, [loop.create_future() for _ in range(count)])


@pytest.mark.asyncio
async def test_acquires_on_a_key_join_unless_something_else_came_in_between() -> None:
    script = script_for("gcra")
    one, twin, other = (Target(script, [key], RULES) for key in "aab")
    changed = Target(script, ["a"], ("20", *RULES[1:]))
    cargo = load([group(one, 2), group(other), group(twin, 3, max_wait=1.5), group(one, cost="2")])
    assert [each.call()[2] for each in cargo] == [
        ("acquire", "", *RULES, "2", "0", "1", "3", "1500000", "1", "1", "0", "2"),
        ("acquire", "", *RULES, "1", "0", "1"),
    ]
    split = load([group(one), group(one, operation="refund"), group(one), group(changed), group(one)])
    assert [each.call()[2][0] for each in split] == ["acquire", "refund", "acquire", "acquire", "acquire"]
    in_bytes = [each.call(packed=True)[2][0] for each in split]
    assert in_bytes == ["acquire_packed", "refund", "acquire_packed", "acquire_packed", "acquire_packed"]


@pytest.mark.asyncio
async def test_nobody_is_asked_for_who_has_left_and_no_call_is_too_large() -> None:
    script = script_for("gcra")
    target = Target(script, ["a"], RULES)
    gone, half = group(target, 3), group(target, 4)
    for future in gone.futures + half.futures[::2]:
        future.cancel()
    assert load([gone]) == []
    [batch] = load([gone, half])
    assert isinstance(batch, Batch)
    assert batch.size == 2
    sizes = [
        each.size for each in load([group(target, 2 * script.largest), group(target, 7)]) if isinstance(each, Batch)
    ]
    assert sizes == [script.largest, script.largest, 7]
    assert script_for("sliding_log").largest < script.largest, "each of its steps costs the server more"


@pytest.mark.asyncio
async def test_a_thousand_callers_cost_a_few_calls_and_are_served_in_order(own_server: Server) -> None:
    with sync_client(own_server.url) as admin:
        async with store_at(own_server, "many") as store:
            limiter = store.limiter(LimiterSpec("many", (GCRA(600, 3600.0),)))
            await limiter.acquire("warm", (1,), 0.0)
            before = script_calls(admin)
            bookings = await asyncio.gather(*(limiter.acquire("a", (1,), 0.0) for _ in range(1000)))
            assert [each.decision.allowed for each in bookings] == [True] * 600 + [False] * 400
            assert script_calls(admin) - before == 4


@pytest.mark.asyncio
@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_waits_grow_in_the_order_of_arrival(redis_server: Server, redis_prefix: str, algorithm: str) -> None:
    async with store_at(redis_server, redis_prefix) as store:
        limiter = store.limiter(LimiterSpec("queue", (make_rule(algorithm, 2, 1e6),)))
        bookings = await asyncio.gather(*(limiter.acquire("a", (1,), math.inf) for _ in range(9)))
        waits = [each.decision.wait for each in bookings]
        assert all(each.decision.allowed for each in bookings)
        assert waits == sorted(waits)
        assert waits[0] == 0 < waits[-1]
        await limiter.refund("a", (1,), bookings[-1].stamp)
        again = await limiter.acquire("a", (1,), math.inf)
        assert again.decision.wait == pytest.approx(waits[-1], abs=60), "the last place was free again"


@pytest.mark.asyncio
async def test_other_operations_keep_their_place_in_the_turn(redis_server: Server, redis_prefix: str) -> None:
    async with store_at(redis_server, redis_prefix) as store:
        limiter = store.limiter(LimiterSpec("order", (FixedWindow(2, 1e6),)))
        first, _, second, third, _, peeked = await asyncio.gather(
            limiter.acquire("a", (2,), 0.0),
            limiter.refund("a", (2,)),
            limiter.acquire("a", (2,), 0.0),
            limiter.acquire("a", (2,), 0.0),
            limiter.reset("a"),
            limiter.peek("a", (2,)),
        )
        assert [each.decision.allowed for each in (first, second, third)] == [True, True, False]
        assert peeked.allowed


@pytest.mark.asyncio
async def test_a_refusal_is_read_once_for_all_who_hear_it(redis_server: Server, redis_prefix: str) -> None:
    async with store_at(redis_server, redis_prefix) as store:
        limiter = store.limiter(LimiterSpec("same", (LeakyBucket(1, 1e6),)))
        first, *others = await asyncio.gather(*(limiter.acquire("a", (1,), 0.0) for _ in range(5)))
        assert first.decision.allowed
        assert {id(each) for each in others} == {id(others[0])}
        assert not others[0].decision.allowed
        assert (await limiter.acquire("b", (1,), 0.0)).decision.allowed


@pytest.mark.asyncio
async def test_a_cancelled_caller_leaves_the_others_of_its_batch_alone(redis_server: Server, redis_prefix: str) -> None:
    async with store_at(redis_server, redis_prefix) as store:
        limiter = store.limiter(LimiterSpec("some", (GCRA(1000, 1e6),)))
        await limiter.acquire("warm", (1,), 0.0)
        for turns in range(6):  # before the command leaves, under way, and perhaps after the answer
            key = f"a{turns}"
            tasks = [asyncio.create_task(limiter.acquire(key, (1,), 0.0)) for _ in range(10)]
            for _ in range(turns):
                await asyncio.sleep(0)
            cancelled = tasks[-1].cancel()
            assert cancelled or turns > 3, "an answer takes a few turns"
            bookings = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(bookings[-1], asyncio.CancelledError) is cancelled
            assert not [each for each in bookings[:-1] if isinstance(each, BaseException)]
            await store._lane().drain()
            left = (await limiter.peek(key, (1,))).remaining[0]
            assert left == pytest.approx(991 if cancelled else 990, abs=0.1)


@pytest.mark.asyncio
async def test_what_was_granted_to_a_whole_batch_of_late_callers_is_given_back(own_server: Server) -> None:
    assert own_server.pid is not None
    async with RedisStore.from_url(own_server.url, timeout=0.05, connect_timeout=10.0) as store:
        limiter = store.limiter(LimiterSpec("late", (GCRA(1000, 1e6),)))
        await limiter.acquire("a", (1,), 0.0)
        await limiter.reset("a")
        os.kill(own_server.pid, signal.SIGSTOP)
        try:
            answers = await asyncio.gather(
                *(limiter.acquire("a", (3,), 0.0) for _ in range(20)),
                *(limiter.acquire("b", (1,), 0.0) for _ in range(20)),
                return_exceptions=True,
            )
        finally:
            os.kill(own_server.pid, signal.SIGCONT)
        assert {type(each) for each in answers} == {StoreUnavailableError}
        await store._lane().drain()
    async with RedisStore.from_url(own_server.url, timeout=PATIENT) as again:
        limiter = again.limiter(LimiterSpec("late", (GCRA(1000, 1e6),)))
        assert (await limiter.peek("a", (1,))).remaining == (1000,)
        assert (await limiter.peek("b", (1,))).remaining == (1000,)


@pytest.mark.asyncio
async def test_a_lane_that_gave_everything_up_serves_again(own_server: Server) -> None:
    assert own_server.pid is not None
    async with RedisStore.from_url(own_server.url, timeout=0.02, connect_timeout=0.05) as store:
        limiter = store.limiter(LimiterSpec("again", (GCRA(1000, 1e6),)))
        with sync_client(own_server.url) as admin:
            admin.script_load(script_for("gcra").source)
        os.kill(own_server.pid, signal.SIGSTOP)
        try:
            for reason in (r"did not answer within 0\.02 seconds", *["Redis is away"] * 20):
                with pytest.raises(StoreUnavailableError, match=reason):
                    await limiter.acquire("a", (1,), 0.0)
        finally:
            os.kill(own_server.pid, signal.SIGCONT)
        await store._lane().drain()
        for _ in range(50):  # the server has a heap of dead connections to look at first
            try:
                assert (await limiter.acquire("b", (1,), 0.0)).decision.allowed
                break
            except StoreUnavailableError:
                await asyncio.sleep(0.02)
        else:
            pytest.fail("the lane never recovered")


@pytest.mark.asyncio
async def test_impatience_is_refused_and_no_number_is_an_error(redis_server: Server, redis_prefix: str) -> None:
    async with store_at(redis_server, redis_prefix) as store:
        limiter = store.limiter(LimiterSpec("patience", (GCRA(10, 1e6),)))
        with pytest.raises(ValueError, match="max_wait must be a number, got nan"):
            await limiter.acquire("a", (1,), math.nan)
        late, good = await asyncio.gather(limiter.acquire("a", (1,), -0.5), limiter.acquire("a", (1,), 0.0))
        assert not late.decision.allowed, "its time was over before it asked"
        assert good.decision.remaining == (9,)
        with pytest.raises(TypeError, match="stamp must be that of a booking, got int"):
            await limiter.refund("a", (1,), 5)


@pytest.mark.parametrize("reply", [b"\x02" + bytes(15), b"\x00" + bytes(16), b"", "1,0"])
def test_what_no_script_of_ours_answers_is_an_error(reply: bytes | str) -> None:
    batch = Batch(Target(script_for("gcra"), ["a"], RULES))
    with pytest.raises((ValueError, IndexError)):
        list(batch.settle(reply, []))


@pytest.mark.asyncio
async def test_the_connection_on_loan_goes_back_to_its_pool(redis_server: Server, redis_prefix: str) -> None:
    make: Any = redis.asyncio.BlockingConnectionPool
    pool = make.from_url(redis_server.url, max_connections=2, timeout=1, retry=Retry(NoBackoff(), 0))
    client: Any = redis.asyncio.Redis.from_pool(pool)
    store = RedisStore(client, prefix=redis_prefix, timeout=0.05, connect_timeout=PATIENT)
    limiter = store.limiter(LimiterSpec("loan", (GCRA(1000, 1.0),)))
    while True:
        try:
            await limiter.acquire("a", (1,), 0.0)
            break
        except StoreUnavailableError:
            continue
    wire = wire_of(store)
    assert wire.loan is not None
    assert await client.ping(), "there is another one for the user"
    async with asyncio.timeout(PATIENT):
        while wire.loan is not None:
            await asyncio.sleep(0.01)
    assert not pool._in_use_connections, "an idle store holds none"
    await store.aclose()
    await client.aclose()


@pytest.mark.asyncio
async def test_a_connection_closed_by_the_server_meanwhile_fails_nobody(own_server: Server) -> None:
    async with store_at(own_server, "closed") as store:
        limiter = store.limiter(LimiterSpec("closed", (GCRA(1000, 1e6),)))
        await limiter.acquire("a", (1,), 0.0)
        with sync_client(own_server.url) as admin:
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asyncio.sleep(0.05)  # the news travels
        assert (await limiter.acquire("a", (1,), 0.0)).decision.remaining[0] == pytest.approx(998, abs=0.1)


@pytest.mark.asyncio
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("decode", [False, True])
async def test_what_a_batch_may_do_at_once_is_booked_and_given_back_exactly(
    redis_server: Server, redis_prefix: str, own: bool, decode: bool
) -> None:
    class Own(redis.asyncio.Redis):
        """Lends no connection, so that its answers are text."""

    make: Any = Own if own else redis.asyncio.Redis
    client = make.from_url(redis_server.url, decode_responses=decode)
    async with RedisStore(client, prefix=redis_prefix, timeout=PATIENT) as store:
        limiter = store.limiter(LimiterSpec("exactly", (GCRA(300, 1e6),)))
        for count, left in ((3, 300), (130, 299)):  # some are read together, many by each who waits
            bookings = await asyncio.gather(*(limiter.acquire("a", (1,), 0.0) for _ in range(count)))
            assert [round(each.decision.remaining[0], 2) for each in bookings] == [left - 1 - n for n in range(count)]
            assert all(each.decision[:3] == (True, 0.0, 0) for each in bookings)
            for booking in bookings[-2::-1]:
                await limiter.refund("a", (1,), booking.stamp)
            assert (await limiter.peek("a", (1,))).remaining[0] == pytest.approx(left - count, abs=0.01), "not the last"
            for booking in bookings[::-1]:
                await limiter.refund("a", (1,), booking.stamp)
            assert (await limiter.peek("a", (1,))).remaining[0] == pytest.approx(left, abs=0.01)
            await limiter.acquire("a", (1,), 0.0)
    await client.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize("single", [False, True])
async def test_clients_that_lend_no_connection_work_the_same(
    redis_server: Server, redis_prefix: str, single: bool
) -> None:
    class Own(redis.asyncio.Redis):
        pass

    make: Any = redis.asyncio.Redis if single else Own
    port = int(redis_server.url.rpartition(":")[2])
    client = make(host="127.0.0.1", port=port, retry=Retry(NoBackoff(), 0), single_connection_client=single)
    async with RedisStore(client, prefix=redis_prefix, timeout=PATIENT) as store:
        limiter = store.limiter(LimiterSpec("generic", (GCRA(30, 1e6), GCRA(20, 1e6))))
        bookings = await asyncio.gather(*(limiter.acquire(key, (1, 1), 0.0) for key in "ab" * 25))
        assert sum(each.decision.allowed for each in bookings) == 40
        assert (await limiter.acquire("c", (1, 1), 0.0)).decision.allowed
        assert wire_of(store).loan is None
    await client.aclose()
