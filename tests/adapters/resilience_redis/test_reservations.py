"""Reservations in a real server: charged exactly once, whatever the network does to the messages."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import Any

import pytest

from resilience import Limit, RateLimiter
from resilience.limits.limiter_state import LimiterSpec
from resilience.machines.rate_limiter import GCRA, TokenBucket
from resilience_redis import RedisStore
from resilience_redis.limits.ledger import RedisLedger
from resilience_redis.server import Server
from tests.support.rules import ALGORITHMS, make_rule
from tests.support.settlers import TENANTS, expected, limiter_of

PATIENT = 5.0


@pytest.fixture
def store(redis_server: Server, redis_prefix: str) -> RedisStore:
    return RedisStore.from_url(redis_server.url, prefix=redis_prefix, timeout=PATIENT)


def settled_by(server: Server, prefix: str, algorithm: str, operations: int, processes: int) -> None:
    command = [sys.executable, "-m", "tests.support.settlers", server.url, prefix, algorithm]
    running = [
        subprocess.Popen([*command, str(operations), str(processes), str(number)]) for number in range(processes)
    ]
    assert [process.wait(timeout=300) for process in running] == [0] * processes


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("algorithm", "operations", "processes"),
    [
        ("fixed_window", 1500, 3),
        *(
            pytest.param(algorithm, 20_000, 8, marks=[pytest.mark.long, *more])
            for algorithm, more in (
                ("sliding_window", []),
                ("gcra", []),
                *((other, [pytest.mark.full]) for other in ("fixed_window", "sliding_log", "token_bucket")),
            )
        ),
    ],
)
async def test_lost_repeated_and_reordered_calls_are_charged_as_the_model_says(
    redis_server: Server, redis_prefix: str, algorithm: str, operations: int, processes: int
) -> None:
    began = time.monotonic()
    settled_by(redis_server, redis_prefix, algorithm, operations, processes)
    model = expected(operations, processes)
    async with RedisStore.from_url(redis_server.url, prefix=redis_prefix, timeout=PATIENT) as store:
        limiter = limiter_of(store, algorithm)
        charged = {key: [1e9 - left for left in (await limiter.peek(key=key)).remaining] for key in TENANTS}
    print(f"{algorithm}, {operations} operations: charged {charged}, model {model}")
    # Windows and logs count in whole units; into a bucket not quite one a second has dripped meanwhile.
    dripped = 0.0 if algorithm in ("fixed_window", "sliding_window", "sliding_log") else time.monotonic() - began
    everybody = sum(tokens for _, tokens in model.values())
    for tenant in TENANTS:
        for found, exact in zip(charged[tenant], (*model[tenant], everybody), strict=True):
            assert exact - dripped <= found <= exact


@pytest.mark.asyncio
async def test_the_whole_life_of_a_reservation(store: RedisStore) -> None:
    async with store:
        limiter = RateLimiter("60/h", Limit("20000/h", dimension="tokens"), name="llm", store=store, max_wait=0)
        async with limiter.reservation(key="a", cost={"requests": 1, "tokens": 1800}) as held:
            assert (await limiter.peek(key="a")).remaining == pytest.approx((59, 18_200), abs=1)
            held.actual = {"tokens": 300}
        assert (await limiter.peek(key="a")).remaining == pytest.approx((59, 19_700), abs=1)
        again = await limiter.reserve(key="a", id=held.id)
        assert (again.settled, again.cost) == (True, {"requests": 1, "tokens": 300})
        debt = await limiter.reserve(key="a", cost={"tokens": 100})
        assert await debt.settle({"tokens": 25_000})
        peeked = await limiter.peek(key="a", cost={"tokens": 1})
        assert peeked.wait == pytest.approx((25_000 - 19_700) * 3600 / 20_000, rel=0.01)
        assert (await limiter.peek(key="a")).allowed


@pytest.mark.asyncio
@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
async def test_what_was_admitted_elsewhere_is_charged_even_into_debt(store: RedisStore, algorithm: str) -> None:
    rule = make_rule(algorithm, 10, 30 * 86_400.0, 10)  # no window ends during the test
    async with store:
        ledger = store.limiter(LimiterSpec(algorithm, (rule, rule)))
        assert isinstance(ledger, RedisLedger)
        ledger.charge("a", (3, 0))
        ledger.charge("a", (4, 0))
        await until_charged(ledger, (3, 10) if algorithm != "leaky_bucket" else (0, 10))
        ledger.charge("a", (8, 0))
        await until_charged(ledger, (0, 10))
        assert not (await ledger.peek("a", (1, 0))).allowed


async def until_charged(ledger: RedisLedger, left: tuple[float, float]) -> None:
    for _ in range(500):
        if (await ledger.peek("a", (1, 1))).remaining == pytest.approx(left, abs=0.1):
            return
        await asyncio.sleep(0.002)
    assert (await ledger.peek("a", (1, 1))).remaining == pytest.approx(left, abs=0.1)


@pytest.mark.asyncio
async def test_corrections_that_cannot_be_made_are_heard_of(
    store: RedisStore, plain_redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with store:
        ledger = store.limiter(LimiterSpec("odd", (GCRA(10, 1.0),)))
        assert isinstance(ledger, RedisLedger)
        for key in ledger.keys("a"):
            plain_redis.lpush(key, "not ours")
        ledger.charge("a", (1,))
    assert "is lost" in caplog.text


@pytest.mark.asyncio
async def test_records_expire_a_minute_after_their_time(store: RedisStore, plain_redis: Any) -> None:
    async with store:
        limiter = RateLimiter("10/h", name="expiry", store=store, max_wait=7200, reservation_ttl=30)
        await limiter.call(asyncio.sleep, 0)
        await limiter.reserve(id="a:{b}")
        [key] = plain_redis.keys("*:reserved:v1:a%3A%7Bb%7D")
        assert 85_000 < plain_redis.pttl(key) <= 90_000
        ledger = limiter.remote.limiter if limiter.remote else None
        assert isinstance(ledger, RedisLedger)
        late = await ledger.reserve("", "late", (10,), 7200.0, 30.0)
        assert late.decision.wait > 500
        [key] = plain_redis.keys("*:reserved:v1:late")
        assert plain_redis.pttl(key) > 1000 * (late.decision.wait + 85), "it outlives the wait for its permit"


@pytest.mark.asyncio
async def test_a_refused_reservation_writes_nothing(store: RedisStore, plain_redis: Any, redis_prefix: str) -> None:
    async with store:
        limiter = store.limiter(LimiterSpec("refused", (GCRA(1, 3600.0),)))
        assert isinstance(limiter, RedisLedger)
        await limiter.acquire("a", (1,), 0.0)
        before = plain_redis.keys(f"*{redis_prefix}*"), plain_redis.get(limiter.keys("a")[0])
        assert not (await limiter.reserve("a", "id", (1,), 0.0, 60.0)).decision.allowed
        await limiter.observe("a", [(1.0, 5.0)])
        await limiter.drain("a", [None])
        assert not await limiter.settle("a", "id", (5.0,), 60.0, known=True)
        assert (plain_redis.keys(f"*{redis_prefix}*"), plain_redis.get(limiter.keys("a")[0])) == before


@pytest.mark.asyncio
async def test_a_reserver_cancelled_on_the_way_is_charged_nothing(store: RedisStore) -> None:
    limiter = store.limiter(LimiterSpec("cancel", (TokenBucket(1000, 1e6),)))
    assert isinstance(limiter, RedisLedger)
    async with store:
        for turns in range(40):
            task = asyncio.create_task(limiter.reserve("a", f"id-{turns}", (5,), 0.0, 60.0))
            for _ in range(turns % 8):
                await asyncio.sleep(0)
            if turns >= 20:  # somewhere on the way; below 20 before or just after the command left
                await asyncio.sleep(turns * 2e-5)
            task.cancel()
            [result] = await asyncio.gather(task, return_exceptions=True)
            lane = store._lane()
            await lane.drain()
            if not isinstance(result, asyncio.CancelledError):
                await limiter.settle("a", f"id-{turns}", (0.0,), 60.0)
            assert (await limiter.peek("a", (1,))).remaining[0] == pytest.approx(1000, abs=0.5)


@pytest.mark.asyncio
async def test_scripts_refuse_what_no_caller_of_ours_would_send(plain_redis: Any, redis_prefix: str) -> None:
    from redis.exceptions import ResponseError

    from resilience_redis.scripts import ledger_for

    script = ledger_for("gcra")
    rule = ("10", "1000000", "10")
    for arguments, message in [
        (("reserve", "", *rule, "0", "0", "60000000"), "cost must be greater than 0 for one limit at least"),
        (("reserve", "", *rule, "11", "0", "60000000"), "cost must be at most 10, got 11"),
        (("reserve", "", *rule, "1", "nan", "60000000"), "max_wait must be a finite number"),
        (("reserve", "", *rule, "1", "0", "0"), "ttl must be greater than 0"),
        (("settle", "", *rule, "60000000", "0", "-1"), "actual must be a finite number of at least 0"),
        (("settle", "", *rule, "60000000", "0", "nan"), "actual must be a finite number of at least 0"),
        (("burn", "", *rule), "operation is unknown: burn"),
    ]:
        with pytest.raises(ResponseError, match=message):
            plain_redis.eval(script.source, 2, f"{redis_prefix}", f"{redis_prefix}:id", *arguments)
    for arguments, message in [
        (("observe", "", *rule, "-1", "0"), "remaining must be"),
        (("observe", "", *rule, "1", "inf"), "reset_after must be"),
        (("drain", "", *rule, "-1"), "seconds must be"),
    ]:
        with pytest.raises(ResponseError, match=message):
            plain_redis.eval(script.source, 1, f"{redis_prefix}", *arguments)
    assert not plain_redis.keys(f"*{redis_prefix}*")
