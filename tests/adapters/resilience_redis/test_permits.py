"""A bulkhead whose permits are in Redis: what one process sees, with a second one beside it in the same loop."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from redis.exceptions import NoPermissionError

from resilience import (
    Bulkhead,
    BulkheadFullError,
    PermitLostError,
    Pipeline,
    Retry,
    StoreUnavailableError,
    TimedOutError,
    Timeout,
    fencing_token,
)
from resilience.engine import build
from resilience.events import CallRejected, PermitAwaited, PermitLost, StoreDegraded, StoreRecovered
from resilience.testing import EventRecorder
from resilience_redis import RedisStore
from resilience_redis.bulkheads import renewal
from resilience_redis.bulkheads.permits import RedisPermits
from resilience_redis.server import Server, start_server
from tests.support.redis import sync_client

pytestmark = pytest.mark.asyncio

LEASE = 0.6


class Fleet:
    """Bulkheads of several stores, each as good as a process of its own."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url, self.prefix = url, prefix
        self.stores: list[RedisStore] = []

    def member(self, limit: int = 1, *, timeout: float = 5.0, **options: Any) -> Bulkhead:
        store = RedisStore.from_url(self.url, prefix=self.prefix, timeout=timeout)
        self.stores.append(store)
        return Bulkhead(limit, name="db", store=store, **options)

    async def leave(self, *bulkheads: Bulkhead) -> None:
        """What they hold is not given back: as if the processes had died."""
        for store in self.stores:
            await store.aclose()
        self.stores.clear()


@asynccontextmanager
async def fleet_of(url: str, prefix: str) -> AsyncGenerator[Fleet]:
    fleet = Fleet(url, prefix)
    try:
        yield fleet
    finally:
        await fleet.leave()


@pytest_asyncio.fixture
async def fleet(redis_server: Server, redis_prefix: str) -> AsyncGenerator[Fleet]:
    async with fleet_of(redis_server.url, redis_prefix) as fleet:
        yield fleet


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 5.0) -> float:
    """Wait for something to become true; how long it took."""
    began = time.monotonic()
    while not await condition():
        assert time.monotonic() < began + seconds, "it never became true"
        await asyncio.sleep(0.005)
    return time.monotonic() - began


async def occupied(bulkhead: Bulkhead, in_use: int, waiting: int = 0, key: str = "") -> float:
    async def reached() -> bool:
        try:
            return await bulkhead.peek(key) == (in_use, waiting)
        except StoreUnavailableError:  # away, or not known to be back yet
            return False

    return await until(reached)


class Holder:
    """A call that holds a permit until it is told to end."""

    def __init__(self, bulkhead: Any, key: str = "", **binding: Any) -> None:
        self.began: asyncio.Event = asyncio.Event()
        self.end: asyncio.Event = asyncio.Event()
        self.token: int | None = None
        self.call = asyncio.ensure_future(bulkhead.bind(key=key, **binding).call(self._work))

    async def _work(self) -> str:
        self.token = fencing_token()
        self.began.set()
        await self.end.wait()
        return "done"

    async def running(self) -> Holder:
        await asyncio.wait_for(self.began.wait(), 10)
        return self

    async def finish(self) -> str:
        self.end.set()
        return await asyncio.wait_for(self.call, 10)


async def test_processes_share_the_limit(fleet: Fleet) -> None:
    one, two = fleet.member(2), fleet.member(2)
    holders = [await Holder(one).running(), await Holder(two).running()]
    for bulkhead in (one, two):
        with pytest.raises(BulkheadFullError, match="db is full: 2 of 2 in use, 0 waiting"):
            await bulkhead.call(asyncio.sleep, 0)
        assert bulkhead.in_use() == 1
        assert await bulkhead.peek() == (2, 0)
    assert [await holder.finish() for holder in holders] == ["done", "done"]
    await occupied(two, 0)
    assert (one.in_use(), one.rejected) == (0, 1)


