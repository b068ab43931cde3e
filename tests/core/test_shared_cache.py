"""A cache that processes share, in virtual time: several caches on one store elsewhere."""

from __future__ import annotations

import contextvars
from contextlib import suppress
from typing import Any

import anyio
import pytest

from resilience import Cache, PickleCodec, StoreUnavailableError, TimedOutError, Timeout, clock
from resilience.events import (
    CacheHit,
    CacheMissed,
    CacheRefreshed,
    CacheRefreshFailed,
    StoreDegraded,
    StoreRecovered,
)
from resilience.testing import EventRecorder, VirtualClock
from tests.support.counted import Counted, together
from tests.support.failures import DownError, always
from tests.support.remote_cache import Elsewhere, Remote
from tests.support.scopes import cancelled_after

EXACT: dict[str, Any] = {"jitter": 0, "beta": 0}

pytestmark = pytest.mark.anyio


class MissingError(LookupError):
    pass


class OddError(MissingError):
    pass


current = Counted()


async def fetch(key: object = "a") -> Any:
    """A function of the module, as shared caches need; each test sets what it runs."""
    return await current.run(key)


@pytest.fixture
def counted() -> Counted:
    global current
    current = Counted()
    return current


def processes(count: int, place: Elsewhere, ttl: float = 100, **options: Any) -> list[Cache]:
    """The same cache in several processes."""
    return [Cache(ttl, name="users", store=place, **{**EXACT, **options}) for _ in range(count)]


async def test_a_value_is_shared(counted: Counted) -> None:
    counted.seconds = 1
    place, recorder = Elsewhere(), EventRecorder()
    one, other = processes(2, place, listeners=[recorder])
    assert await one.call(fetch, 1) == await other.call(fetch, 1) == await one.call(fetch, 1) == "1 1"
    assert (counted.begun, one.size, one.degraded) == (1, 0, False)
    assert [type(event) for event in recorder.events] == [CacheMissed, CacheHit, CacheHit]
    assert place.calls == {"look": 3, "store": 1}


async def test_each_decision_is_one_call(counted: Counted) -> None:
    place = Elsewhere()
    (cache,) = processes(1, place)
    await cache.call(fetch)
    place.calls.clear()
    await together(100, lambda: cache.call(fetch))
    assert place.calls == {"look": 1}, "callers of one process look together"


async def test_one_run_for_all_processes(counted: Counted) -> None:
    place = Elsewhere()
    caches = processes(4, place)
    turns = caches * 50
    assert await together(200, lambda: turns.pop().call(fetch)) == ["a 1"] * 200
    assert counted.begun == 1
    assert place.calls["look"] <= 4 * 7
    assert not place.watches


process: contextvars.ContextVar[int] = contextvars.ContextVar("process")


