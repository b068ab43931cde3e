from __future__ import annotations

import asyncio
import contextvars
import math
import traceback
from collections.abc import Hashable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience import (
    Bulkhead,
    Cache,
    Call,
    CircuitBreaker,
    CircuitOpenError,
    JsonCodec,
    Lease,
    MemoryStore,
    Operation,
    Outcome,
    Pipeline,
    Policy,
    Retry,
    Store,
    TimedOutError,
    Timeout,
    Verdict,
    clock,
)
from resilience.events import CacheHit, CacheMissed, CacheRefreshed, CacheRefreshFailed, CallCoalesced
from resilience.testing import EventRecorder, FaultScript
from resilience.verdict import Classifier
from tests.support.counted import Counted, together
from tests.support.engine import Engine
from tests.support.failures import DownError, broken, is_bad, is_down
from tests.support.scopes import cancelled_after

WRONG: Any = 5
EXACT: dict[str, Any] = {"jitter": 0, "beta": 0}

pytestmark = pytest.mark.anyio


class MissingError(LookupError):
    pass


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Cache(0), ValueError, "ttl must be greater than 0, got 0"),
        (lambda: Cache(math.inf), ValueError, "ttl must be finite"),
        (lambda: Cache(1, jitter=2), ValueError, "jitter must be at most 1"),
        (lambda: Cache(1, stale_for=-1), ValueError, "stale_for must be at least 0"),
        (lambda: Cache(1, stale_if_error=-1), ValueError, "stale_if_error must be at least 0"),
        (lambda: Cache(1, pause=-1), ValueError, "pause must be at least 0"),
        (lambda: Cache(1, beta=-1), ValueError, "beta must be at least 0"),
        (lambda: Cache(1, negative_ttl=0), ValueError, "negative_ttl must be greater than 0"),
        (lambda: Cache(1, lease=0), ValueError, "lease must be greater than 0"),
        (lambda: Cache(1, negative=WRONG), TypeError, "negative must hold exception types"),
        (lambda: Cache(1, negative=(KeyError, WRONG)), TypeError, "negative must hold exception types"),
        (lambda: Cache(1, negative_result=WRONG), TypeError, "negative_result must be a predicate"),
        (lambda: Cache(1, on=WRONG), TypeError, "on must be exception types"),
        (lambda: Cache(1, key=WRONG), TypeError, "key must be a function"),
        (lambda: Cache(1, ignore="self"), TypeError, "ignore must be a row of parameter names"),
        (lambda: Cache(1, max_entries=0), ValueError, "max_entries must be at least 1"),
        (lambda: Cache(1, weigh=len), ValueError, "weigh and max_weight must be given together"),
        (lambda: Cache(1, store=MemoryStore()), ValueError, "name is required with a store"),
        (lambda: Cache(1, store=Store(), name="x"), TypeError, "store must be one that can hold caches"),
    ],
)
def test_bad_options_are_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


async def test_a_value_is_kept_for_its_time(engine: Engine) -> None:
    recorder, counted = EventRecorder(), Counted()
    protected = engine(Cache(10, **EXACT, listeners=[recorder]))
    assert await protected.call(counted.run) == "a 1"
    await anyio.sleep(9.9)
    assert await protected.call(counted.run) == "a 1"
    await anyio.sleep(0.1)
    assert await protected.call(counted.run) == "a 2"
    cache_events = [event for event in recorder.events if event.kind.startswith("cache")]
    assert [event.kind for event in cache_events] == ["cache_missed", "cache_hit", "cache_missed"]
    (hit,) = recorder.of(CacheHit)
    assert (hit.freshness, hit.negative, hit.policy) == ("fresh", False, "Cache")


async def test_each_argument_has_an_entry(engine: Engine) -> None:
    counted = Counted(seconds=0)

    @engine(Cache(10))
    async def fetch(key: object, *, more: int = 0) -> str:
        return str(await counted.run(key))

    for key in (1, True, 1.0, "1"):
        assert await fetch(key) == await fetch(key)
        assert await fetch(key, more=1) == await fetch(more=1, key=key)
    assert counted.begun == 8
    with pytest.raises(TypeError, match=r"fetch: argument 'key' \(list\) cannot be part of a cache key"):
        await fetch([])


async def test_none_is_a_value() -> None:
    counted = Counted(None, seconds=0)
    cache = Cache(10)
    assert await cache.call(counted.run) is None
    assert await cache.call(counted.run) is None
    assert counted.begun == 1