async def test_first_come_first_served_across_processes(fleet: Fleet) -> None:
    members = [fleet.member(1, queue=5) for _ in range(3)]
    first = await Holder(members[0]).running()
    holders: list[Holder] = []
    for number, member in enumerate([members[1], members[2], members[0], members[1]]):
        holders.append(Holder(member))
        await occupied(members[0], 1, number + 1)
    assert members[1].waiting() == 2
    await asyncio.sleep(0.2)  # the subscriptions
    previous, tokens = first, [first.token]
    for holder in holders:
        assert not holder.began.is_set()
        await previous.finish()
        began = time.monotonic()
        await holder.running()
        assert time.monotonic() - began < 0.5, "called by a message, not found by a poll"
        previous = holder
        tokens.append(holder.token)
    await previous.finish()
    assert tokens == sorted(set(tokens), key=lambda token: token or 0)


async def test_the_queue_is_bounded_for_all(fleet: Fleet) -> None:
    one, two = fleet.member(queue=1), fleet.member(queue=1)
    holder = await Holder(one).running()
    waiter = Holder(two)
    await occupied(one, 1, 1)
    with pytest.raises(BulkheadFullError, match="1 of 1 in use, 1 waiting"):
        await one.call(asyncio.sleep, 0)
    await holder.finish()
    await (await waiter.running()).finish()


async def test_a_wait_that_is_too_long_is_refused_and_leaves_nothing(fleet: Fleet) -> None:
    one, two = fleet.member(queue=5), fleet.member(queue=5, max_wait=0.05)
    holder = await Holder(one).running()
    began = time.monotonic()
    with pytest.raises(BulkheadFullError):
        await two.call(asyncio.sleep, 0)
    assert 0.04 < time.monotonic() - began < 0.5
    await occupied(one, 1, 0)
    await holder.finish()
    await occupied(one, 0, 0)


async def test_a_deadline_ends_the_wait_and_leaves_nothing(fleet: Fleet) -> None:
    one, two = fleet.member(queue=5), fleet.member(queue=5)
    holder = await Holder(one).running()
    with pytest.raises(TimedOutError):
        await Pipeline(Timeout(0.05), two).call(asyncio.sleep, 0)
    await occupied(one, 1, 0)
    await holder.finish()


async def test_whoever_is_cancelled_leaves_nothing_wherever_it_was(fleet: Fleet) -> None:
    one, two = fleet.member(2, queue=100), fleet.member(2, queue=100)

    async def caller(bulkhead: Bulkhead, patience: float) -> None:
        with pytest.raises((asyncio.CancelledError, TimeoutError)):
            async with asyncio.timeout(patience):
                await bulkhead.call(asyncio.sleep, 10)

    began = time.monotonic()
    await asyncio.gather(*(caller((one, two)[number % 2], number * 0.0002) for number in range(80)))
    assert time.monotonic() - began < 2
    await occupied(one, 0, 0)
    assert (one.in_use(), one.waiting(), two.in_use(), two.waiting()) == (0, 0, 0, 0)


async def test_a_permit_granted_to_a_caller_that_is_cancelled_at_that_moment_goes_on(fleet: Fleet) -> None:
    one, two = fleet.member(queue=5), fleet.member(queue=5)
    for pause in range(12):
        holder = await Holder(one).running()
        victim, heir = Holder(two), Holder(one)
        await occupied(one, 1, 2)
        holder.end.set()
        for _ in range(pause):
            await asyncio.sleep(0)
        victim.call.cancel()
        await heir.running()
        await heir.finish()
        await occupied(one, 0, 0)


async def test_heavy_calls_take_more_and_are_not_overtaken(fleet: Fleet) -> None:
    def weight(call: Any) -> int:
        return int(call.cost)

    one, two = (fleet.member(4, queue=5, weight=weight) for _ in range(2))
    light = await Holder(one, cost=2).running()
    heavy = Holder(two, cost=4)
    await occupied(one, 2, 1)
    small = Holder(one, cost=1)
    await occupied(one, 2, 2)
    await light.finish()
    await heavy.running()
    assert not small.began.is_set()
    await heavy.finish()
    await (await small.running()).finish()
    with pytest.raises(ValueError, match=r"weight must be at most the limit \(4\), got 5"):
        await one.bind(cost=5).call(asyncio.sleep, 0)


async def test_keys_have_permits_of_their_own(fleet: Fleet) -> None:
    one, two = fleet.member(), fleet.member()
    holders = [await Holder(one, key).running() for key in ("eu", "us:1{}")]
    for key in ("eu", "us:1{}"):
        assert await two.peek(key) == (1, 0)
        with pytest.raises(BulkheadFullError):
            await two.bind(key=key).call(asyncio.sleep, 0)
    await two.bind(key="asia").call(asyncio.sleep, 0)
    for holder in holders:
        await holder.finish()