async def test_ten_thousand_misses_with_leaders_cancelled_ten_times(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time a whole process gives up, the one that runs for all, and another takes over."""
    place, results, leaders = Elsewhere(), list[Any](), list[int]()
    counted.seconds = 5
    scopes = {number: anyio.CancelScope() for number in range(14)}

    async def run(key: object) -> Any:
        leaders.append(process.get())  # a run has the context of who began it
        return await Counted.run(counted, key)

    monkeypatch.setattr(counted, "run", run)

    async def member(number: int, callers: int) -> None:
        process.set(number)
        (cache,) = processes(1, place)
        with scopes[number]:
            results.extend(await together(callers, lambda: cache.call(fetch)))

    async with anyio.create_task_group() as group:
        for number in range(14):
            group.start_soon(member, number, 1000)
        for _ in range(10):
            await anyio.sleep(3)
            scopes[leaders[-1]].cancel()
    assert len(leaders) == len(set(leaders)) == 11
    assert (len(results), set(results)) == (4_000, {"a 11"})
    assert (counted.begun, counted.completed, counted.cancelled) == (11, 1, 10)


async def test_a_process_that_gives_up_is_replaced_at_once(counted: Counted) -> None:
    counted.seconds = 3
    one, other = processes(2, Elsewhere())
    async with anyio.create_task_group() as group:

        async def quit_early() -> None:
            async with cancelled_after(1):
                await one.call(fetch)

        group.start_soon(quit_early)
        await anyio.sleep(0.5)
        assert await other.call(fetch) == "a 2"
    assert clock.now() == pytest.approx(1.5 + 3, abs=0.01)  # it cleans up for half a second before it lets go


async def test_a_process_that_crashed_is_replaced_when_its_lease_ends(counted: Counted) -> None:
    place = Elsewhere()
    (cache,) = processes(1, place, lease=7)
    remote = Remote(place, "users")
    key = cache._keys.text(cache._record(fetch, ("a",), {}))
    assert (await remote.look(key, "of a process that is no more", 7, 0)).state == "lease"
    assert await cache.call(fetch, "a") == "a 1"
    assert clock.now() == pytest.approx(8, abs=0.05)


async def test_a_slow_run_keeps_its_lease(counted: Counted) -> None:
    counted.seconds = 20
    one, other = processes(2, Elsewhere(), lease=3)
    turns = [one, other]
    assert await together(2, lambda: turns.pop().call(fetch)) == ["a 1"] * 2
    assert counted.begun == 1
    assert clock.now() == pytest.approx(20, abs=0.05)


async def test_who_waits_for_another_process_has_a_deadline_of_his_own(counted: Counted) -> None:
    counted.seconds = 10
    one, other = processes(2, Elsewhere())
    async with anyio.create_task_group() as group:
        group.start_soon(one.call, fetch)
        await anyio.sleep(1)
        with pytest.raises(TimedOutError):
            await Timeout(2).call(other.call, fetch)
        assert clock.now() == 3
    assert counted.begun == 1


async def test_stale_is_served_everywhere_and_refreshed_once(counted: Counted) -> None:
    recorder = EventRecorder()
    caches = processes(4, Elsewhere(), 10, stale_for=20, listeners=[recorder])
    await caches[0].call(fetch)
    await anyio.sleep(12)
    turns = caches * 5
    assert await together(20, lambda: turns.pop().call(fetch)) == ["a 1"] * 20
    await anyio.sleep(2)
    assert (counted.begun, await caches[3].call(fetch)) == (2, "a 2")
    (refreshed,) = recorder.of(CacheRefreshed)
    assert (refreshed.reason, round(refreshed.duration, 6)) == ("stale", 1)
    assert {event.freshness for event in recorder.of(CacheHit)} == {"fresh", "stale"}


async def test_an_early_refresh_is_one_for_all(counted: Counted) -> None:
    recorder = EventRecorder()
    caches = processes(4, Elsewhere(), 10, beta=1, random=lambda: 0.9999, listeners=[recorder])
    await caches[0].call(fetch)
    await anyio.sleep(5)
    turns = list(caches)
    assert await together(4, lambda: turns.pop().call(fetch)) == ["a 1"] * 4
    await anyio.sleep(2)
    assert counted.begun == 2
    assert [event.reason for event in recorder.of(CacheRefreshed)] == ["early"]


async def test_a_failed_refresh_pauses_all(counted: Counted) -> None:
    recorder = EventRecorder()
    one, other = processes(2, Elsewhere(), 10, stale_for=100, pause=5, listeners=[recorder])
    await one.call(fetch)
    counted.outcomes = [DownError, DownError]
    await anyio.sleep(10)
    assert await one.call(fetch) == "a 1"
    await anyio.sleep(2)
    assert await other.call(fetch) == "a 1"
    assert counted.begun == 2
    assert len(recorder.of(CacheRefreshFailed)) == 1
    await anyio.sleep(5)
    await other.call(fetch)
    await anyio.sleep(2)
    assert counted.begun == 3


async def test_a_stale_value_stands_in_for_an_error_everywhere(counted: Counted) -> None:
    recorder = EventRecorder()
    one, other = processes(2, Elsewhere(), 10, stale_if_error=100, pause=5, listeners=[recorder])
    await one.call(fetch)
    counted.outcomes = [DownError]
    await anyio.sleep(20)
    turns = [one, other] * 3
    assert await together(6, lambda: turns.pop().call(fetch)) == ["a 1"] * 6
    assert counted.begun == 2
    assert {event.freshness for event in recorder.of(CacheHit)} == {"spare"}
    await anyio.sleep(5)
    assert await other.call(fetch) == "a 3"


async def test_an_error_is_each_processs_own(counted: Counted) -> None:
    """It cannot travel; the processes try one after another."""
    counted.outcomes = [DownError("one"), DownError("two")]
    caches = processes(3, Elsewhere())
    turns = caches * 4
    results = await together(12, lambda: turns.pop().call(fetch))
    assert sorted(map(str, results)) == ["a 3"] * 4 + ["one"] * 4 + ["two"] * 4


def is_none(value: object) -> bool:
    return value is None


async def test_negative_answers_are_shared(counted: Counted) -> None:
    recorder = EventRecorder()
    options: dict[str, Any] = {"negative": MissingError, "negative_result": is_none}
    one, other = processes(2, Elsewhere(), negative_ttl=5, listeners=[recorder], **options)
    counted.outcomes = [MissingError("no", 7), None, "there", "there too"]
    for key in ("error", "value"):
        first, second = [await cache.outcome(fetch, key) for cache in (one, other)]
        assert (type(first.error), first.error and first.error.args) == (
            type(second.error),
            second.error and second.error.args,
        )
        assert first.error is None or first.error.args == ("no", 7)
        peeked = await one.peek(fetch, key)
        assert peeked is not None
        assert type(peeked.error) is type(first.error)
    assert counted.begun == 2
    assert [event.negative for event in recorder.of(CacheHit)] == [True, True]
    await anyio.sleep(6)
    assert [await other.call(fetch, key) for key in ("error", "value")] == ["there", "there too"]


async def test_a_negative_error_that_cannot_travel_is_not_kept(counted: Counted) -> None:
    one, other = processes(2, Elsewhere(), negative=MissingError)
    counted.outcomes = [OddError("a kind of it"), MissingError(object()), "there"]
    with pytest.raises(OddError) as caught:
        await one.call(fetch)
    assert caught.value.__notes__ == [
        "users could not keep it: tests.core.test_shared_cache.OddError is not itself one of the exception types in "
        "negative"
    ]
    with pytest.raises(MissingError) as other_caught:
        await other.call(fetch)
    assert "value[1][0] is a object, which JSON cannot give back" in other_caught.value.__notes__[0]
    assert await other.call(fetch) == "there"


def test_predicates_on_errors_are_refused() -> None:
    with pytest.raises(TypeError, match="negative must be exception types when the cache is in a store elsewhere"):
        processes(1, Elsewhere(), negative=always)


async def test_what_the_codec_refuses_is_an_error_and_closed(counted: Counted) -> None:
    closed: list[int] = []

    class Response:
        async def aclose(self) -> None:
            closed.append(1)

    place = Elsewhere()
    one, other = processes(2, place)
    counted.outcomes = [Response(), "there"]
    with pytest.raises(TypeError, match=r"value is a .*Response, which JSON cannot give back as it was"):
        await one.call(fetch)
    assert closed == [1]
    assert await other.call(fetch) == "there"
    with pytest.raises(TypeError, match="value is a tuple"):
        await one.put((1, 2), fetch)
    assert await other.call(fetch) == "there"


async def test_another_codec(counted: Counted) -> None:
    one, other = processes(2, Elsewhere(), codec=PickleCodec())
    counted.outcomes = [(1, {2})]
    assert await one.call(fetch) == await other.call(fetch) == (1, {2})


@pytest.mark.parametrize("kind", ["value", "error"])
@pytest.mark.parametrize("ahead", [0, 15])
async def test_what_cannot_be_read_is_fetched_again(kind: str, ahead: float, counted: Counted) -> None:
    place = Elsewhere()
    (cache,) = processes(1, place, 10, stale_for=10, stale_if_error=90, negative=MissingError)
    await cache.call(fetch)
    (entry,) = place.entries.values()
    assert entry.entry is not None
    entry.entry.value, entry.kind = "no json", kind
    assert await cache.peek(fetch) is None
    await anyio.sleep(ahead)
    assert await cache.call(fetch) == f"a {counted.begun}" != "a 1"
    assert entry.entry is not None
    entry.entry.value, counted.outcomes = "no json", [DownError]
    await anyio.sleep(30)
    with pytest.raises(DownError):
        await cache.call(fetch)


async def test_a_spare_value_that_cannot_be_read_does_not_stand_in(counted: Counted) -> None:
    place = Elsewhere()
    (cache,) = processes(1, place, 10, stale_if_error=100)
    await cache.call(fetch)
    (entry,) = place.entries.values()
    assert entry.entry is not None
    entry.entry.value, counted.outcomes = "no json", [DownError]
    await anyio.sleep(20)
    with pytest.raises(DownError):
        await cache.call(fetch)


async def test_a_value_that_counts_as_failure_is_closed_when_a_spare_one_stands_in(counted: Counted) -> None:
    closed: list[int] = []

    class Response:
        async def aclose(self) -> None:
            closed.append(1)

    def is_response(value: object) -> bool:
        return isinstance(value, Response)

    (cache,) = processes(1, Elsewhere(), 10, stale_if_error=100, on_result=is_response)
    await cache.call(fetch)
    counted.outcomes = [Response()]
    await anyio.sleep(20)
    assert await cache.call(fetch) == "a 1"
    assert closed == [1]


async def test_put_invalidate_and_clear_reach_all_and_end_runs_that_began_before(counted: Counted) -> None:
    counted.seconds = 2
    one, other = processes(2, Elsewhere())
    results: list[Any] = []

    async def call(cache: Cache) -> None:
        results.append(await cache.call(fetch))

    async with anyio.create_task_group() as group:
        group.start_soon(call, one)
        await anyio.sleep(1)
        await other.put("mine", fetch)
        assert await one.call(fetch) in ("mine", "a 1")
    assert results == ["a 1"]
    assert await one.call(fetch) == await other.call(fetch) == "mine"
    assert await one.invalidate(fetch)
    assert not await other.invalidate(fetch)
    assert await other.peek(fetch) is None
    async with anyio.create_task_group() as group:
        group.start_soon(call, one)
        await anyio.sleep(1)
        assert not await one.invalidate(fetch)
        group.start_soon(call, one)
    assert results[1:] == ["a 2", "a 3"]
    peeked = await other.peek(fetch)
    assert peeked is not None
    assert peeked.value == "a 3"
    await one.clear()
    assert await other.peek(fetch) is None


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_event_loop_ends_while_it_refreshes(counted: Counted, virtual_clock: VirtualClock, backend: Any) -> None:
    (cache,) = processes(1, Elsewhere(), 10, stale_for=100)

    async def main() -> None:
        await cache.call(fetch)
        counted.seconds = 3600
        await anyio.sleep(20)
        await cache.call(fetch)
        await anyio.sleep(1)

    virtual_clock.run(main, backend=backend)
    assert (counted.begun, counted.cancelled) == (2, 1)
    assert virtual_clock.now() < 24


async def test_nobody_joins_a_run_for_long_that_another_process_has_outdated(counted: Counted) -> None:
    counted.seconds = 10
    one, other = processes(2, Elsewhere(), lease=3)
    results: list[Any] = []

    async def call() -> None:
        results.append(await one.call(fetch))

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await anyio.sleep(1)
        await other.put("mine", fetch)
        await anyio.sleep(1.1)  # the lease is renewed every second
        await call()
    assert results == ["mine", "a 1"]
    assert await one.call(fetch) == "mine"


async def test_a_cancelled_look_leaves_no_lease(counted: Counted) -> None:
    place = Elsewhere(delay=1)
    one, other = processes(2, place)
    async with cancelled_after(0.3):
        await one.call(fetch)
    assert clock.now() == 1.3, "gone when the lease is given back"
    place.delay = 0.001
    assert await other.call(fetch) == "a 1"
    assert clock.now() == pytest.approx(2.3, abs=0.02)


async def test_while_the_store_is_away_each_process_works_alone(counted: Counted) -> None:
    place, recorder = Elsewhere(), EventRecorder()
    one, other = processes(2, place, stale_for=5, listeners=[recorder])
    place.away = True
    turns = [one, other] * 5
    began = clock.now()
    assert sorted(await together(10, lambda: turns.pop().call(fetch))) == ["a 1"] * 5 + ["a 2"] * 5
    assert clock.now() == pytest.approx(began + 1 + place.timeout)
    assert await one.call(fetch) in ("a 1", "a 2"), "kept here meanwhile"
    assert (counted.begun, one.degraded, one.size) == (2, True, 1)
    for operation in (one.invalidate(fetch), one.put("x", fetch), one.peek(fetch), one.clear()):
        with pytest.raises(StoreUnavailableError):
            await operation
    place.away = False
    assert await one.call(fetch) == "a 3"
    assert await other.call(fetch) == "a 3", "what was kept alone is forgotten"
    assert (one.degraded, one.size, other.size) == (False, 0, 0)
    assert [event.behaviour for event in recorder.of(StoreDegraded)] == ["local", "local"]
    assert len(recorder.of(StoreRecovered)) == 2


async def test_a_store_that_goes_away_while_one_waits_or_stores(counted: Counted) -> None:
    counted.seconds = 3
    place = Elsewhere()
    one, other = processes(2, place)
    results: list[Any] = []

    async def call(cache: Cache) -> None:
        results.append((await cache.call(fetch), round(clock.now())))

    async with anyio.create_task_group() as group:
        group.start_soon(call, one)
        await anyio.sleep(1)
        group.start_soon(call, other)
        await anyio.sleep(0.5)
        place.away = True
    assert sorted(results) == [("a 1", 3), ("a 2", 5)]


async def test_an_unreadable_entry_of_a_store_that_goes_away(counted: Counted) -> None:
    place = Elsewhere()
    (cache,) = processes(1, place)
    await cache.call(fetch)
    (entry,) = place.entries.values()
    assert entry.entry is not None
    entry.entry.value = "no json"
    async with anyio.create_task_group() as group:

        async def leave() -> None:
            await anyio.sleep(0.0011)
            place.away = True

        group.start_soon(leave)
        assert await cache.call(fetch) == "a 2"


async def test_a_mistake_of_the_users_is_raised(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Elsewhere()
    (cache,) = processes(1, place)

    async def wrong(*_: Any) -> Any:
        raise PermissionError("no permission")

    monkeypatch.setattr(place, "command", wrong)
    with pytest.raises(PermissionError):
        await cache.call(fetch)
    assert not cache.degraded


async def test_local_functions_and_objects_are_refused(counted: Counted) -> None:
    (cache,) = processes(1, Elsewhere())

    async def inner() -> None: ...

    with pytest.raises(TypeError, match="has no name that other processes know"):
        await cache.call(inner)
    with pytest.raises(TypeError, match="argument 'key' cannot be part of a key that processes share"):
        await cache.call(fetch, object())
    with suppress(TypeError):
        await cache.call(fetch, [])
    assert counted.begun == 0