async def test_methods(engine: Engine) -> None:
    class Users:
        begun = 0

        @engine(Cache(10))
        async def fetch(self, number: int) -> int:
            Users.begun += 1
            return number

        @engine(Cache(10, ignore=["self"]))
        async def common(self, number: int) -> int:
            Users.begun += 1
            return number

    one, other = Users(), Users()
    for users in (one, one, other):
        assert await users.fetch(1) == 1
    assert Users.begun == 2
    for users in (one, one, other):
        assert await users.common(1) == 1
    assert Users.begun == 3


async def test_a_key_of_ones_own_and_a_partition(engine: Engine) -> None:
    counted = Counted(seconds=0)

    def number_of(order: dict[str, int]) -> Hashable:
        return order["number"]

    async def fetch(order: dict[str, int]) -> str:
        return str(await counted.run(order["number"]))

    protected = engine(Cache(10, key=number_of))
    assert await protected.call(fetch, {"number": 1}) == await protected.call(fetch, {"number": 1, "more": 2})
    assert counted.begun == 1
    assert await protected.bind(key="eu").call(fetch, {"number": 1}) == "1 2"
    assert await protected.bind(key="eu").call(fetch, {"number": 1}) == "1 2"
    assert counted.begun == 2


async def test_misses_share_one_run_and_are_told(engine: Engine) -> None:
    recorder, counted = EventRecorder(), Counted()
    protected = engine(Cache(10, listeners=[recorder]))
    assert await together(100, lambda: protected.call(counted.run)) == ["a 1"] * 100
    assert (counted.begun, len(recorder.of(CacheMissed)), len(recorder.of(CallCoalesced))) == (1, 1, 99)


async def test_ten_thousand_misses_with_a_leader_cancelled_ten_times() -> None:
    counted = Counted(seconds=30)
    cache = Cache(60)
    results: list[str] = []
    cancelled = 0

    async def caller() -> None:
        results.append(await cache.call(counted.run))

    async def leader() -> None:
        nonlocal cancelled
        async with cancelled_after(1) as scope:
            await cache.call(counted.run)
        cancelled += scope.cancelled_caught

    async with anyio.create_task_group() as group:
        for batch in range(10):
            group.start_soon(leader)
            for _ in range(1_000):
                group.start_soon(caller)
            await anyio.sleep(1.5 if batch else 0.5)
    assert (counted.begun, counted.completed, counted.cancelled, cancelled) == (1, 1, 0, 10)
    assert (len(results), set(results)) == (10_000, {"a 1"})


async def test_when_everybody_is_cancelled_so_is_the_run_and_the_next_begins_again(engine: Engine) -> None:
    counted = Counted(seconds=10)
    bulkhead = Bulkhead(1)
    protected = engine(Cache(60), bulkhead)
    for _ in range(3):
        async with cancelled_after(1):
            await protected.call(counted.run)
        assert bulkhead.in_use() == 0
    assert (counted.cancelled, counted.cleaned, counted.completed) == (3, 3, 0)
    assert await protected.call(counted.run) == "a 4"


async def test_deadlines_of_callers_are_their_own(engine: Engine) -> None:
    counted, cache = Counted(seconds=3), Cache(60)
    outcomes: list[Any] = []

    async def one(seconds: float) -> None:
        outcome = await engine(Timeout(seconds), cache).outcome(counted.run)
        outcomes.append((clock.now(), type(outcome.error) if outcome.error else outcome.value))

    async with anyio.create_task_group() as group:
        for seconds in (1, 5, 2):
            group.start_soon(one, seconds)
    assert outcomes == [(1.0, TimedOutError), (2.0, TimedOutError), (3.0, "a 1")]


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


async def test_a_run_has_the_context_of_who_missed_first() -> None:
    seen: list[str] = []

    async def fetch() -> None:
        seen.append(variable.get())
        variable.set("inside")

    variable.set("caller")
    await Cache(10).call(fetch)
    assert (seen, variable.get()) == (["caller"], "caller")