async def test_a_lease_is_renewed_while_the_call_runs(fleet: Fleet) -> None:
    one, two = fleet.member(3, lease=0.3), fleet.member(3, lease=0.3)
    holders = [await Holder(one, key).running() for key in ("", "a", "a")]
    ends = time.monotonic() + 1.2
    while time.monotonic() < ends:
        assert (await two.peek(), await two.peek("a")) == ((1, 0), (2, 0))
        await asyncio.sleep(0.02)
    for holder in holders:
        assert await holder.finish() == "done"


async def test_what_a_dead_process_held_is_free_when_its_lease_ends(fleet: Fleet, redis_server: Server) -> None:
    survivor = fleet.member(queue=5, lease=LEASE)
    async with fleet_of(redis_server.url, fleet.prefix) as others:
        dead = await Holder(others.member(lease=LEASE)).running()
    died = time.monotonic()
    heir = await Holder(survivor).running()
    assert time.monotonic() - died < LEASE + 0.15
    assert heir.token is not None
    assert dead.token is not None
    assert heir.token > dead.token
    await dead.finish()  # whatever it does now, it takes nothing from its heir
    assert await survivor.peek() == (1, 0)
    await heir.finish()


async def test_a_dead_waiter_does_not_keep_what_it_is_granted(fleet: Fleet, redis_server: Server) -> None:
    one = fleet.member(queue=5, lease=LEASE)
    holder = await Holder(one).running()
    async with fleet_of(redis_server.url, fleet.prefix) as others:
        waiter = Holder(others.member(queue=5, lease=LEASE, on_outage="closed"))
        await occupied(one, 1, 1)
    with pytest.raises(BulkheadFullError):
        await waiter.call
    heir = Holder(one)
    await occupied(one, 1, 2)
    await holder.finish()
    await heir.running()
    await heir.finish()


async def test_the_fencing_token_is_at_hand_while_the_permit_is_held(fleet: Fleet) -> None:
    one, two = fleet.member(2), fleet.member(2)
    assert fencing_token() is None
    async with one.guard() as call:
        first = call.fencing_token
        assert first == fencing_token()
        async with two.guard() as inner:
            second = inner.fencing_token
            assert second == fencing_token()
        assert fencing_token() == first
    assert call.fencing_token is None
    assert fencing_token() is None
    assert first is not None
    assert second is not None
    assert second > first

    @one
    async def numbers() -> AsyncGenerator[int]:
        yield 1

    async for _ in numbers():
        assert fencing_token() is None, "the generator runs in the context of its reader"
    await occupied(one, 0)


async def test_two_round_trips_a_call(own_server: Server, redis_prefix: str) -> None:
    async with fleet_of(own_server.url, redis_prefix) as fleet:
        bulkhead = fleet.member(5)
        with sync_client(own_server.url) as admin:
            await bulkhead.call(asyncio.sleep, 0)
            await occupied(bulkhead, 0)
            admin.config_resetstat()
            for _ in range(200):
                await bulkhead.call(asyncio.sleep, 0)
            assert admin.info("commandstats")["cmdstat_evalsha"]["calls"] <= 400 + 3  # and a sign of life


async def test_the_limit_may_change_while_it_is_in_use(fleet: Fleet) -> None:
    one, two = fleet.member(1, queue=5), fleet.member(3, queue=5)
    holders = [await Holder(two).running() for _ in range(2)]
    waiter = Holder(one)
    await occupied(one, 2, 1)
    one.resize(3)
    await waiter.running()
    assert one.limit == 3
    for holder in [*holders, waiter]:
        await holder.finish()
    await occupied(one, 0)


async def test_draining_is_for_this_process(fleet: Fleet) -> None:
    one, two = fleet.member(1, queue=5), fleet.member(1, queue=5)
    holder = await Holder(one).running()
    waiter = Holder(one)
    await occupied(one, 1, 1)
    draining = asyncio.ensure_future(one.drain())
    await asyncio.sleep(0)
    with pytest.raises(BulkheadFullError, match="is being drained"):
        await one.call(asyncio.sleep, 0)
    await holder.finish()
    await waiter.running()
    assert not draining.done()
    await waiter.finish()
    await asyncio.wait_for(draining, 1)
    await two.call(asyncio.sleep, 0)