async def test_stale_is_served_while_it_is_refreshed_once(engine: Engine) -> None:
    recorder, counted = EventRecorder(), Counted()
    protected = engine(Cache(10, **EXACT, stale_for=5, listeners=[recorder]))
    await protected.call(counted.run)
    await anyio.sleep(10)
    assert await together(5, lambda: protected.call(counted.run)) == ["a 1"] * 5
    assert clock.now() == 11
    await anyio.sleep(1.5)
    assert counted.begun == 2
    assert await protected.call(counted.run) == "a 2"
    assert [event.freshness for event in recorder.of(CacheHit)] == ["stale"] * 5 + ["fresh"]
    assert [(event.reason, event.duration) for event in recorder.of(CacheRefreshed)] == [("stale", 1.0)]
    await anyio.sleep(15)
    assert await protected.call(counted.run) == "a 3", "too old to be served"


async def test_a_refresh_goes_on_when_its_caller_has_gone_or_is_cancelled(engine: Engine) -> None:
    counted = Counted()
    protected = engine(Cache(10, **EXACT, stale_for=50))
    await protected.call(counted.run)
    await anyio.sleep(10)
    async with cancelled_after(0.5):
        assert await protected.call(counted.run) == "a 1"
        await anyio.sleep(10)
    await anyio.sleep(1)
    assert await protected.call(counted.run) == "a 2"


async def test_who_finds_nothing_joins_a_refresh(engine: Engine) -> None:
    counted = Counted()
    protected = engine(Cache(10, **EXACT, stale_for=5))
    await protected.call(counted.run)
    counted.seconds = 10
    await anyio.sleep(12)
    assert await protected.call(counted.run) == "a 1"
    await anyio.sleep(4)
    async with cancelled_after(1):
        await protected.call(counted.run)  # does not take the refresh with him
    assert await protected.call(counted.run) == "a 2"
    assert (counted.begun, clock.now()) == (2, 23)


async def test_a_failed_refresh_is_told_and_not_tried_again_at_once(engine: Engine) -> None:
    recorder, counted = EventRecorder(), Counted("old", DownError, DownError, "new", seconds=0)
    protected = engine(Cache(10, **EXACT, stale_for=50, pause=2, listeners=[recorder]))
    await protected.call(counted.run)
    await anyio.sleep(10)
    found: list[Any] = []
    for _ in range(12):
        found.append(await protected.call(counted.run))
        await anyio.sleep(0.5)
    assert counted.begun == 4
    assert found == ["old"] * 9 + ["new"] * 3
    assert [type(event.error) for event in recorder.of(CacheRefreshFailed)] == [DownError, DownError]
    assert len(recorder.of(CacheRefreshed)) == 1


async def test_an_entry_is_refreshed_early_by_chance(engine: Engine) -> None:
    recorder, counted = EventRecorder(), Counted(seconds=0.5)
    lucky = 0.0
    protected = engine(Cache(10, jitter=0, beta=2, random=lambda: lucky, listeners=[recorder]))
    await protected.call(counted.run)
    await anyio.sleep(8)
    assert await protected.call(counted.run) == "a 1"
    lucky = 1 - math.exp(-2)  # 8.5 + 0.5 * 2 * 2 is beyond 10.5
    assert await protected.call(counted.run) == "a 1"
    await anyio.sleep(0.6)
    assert await protected.call(counted.run) == "a 2"
    assert [event.reason for event in recorder.of(CacheRefreshed)] == ["early"]
    assert {event.freshness for event in recorder.of(CacheHit)} == {"fresh"}


async def test_a_stale_value_stands_in_for_an_error(engine: Engine) -> None:
    recorder, counted = EventRecorder(), Counted("old", DownError, DownError, "new", DownError)
    protected = engine(Cache(10, **EXACT, stale_if_error=30, pause=5, listeners=[recorder]))
    await protected.call(counted.run)
    await anyio.sleep(10)
    assert await together(3, lambda: protected.call(counted.run)) == ["old"] * 3
    assert counted.begun == 2
    assert await protected.call(counted.run) == "old"
    assert counted.begun == 2, "not tried again for a while"
    await anyio.sleep(5)
    assert await protected.call(counted.run) == "old"
    await anyio.sleep(5)
    assert await protected.call(counted.run) == "new"
    assert {event.freshness for event in recorder.of(CacheHit)} == {"spare"}
    await anyio.sleep(40)
    with pytest.raises(DownError):
        await protected.call(counted.run)