async def test_shadow_mode_asks_and_lets_pass(fleet: Fleet) -> None:
    recorder = EventRecorder()
    one, two = fleet.member(queue=5), fleet.member(queue=5, mode="shadow", listeners=[recorder])
    holder = await Holder(one).running()
    await two.call(asyncio.sleep, 0)
    (rejected,) = recorder.of(CallRejected)
    assert rejected.shadow
    assert two.rejected == 1
    assert await one.peek() == (1, 0)
    await holder.finish()
    two.mode = "off"
    await two.call(asyncio.sleep, 0)


async def test_waiting_is_an_event_and_the_round_trip_is_not(fleet: Fleet) -> None:
    recorder = EventRecorder()
    one = fleet.member(queue=5, listeners=[recorder])
    holder = await Holder(one).running()
    waiter = Holder(one)
    await occupied(one, 1, 1)
    await holder.finish()
    await (await waiter.running()).finish()
    (event,) = recorder.of(PermitAwaited)
    assert event.waited > 0


@pytest.mark.parametrize("fused", [True, False])
async def test_in_a_pipeline(fleet: Fleet, fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "fused", fused)
    one = fleet.member(1)
    pipeline = Pipeline(Timeout(5.0), one, Retry(attempts=2), Timeout(1.0))
    seen: list[int | None] = []

    @pipeline
    async def work() -> str:
        seen.append(fencing_token())
        if len(seen) == 1:
            raise KeyError
        assert one.in_use() == 1
        return "done"

    assert await work() == "done"
    assert seen[0] is not None
    assert seen[0] == seen[1], "one permit covers all attempts"
    await occupied(one, 0)