@pytest.mark.parametrize(
    ("options", "error", "served"),
    [
        ({}, DownError, True),
        ({}, CircuitOpenError, True),
        ({"on": DownError}, DownError, True),
        ({"on": DownError}, KeyError, False),
        ({"on": is_down}, KeyError, False),
        ({"on": DownError}, CircuitOpenError, False),
    ],
)
async def test_only_a_failure_is_answered_by_a_stale_value(
    options: dict[str, Any], error: type[Exception], served: bool, engine: Engine
) -> None:
    counted = Counted("old", error, seconds=0)
    protected = engine(Cache(10, **EXACT, stale_if_error=30, **options))
    await protected.call(counted.run)
    await anyio.sleep(10)
    outcome = await protected.outcome(counted.run)
    assert (outcome.value == "old") if served else isinstance(outcome.error, error)


async def test_the_pipelines_classifier_is_asked() -> None:
    counted = Counted("old", DownError, "bad", "good", seconds=0)
    judge = Classifier(
        error=lambda error: Verdict.IGNORED, result=lambda value: Verdict.FAILURE if is_bad(value) else Verdict.SUCCESS
    )
    protected = Pipeline(Cache(10, **EXACT, stale_if_error=100, pause=0), classifier=judge)
    await protected.call(counted.run)
    await anyio.sleep(10)
    with pytest.raises(DownError):
        await protected.call(counted.run)
    assert await protected.call(counted.run) == "old"
    assert await protected.call(counted.run) == "good"


async def test_a_value_that_counts_as_failure_is_not_kept_and_replaced_by_a_stale_one(engine: Engine) -> None:
    class Response:
        closed = False

        async def aclose(self) -> None:
            self.closed = True

    good, bad, worse = Response(), Response(), Response()
    counted = Counted(bad, good, worse, seconds=0)
    protected = engine(Cache(10, **EXACT, stale_if_error=30, on_result=lambda value: value is not good))
    assert await protected.call(counted.run) is bad
    assert await protected.call(counted.run) is good
    await anyio.sleep(10)
    assert await protected.call(counted.run) is good
    assert (good.closed, bad.closed, worse.closed) == (False, False, True)


async def test_an_ignored_value_is_passed_on_and_not_kept(engine: Engine) -> None:
    judge = Classifier(result=lambda value: Verdict.IGNORED)
    counted = Counted(seconds=0)
    protected = engine(Cache(10, on=judge))
    assert [await protected.call(counted.run) for _ in range(2)] == ["a 1", "a 2"]


def is_missing(error: Exception) -> bool:
    return isinstance(error, MissingError)


@pytest.mark.parametrize("negative", [MissingError, (KeyError, MissingError), is_missing])
async def test_negative_errors_are_kept_shortly(negative: Any, engine: Engine) -> None:
    recorder, counted = EventRecorder(), Counted(MissingError("no", 7), "there", seconds=0)
    protected = engine(Cache(100, **EXACT, stale_for=50, negative=negative, negative_ttl=2, listeners=[recorder]))
    errors: list[Any] = [(await protected.outcome(counted.run)).error for _ in range(3)]
    assert [(type(error), error.args) for error in errors] == [(MissingError, ("no", 7))] * 3
    assert len({id(error) for error in errors}) == 3
    assert counted.begun == 1
    assert len(traceback.extract_tb(errors[1].__traceback__)) == len(traceback.extract_tb(errors[2].__traceback__))
    assert [event.negative for event in recorder.of(CacheHit)] == [True, True]
    await anyio.sleep(2)
    assert await protected.call(counted.run) == "there"


async def test_negative_results_are_kept_shortly(engine: Engine) -> None:
    counted = Counted(None, "there", seconds=0)
    protected = engine(Cache(100, **EXACT, negative_result=lambda value: value is None, negative_ttl=2))
    assert [await protected.call(counted.run) for _ in range(2)] == [None, None]
    await anyio.sleep(2)
    assert [await protected.call(counted.run) for _ in range(2)] == ["there", "there"]
    assert counted.begun == 2


async def test_a_negative_answer_takes_the_place_of_a_stale_value(engine: Engine) -> None:
    counted = Counted("old", MissingError, seconds=0)
    protected = engine(Cache(10, **EXACT, stale_for=50, stale_if_error=50, negative=MissingError))
    await protected.call(counted.run)
    await anyio.sleep(10)
    assert await protected.call(counted.run) == "old"
    await anyio.sleep(0.1)
    with pytest.raises(MissingError):
        await protected.call(counted.run)


@pytest.mark.parametrize("option", ["negative", "negative_result", "on_result"])
async def test_a_broken_predicate_is_its_authors_to_see(option: str, engine: Engine) -> None:
    class Response:
        closed = False

        async def aclose(self) -> None:
            self.closed = True

    response = Response()
    options: dict[str, Any] = {option: broken}
    protected = engine(Cache(10, **options))
    with pytest.raises(ZeroDivisionError, match="a broken predicate"):
        await protected.call(Counted(DownError if option == "negative" else response).run)
    assert response.closed is (option != "negative")


async def test_a_broken_predicate_in_the_background_is_told() -> None:
    recorder, good = EventRecorder(), True

    def judge(value: Any) -> bool:
        return bool(1 / good) and False

    cache = Cache(10, **EXACT, stale_for=50, on_result=judge, listeners=[recorder])
    counted = Counted(seconds=0)
    await cache.call(counted.run)
    await anyio.sleep(10)
    good = False
    assert await cache.call(counted.run) == "a 1"
    await anyio.sleep(0.1)
    assert [type(event.error) for event in recorder.of(CacheRefreshFailed)] == [ZeroDivisionError]


async def test_the_bound_by_weight() -> None:
    counted = Counted(seconds=0)
    cache = Cache(10, max_weight=2, weigh=lambda value: 1 if value.startswith("small") else 3)

    async def fetch(key: str) -> str:
        return str(await counted.run(key))

    for key in ("small 1", "small 2", "small 3", "small 3"):
        await cache.call(fetch, key)
    assert (cache.size, counted.begun) == (2, 3)
    for _ in range(2):
        assert (await cache.call(fetch, "large")).startswith("large")
    assert counted.begun == 5, "too heavy to be kept"
    heavy = Cache(10, max_weight=1, weigh=lambda value: -1)
    with pytest.raises(ValueError, match=r"weigh\(value\) must be at least 0"):
        await heavy.call(fetch, "x")


async def test_the_bound_by_number_and_time() -> None:
    cache = Cache(10, max_entries=100)

    async def fetch(key: int) -> int:
        return key

    for key in range(150):
        await cache.call(fetch, key)
    assert cache.size == 100
    await anyio.sleep(30)
    await cache.call(fetch, -1)
    assert cache.size == 1


async def test_invalidate_peek_and_put(engine: Engine) -> None:
    counted = Counted(seconds=0)
    cache = Cache(10, **EXACT, stale_for=5, stale_if_error=50, negative=MissingError)

    @engine(Retry(), cache, Timeout(1))
    async def fetch(key: int) -> str:
        return str(await counted.run(key))

    assert await cache.peek(fetch, 1) is None
    assert not await cache.invalidate(fetch, 1)
    assert await fetch(1) == "1 1"
    assert_value(await cache.peek(fetch, 1), "1 1")
    assert await cache.invalidate(fetch, key=1)
    assert await fetch(1) == "1 2"
    await cache.put("mine", fetch, 1)
    assert await fetch(1) == "mine"
    await anyio.sleep(14.9)
    assert_value(await cache.peek(fetch, 1), "mine")
    await anyio.sleep(0.1)
    assert await cache.peek(fetch, 1) is None, "good for an error at most"
    await fetch(2)
    await cache.clear()
    assert cache.size == 0
    counted.outcomes.append(MissingError("no"))
    with pytest.raises(MissingError):
        await fetch(3)
    peeked = await cache.peek(fetch, 3)
    assert peeked is not None
    assert repr(peeked.error) == "MissingError('no')"
    assert counted.begun == 4


def assert_value(outcome: Outcome[Any] | None, value: object) -> None:
    assert outcome is not None
    assert outcome.value == value


async def test_invalidate_for_methods_bound_calls_and_other_functions() -> None:
    cache = Cache(10)
    counted = Counted(seconds=0)

    class Users:
        @cache
        async def fetch(self, number: int) -> str:
            return str(await counted.run(number))

        async def plain(self, number: int) -> str:
            return str(await counted.run(number))

    users = Users()
    await users.fetch(1)
    assert not await cache.invalidate(Users().fetch, 1)
    assert await cache.invalidate(users.fetch, 1)
    await users.fetch(1)
    assert await cache.invalidate(Users.fetch, users, 1)
    await cache.call(users.plain, 1)
    assert await cache.invalidate(users.plain, 1)

    eu = cache.bind(key="eu")
    eu_fetch = eu(Users.plain)
    await eu_fetch(users, 1)
    assert not await cache.invalidate(users.plain, 1)
    assert_value(await eu.peek(eu_fetch, users, 1), f"1 {counted.begun}")
    await eu.put("mine", eu_fetch, users, 1)
    assert await eu_fetch(users, 1) == "mine"
    assert await eu.invalidate(eu_fetch, users, 1)

    # A function that is decorated twice: what the cache sees is the inner one.
    retried = Retry()(Users.plain)
    twice = cache(retried)
    await twice(users, 2)
    assert await cache.invalidate(retried, users, 2)
    await twice(users, 2)
    assert await cache.invalidate(twice, users, 2)