class Stopped:
    """A server that hangs inside of the block."""

    def __init__(self, server: Server) -> None:
        assert server.pid is not None
        self.pid = server.pid

    def __enter__(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def __exit__(self, *error: object) -> None:
        os.kill(self.pid, signal.SIGCONT)


async def test_a_call_that_lost_its_permit_goes_on_by_default(own_server: Server, redis_prefix: str) -> None:
    async with fleet_of(own_server.url, redis_prefix) as fleet:
        recorder = EventRecorder()
        one = fleet.member(lease=LEASE, timeout=0.05, listeners=[recorder])
        holder = await Holder(one).running()
        with Stopped(own_server):
            await asyncio.sleep(LEASE + 0.1)
        (event,) = recorder.of(PermitLost)
        assert (event.key, event.cancelled) == ("", False)
        other = fleet.member(lease=LEASE)
        await occupied(other, 1)  # what runs is counted again
        await asyncio.sleep(LEASE + 0.1)
        assert await other.peek() == (1, 0)
        assert await holder.finish() == "done"
        await occupied(other, 0)


async def test_a_call_that_lost_its_permit_is_cancelled_in_time(own_server: Server, redis_prefix: str) -> None:
    async with fleet_of(own_server.url, redis_prefix) as fleet:
        recorder = EventRecorder()
        one = fleet.member(lease=LEASE, timeout=0.05, on_lost="cancel", listeners=[recorder])
        began = time.monotonic()
        holder = await Holder(one).running()
        with Stopped(own_server):
            with pytest.raises(PermitLostError, match="could not be renewed") as caught:
                await holder.call
            assert time.monotonic() - began < LEASE + LEASE / 3, "before its lease could end in the server"
        assert (caught.value.policy, caught.value.key) == ("db", "")
        (event,) = recorder.of(PermitLost)
        assert event.cancelled
        assert one.in_use() == 0
        await occupied(fleet.member(lease=LEASE), 0)


@pytest.mark.parametrize("fused", [True, False])
async def test_a_pipeline_whose_permit_is_lost_ends_and_is_not_retried_inside(
    fleet: Fleet, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "fused", fused)
    one = fleet.member(on_lost="cancel")
    pipeline = Pipeline(Timeout(5.0), one, Retry(attempts=3), Timeout(2.0))
    attempts: list[int] = []

    async def work() -> None:
        attempts.append(1)
        (hold,) = _holds(one)
        asyncio.get_running_loop().call_soon(hold.home.lose, hold)
        await asyncio.sleep(1)

    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(PermitLostError):
        await pipeline.call(work)
    assert len(attempts) == 1
    assert task.cancelling() == 0
    with pytest.raises(PermitLostError):
        async with one.guard():
            await work()
    await occupied(one, 0)
    outcome = await Pipeline(Retry(attempts=2), one).outcome(work)
    assert isinstance(outcome.error, PermitLostError)
    assert len(attempts) == 4, "outside of the permit it is a failure like any other"


async def test_a_process_that_slept_asks_again_before_it_uses_what_it_was_granted(fleet: Fleet) -> None:
    one, two = fleet.member(queue=5, lease=LEASE), fleet.member(queue=5, lease=LEASE)
    holder = await Holder(one).running()
    waiter = Holder(two)
    await occupied(one, 1, 1)
    (hold,) = _holds(two)
    hold.until = 0.0  # as if its lease had ended while the message was waiting for the event loop
    await holder.finish()
    await waiter.running()
    assert hold.until > 0
    await waiter.finish()
    await occupied(one, 0)


async def test_losing_the_permit_does_not_disguise_another_cancellation(fleet: Fleet) -> None:
    one = fleet.member(on_lost="cancel")
    holder = await Holder(one).running()
    (hold,) = _holds(one)
    hold.home.lose(hold)
    holder.call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holder.call
    await occupied(one, 0)


async def test_a_result_that_lives_on_is_not_cancelled(fleet: Fleet) -> None:
    """Nobody knows which task reads it; whoever does is told by the event."""
    recorder = EventRecorder()
    one = fleet.member(on_lost="cancel", listeners=[recorder])

    @one
    async def numbers() -> AsyncGenerator[int]:
        for number in range(3):
            yield number
            (hold,) = _holds(one) or [None]
            if hold is not None:
                hold.home.lose(hold)
            await asyncio.sleep(0.01)

    assert [number async for number in numbers()] == [0, 1, 2]
    (event,) = recorder.of(PermitLost)
    assert not event.cancelled
    assert one.in_use() == 0


def _holds(bulkhead: Bulkhead) -> list[Any]:
    assert bulkhead.remote is not None
    permits: Any = bulkhead.remote.permits
    assert isinstance(permits, RedisPermits)
    return [hold for home in permits._holdings.values() for hold in home.holds.values()]


async def test_a_record_that_was_lost_is_restored_by_those_who_hold(own_server: Server, redis_prefix: str) -> None:
    async with fleet_of(own_server.url, redis_prefix) as fleet:
        one = fleet.member(2, queue=5, lease=LEASE)
        holders = [await Holder(one).running() for _ in range(2)]
        waiter = Holder(one)
        await occupied(one, 2, 1)
        with sync_client(own_server.url) as admin:
            admin.flushall()
        await occupied(one, 2, 1)
        await holders[0].finish()
        await waiter.running()
        for holder in (holders[1], waiter):
            await holder.finish()
        await occupied(one, 0)


async def test_a_lost_record_whose_permits_others_took_is_a_lost_permit(own_server: Server, redis_prefix: str) -> None:
    async with fleet_of(own_server.url, redis_prefix) as fleet:
        one, two = fleet.member(lease=LEASE, on_lost="cancel"), fleet.member(lease=LEASE, on_lost="cancel")
        holder = await Holder(one).running()
        with sync_client(own_server.url) as admin:
            admin.flushall()
        other = await Holder(two).running()
        with pytest.raises(PermitLostError):
            await holder.call
        assert await two.peek() == (1, 0)
        await other.finish()


async def test_without_the_store_each_process_has_its_share(redis_prefix: str) -> None:
    recorder = EventRecorder()
    with start_server("--loglevel", "warning") as server:
        port = int(server.url.rpartition(":")[2])
        async with fleet_of(server.url, redis_prefix) as fleet:
            one = fleet.member(4, queue=5, timeout=0.2, lease=LEASE, listeners=[recorder])
            two = fleet.member(4, queue=5, timeout=0.2, lease=LEASE)
            holder = await Holder(one).running()
            await (await Holder(two).running()).finish()

            async def both_counted() -> bool:
                return _members(one) == 2

            await until(both_counted)
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            second = await Holder(one).running()  # half of four, one of which it had from the store
            third = Holder(one)
            await asyncio.sleep(0.05)
            assert not third.began.is_set()
            assert (one.in_use(), one.waiting(), one.degraded) == (2, 1, True)
            assert await holder.finish() == "done"
            await third.running()
            assert third.token is None
            with start_server("--loglevel", "warning", port=port):
                await occupied(two, 2)  # those that were admitted meanwhile are counted
                for each in (second, third):
                    await each.finish()
                await occupied(two, 0)
                await occupied(one, 0)  # each finds out for itself that the store is back
                await one.call(asyncio.sleep, 0)
                assert not one.degraded
                await fleet.leave()
    assert len(recorder.of(StoreDegraded)) == len(recorder.of(StoreRecovered)) == 1
    assert one.outage.admitted == 2


def _members(bulkhead: Bulkhead) -> int:
    assert bulkhead.remote is not None
    permits: Any = bulkhead.remote.permits
    (home,) = permits._holdings.values()
    return int(home.link.members.count)


@pytest.mark.parametrize(("behaviour", "admitted"), [("open", 20), ("closed", 0), ("local", 2)])
async def test_what_to_do_without_the_store(redis_prefix: str, behaviour: Any, admitted: int) -> None:
    async with fleet_of("redis://127.0.0.1:1", redis_prefix) as fleet:
        one = fleet.member(2, timeout=0.2, on_outage=behaviour)
        holders = [Holder(one) for _ in range(20)]
        await asyncio.sleep(0.3)
        running = [holder for holder in holders if holder.began.is_set()]
        assert len(running) == one.outage.admitted == one.in_use() == admitted
        for holder in running:
            await holder.finish()
        for holder in holders:
            if holder not in running:
                with pytest.raises(BulkheadFullError):
                    await holder.call
        assert one.in_use() == 0


async def test_those_in_the_queue_are_let_go_when_the_store_hangs(own_server: Server, redis_prefix: str) -> None:
    async with fleet_of(own_server.url, redis_prefix) as fleet:
        one, two = (fleet.member(2, queue=5, timeout=0.05, lease=LEASE) for _ in range(2))
        holders = [await Holder(one).running() for _ in range(2)]
        waiter = Holder(two)
        await occupied(one, 2, 1)
        with Stopped(own_server):
            began = time.monotonic()
            await waiter.running()
            assert time.monotonic() - began < LEASE, "nobody can call it out of the queue: it uses its share"
        await occupied(one, 3, 0)
        for holder in [*holders, waiter]:
            await holder.finish()
        await occupied(one, 0, 0)


async def test_a_mistake_in_the_store_is_raised_and_is_no_outage(fleet: Fleet, plain_redis: Any) -> None:
    one = fleet.member()
    assert one.remote is not None
    permits: Any = one.remote.permits
    plain_redis.set(permits.keys("")[0], "text")
    with pytest.raises(Exception, match="WRONGTYPE"):
        await one.call(asyncio.sleep, 0)
    assert not one.degraded


async def test_a_renewal_that_is_refused_is_logged_and_lets_the_queue_go(
    own_server: Server, redis_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with fleet_of(own_server.url, redis_prefix) as fleet:
        one, two = (fleet.member(queue=5, lease=LEASE, on_outage="closed") for _ in range(2))
        holder = await Holder(one).running()
        waiter = Holder(two)
        await occupied(one, 1, 1)
        with sync_client(own_server.url) as admin:
            admin.execute_command("ACL", "SETUSER", "default", "-evalsha", "-eval")
            with pytest.raises(NoPermissionError):
                await waiter.call
            admin.execute_command("ACL", "SETUSER", "default", "+evalsha", "+eval")
        await holder.finish()
        await occupied(one, 0)
    assert "permits of 'db' cannot be renewed" in caplog.text


async def test_more_than_one_call_can_carry_is_renewed_by_several(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "LARGEST", 3)
    one, two = fleet.member(10, lease=LEASE), fleet.member(10, lease=LEASE)
    holders = [await Holder(one, "ab"[number % 2]).running() for number in range(10)]
    await asyncio.sleep(2 * LEASE)
    assert (await two.peek("a"), await two.peek("b")) == ((5, 0), (5, 0))
    for holder in holders:
        await holder.finish()


async def test_peeking_without_the_store_says_so(redis_prefix: str) -> None:
    async with fleet_of("redis://127.0.0.1:1", redis_prefix) as fleet:
        with pytest.raises(StoreUnavailableError):
            await fleet.member(timeout=0.2).peek()
    assert await Bulkhead(1).peek() == (0, 0)