@pytest.mark.parametrize("change", ["invalidate", "put", "clear"])
async def test_a_run_that_began_before_a_change_is_not_kept(change: str) -> None:
    counted, cache = Counted(seconds=2), Cache(100)
    results: list[Any] = []

    async def one() -> None:
        results.append(await cache.call(counted.run))

    async with anyio.create_task_group() as group:
        group.start_soon(one)
        await anyio.sleep(1)
        if change == "invalidate":
            assert not await cache.invalidate(counted.run)
        elif change == "put":
            await cache.put("mine", counted.run)
        else:
            await cache.clear()
        if change != "put":
            group.start_soon(one)
    after = await cache.call(counted.run)
    assert results == (["a 1"] if change == "put" else ["a 1", "a 2"])
    assert after == ("mine" if change == "put" else "a 2")


async def test_a_spare_that_was_invalidated_meanwhile_is_not_served() -> None:
    counted, cache = Counted("old", DownError), Cache(10, **EXACT, stale_if_error=100)
    await cache.call(counted.run)
    await anyio.sleep(10)
    async with anyio.create_task_group() as group:

        async def one() -> None:
            with pytest.raises(DownError):
                await cache.call(counted.run)

        group.start_soon(one)
        await anyio.sleep(0.5)
        await cache.invalidate(counted.run)


async def test_two_caches_of_one_name_share_their_entries() -> None:
    store, counted = MemoryStore(), Counted(seconds=0)
    one, other = (Cache(10, name="users", store=store, codec=JsonCodec()) for _ in range(2))
    assert await one.call(counted.run) == await other.call(counted.run) == "a 1"
    assert (one.size, one.degraded) == (1, False)
    with pytest.raises(ValueError, match="name 'users' is taken by a cache with other settings"):
        Cache(11, name="users", store=store)


async def test_calls_that_cannot_be_shared_run_by_themselves() -> None:
    counted, cache = Counted(seconds=0), Cache(10)
    operation = Operation("one")
    for _ in range(2):
        await cache.run(Call(operation, counted.run, repeatable=False))
        await cache.run(Call(operation, counted.run, lease=Lease()))
    assert (counted.begun, cache.size) == (4, 0)


async def test_a_cached_value_is_never_closed() -> None:
    class Response:
        closed = False

        async def aclose(self) -> None:
            self.closed = True

    response = Response()
    cache = Cache(10)

    async def stubborn() -> Response:
        return response

    async with anyio.create_task_group() as group:
        group.start_soon(cache.call, stubborn)
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert await cache.call(stubborn) is response
    assert not response.closed


async def test_it_cannot_guard_a_block() -> None:
    with pytest.raises(TypeError, match="cannot guard a block"):
        Cache(1).guards()


async def test_inside_a_pipeline_only_misses_pass_the_rest(engine: Engine) -> None:
    breaker = CircuitBreaker(count=100)
    protected = engine(Cache(10), Retry(), breaker, Timeout(5))
    script = FaultScript(DownError, "up")
    assert [await protected.call(script) for _ in range(5)] == ["up"] * 5
    assert breaker.metrics().calls == 2


def test_one_cache_serves_one_loop_after_another() -> None:
    cache, counted = Cache(60, stale_for=60), Counted(seconds=0.001)
    assert asyncio.run(cache.call(counted.run)) == "a 1"
    assert asyncio.run(cache.call(counted.run)) == "a 1"


async def test_a_policy_of_ones_own_sees_hits_outside_and_misses_inside(engine: Engine) -> None:
    class Look(Policy):
        seen = 0

        def wrap(self, proceed: Any) -> Any:
            async def look(call: Call) -> Any:
                self.seen += 1
                return await proceed(call)

            return look

    outside, inside = Look(), Look()
    protected = engine(outside, Cache(10), inside)
    counted = Counted(seconds=0)
    for _ in range(3):
        await protected.call(counted.run)
    assert (outside.seen, inside.seen) == (3, 1)
