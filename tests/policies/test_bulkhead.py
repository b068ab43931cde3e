from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Any

import anyio
import pytest

from resilience import Bulkhead, BulkheadFullError, MemoryStore, RejectedError, TimedOutError, Timeout, clock
from resilience.call import Call
from resilience.events import BulkheadResized, CallRejected, PermitAwaited
from resilience.testing import HANG, Delay, EventRecorder, FaultScript, run
from tests.support.engine import Engine
from tests.support.scopes import cancelled_after

pytestmark = pytest.mark.anyio


class Crowd:
    """Starts calls one after the other and notes when each began to run."""

    def __init__(self, protected: Any) -> None:
        self.group = anyio.create_task_group()
        self.protected = protected
        self.began: dict[str, float] = {}
        self.outcomes: dict[str, Any] = {}

    async def __aenter__(self) -> Crowd:
        await self.group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.group.__aexit__(kind, error, trace)

    async def start(self, name: str, seconds: float = 1.0, **binding: Any) -> None:
        async def work() -> None:
            self.began[name] = clock.now()
            await anyio.sleep(seconds)

        async def caller() -> None:
            self.outcomes[name] = await self.protected.bind(**binding).outcome(work)

        self.group.start_soon(caller)
        await anyio.wait_all_tasks_blocked()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"limit": 0}, ValueError, "limit must be at least 1, got 0"),
        ({"limit": 1.5}, TypeError, "limit must be an integer, got 1.5"),
        ({"limit": True}, TypeError, "limit must be an integer, got True"),
        ({"queue": -1}, ValueError, "queue must be at least 0, got -1"),
        ({"max_wait": 0}, ValueError, "max_wait must be greater than 0, got 0"),
        ({"max_wait": math.inf}, ValueError, "max_wait must be finite, got inf"),
        ({"weight": 0}, ValueError, "weight must be at least 1, got 0"),
        ({"weight": 3}, ValueError, "weight must be at most the limit of 2, got 3"),
        ({"weight": "1"}, TypeError, "weight must be an integer, got '1'"),
        ({"mode": ""}, ValueError, "mode must be one of"),
        ({"max_keys": 0}, ValueError, "max_keys must be at least 1, got 0"),
        ({"store": MemoryStore()}, ValueError, "name is required with a store"),
        ({"lease": 0.05}, ValueError, "lease must be at least 0.1, got 0.05"),
        ({"lease": math.nan}, ValueError, "lease must be finite, got nan"),
        ({"on_lost": "retry"}, ValueError, "on_lost must be one of 'ignore', 'cancel', got 'retry'"),
        ({"on_outage": "panic"}, ValueError, "on_outage must be one of 'local', 'open', 'closed', got 'panic'"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    given: dict[str, Any] = {"limit": 2, **options}
    with pytest.raises(error, match=message):
        Bulkhead(**given)


async def test_no_more_than_the_limit_run_at_once(engine: Engine) -> None:
    bulkhead = Bulkhead(3, queue=100)
    script = FaultScript(Delay(1.0), repeat=True)
    async with anyio.create_task_group() as group:
        for _ in range(30):
            group.start_soon(engine(bulkhead).call, script)
        await anyio.sleep(0.5)
        assert (bulkhead.in_use(), bulkhead.waiting()) == (3, 27)
    assert script.most == 3
    assert clock.now() == 10.0
    assert (bulkhead.in_use(), bulkhead.waiting(), bulkhead.limit) == (0, 0, 3)


async def test_without_a_queue_it_refuses_at_once(engine: Engine) -> None:
    recorder = EventRecorder()
    bulkhead = Bulkhead(1, name="db", listeners=[recorder])
    protected = engine(bulkhead)
    script = FaultScript("never")
    async with Crowd(protected) as crowd:
        await crowd.start("first")
        with pytest.raises(BulkheadFullError, match="db is full: 1 of 1 in use, 0 waiting") as caught:
            await protected.call(script)
    assert (caught.value.policy, caught.value.retry_after) == ("db", None)
    assert isinstance(caught.value, RejectedError)
    assert script.calls == []
    assert clock.now() == 1.0
    assert bulkhead.rejected == 1
    assert recorder.kinds() == ["call_rejected"]


async def test_the_queue_is_bounded_and_first_come_first_served(engine: Engine) -> None:
    recorder = EventRecorder()
    bulkhead = Bulkhead(1, queue=3, listeners=[recorder])
    async with Crowd(engine(bulkhead)) as crowd:
        for name in "abcde":
            await crowd.start(name)
    assert crowd.began == {"a": 0.0, "b": 1.0, "c": 2.0, "d": 3.0}
    assert isinstance(crowd.outcomes["e"].error, BulkheadFullError)
    assert [event.waited for event in recorder.of(PermitAwaited)] == [1.0, 2.0, 3.0]


async def test_nobody_overtakes_the_queue(engine: Engine) -> None:
    bulkhead = Bulkhead(1, queue=9)
    order: list[str] = []

    async def again(name: str, times: int) -> None:
        for _ in range(times):
            await engine(bulkhead).call(work, name)

    async def work(name: str) -> None:
        order.append(name)
        await anyio.sleep(1)

    async with anyio.create_task_group() as group:
        group.start_soon(again, "a", 3)  # asks again at once when it is done
        await anyio.wait_all_tasks_blocked()
        group.start_soon(again, "b", 1)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(again, "c", 1)
    assert order == ["a", "b", "c", "a", "a"]


async def test_a_wait_that_is_too_long_is_refused(engine: Engine) -> None:
    bulkhead = Bulkhead(1, queue=9, max_wait=1.5)
    async with Crowd(engine(bulkhead)) as crowd:
        for name in "abc":
            await crowd.start(name)
        await anyio.sleep(1.6)
        assert isinstance(crowd.outcomes["c"].error, BulkheadFullError)
        assert (bulkhead.in_use(), bulkhead.waiting()) == (1, 0)
    assert crowd.began == {"a": 0.0, "b": 1.0}
    assert bulkhead.in_use() == 0


async def test_the_deadline_ends_the_wait(engine: Engine) -> None:
    bulkhead = Bulkhead(1, queue=9)
    async with Crowd(engine(bulkhead)) as crowd:
        await crowd.start("a", 10.0)
        with pytest.raises(TimedOutError):
            await engine(Timeout(2.0), bulkhead).call(FaultScript("never"))
        assert clock.now() == 2.0
        assert (bulkhead.in_use(), bulkhead.waiting()) == (1, 0)
    assert bulkhead.in_use() == 0


async def test_permits_come_back_whatever_happens(engine: Engine) -> None:
    bulkhead = Bulkhead(1)
    protected = engine(bulkhead)
    await protected.call(FaultScript("value"))
    with pytest.raises(KeyError):
        await protected.call(FaultScript(KeyError))
    async with cancelled_after(1):
        await protected.call(FaultScript(HANG))
    with pytest.raises(KeyboardInterrupt):
        async with protected.guard():
            raise KeyboardInterrupt
    assert bulkhead.in_use() == 0


async def test_a_cancelled_waiter_leaves_the_queue(engine: Engine) -> None:
    bulkhead = Bulkhead(1, queue=2)
    protected = engine(bulkhead)
    async with Crowd(protected) as crowd:
        await crowd.start("a", 5.0)
        async with cancelled_after(1):
            await protected.call(FaultScript("never"))
        assert (bulkhead.in_use(), bulkhead.waiting()) == (1, 0)
        await crowd.start("b")
        await crowd.start("c")
    assert crowd.began == {"a": 0.0, "b": 5.0, "c": 6.0}


async def test_a_permit_given_to_a_waiter_that_is_cancelled_goes_to_the_next(engine: Engine) -> None:
    bulkhead = Bulkhead(1, queue=3)
    protected = engine(bulkhead)
    scope = anyio.CancelScope()
    ran: list[str] = []

    async def holder() -> None:
        await anyio.sleep(1)
        scope.cancel()  # in the same moment in which the permit is given back

    async def victim() -> None:
        with scope:
            await protected.call(FaultScript(Delay(1.0)))
            ran.append("victim")

    async def next_in_line() -> None:
        await protected.call(FaultScript(Delay(1.0)))
        ran.append("next")

    async with anyio.create_task_group() as group:
        for caller in (lambda: protected.call(holder), victim, next_in_line):
            group.start_soon(caller)
            await anyio.wait_all_tasks_blocked()
    assert ran == ["next"]
    assert clock.now() == 2.0
    assert bulkhead.in_use() == 0


async def test_heavy_calls_take_more_and_are_not_starved(engine: Engine) -> None:
    def weight(call: Call) -> int:
        assert isinstance(call.cost, int)
        return call.cost

    bulkhead = Bulkhead(4, queue=9, weight=weight)
    async with Crowd(engine(bulkhead)) as crowd:
        await crowd.start("light", 1.0, cost=1)
        await crowd.start("medium", 2.0, cost=2)
        assert bulkhead.in_use() == 3
        await crowd.start("heavy", 1.0, cost=4)
        await crowd.start("small", 1.0, cost=1)  # would fit, but heavy is first
    assert crowd.began == {"light": 0.0, "medium": 0.0, "heavy": 2.0, "small": 3.0}


async def test_every_call_may_weigh_the_same(engine: Engine) -> None:
    bulkhead = Bulkhead(5, weight=2)
    async with Crowd(engine(bulkhead)) as crowd:
        for name in "abc":
            await crowd.start(name)
        assert bulkhead.in_use() == 4
    assert isinstance(crowd.outcomes["c"].error, BulkheadFullError)
    assert bulkhead.in_use() == 0


async def test_a_call_heavier_than_the_limit_is_an_error(engine: Engine) -> None:
    bulkhead = Bulkhead(2, queue=9, weight=lambda call: 3)
    with pytest.raises(ValueError, match=r"weight must be at most the limit \(2\), got 3"):
        await engine(bulkhead).call(FaultScript("never"))
    with pytest.raises((ValueError, TypeError), match="weight must be"):
        await engine(Bulkhead(2, weight=lambda call: 0)).call(FaultScript("never"))


async def test_growing_admits_at_once_and_shrinking_waits(engine: Engine) -> None:
    recorder = EventRecorder()
    bulkhead = Bulkhead(1, queue=9, listeners=[recorder])
    async with Crowd(engine(bulkhead)) as crowd:
        for name in "abcd":
            await crowd.start(name, 2.0)
        await anyio.sleep(1)
        bulkhead.resize(3)
        assert bulkhead.limit == 3
        await anyio.wait_all_tasks_blocked()
        assert crowd.began == {"a": 0.0, "b": 1.0, "c": 1.0}
        bulkhead.resize(1)
        assert bulkhead.in_use() == 3
    assert crowd.began["d"] == 3.0
    assert [event.limit for event in recorder.of(BulkheadResized)] == [3, 1]
    for wrong in (0, 1.5, True):
        with pytest.raises((ValueError, TypeError), match="limit must be"):
            bulkhead.resize(wrong)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - refused at run time too


async def test_a_new_limit_is_also_that_of_new_keys(engine: Engine) -> None:
    bulkhead = Bulkhead(1)
    bulkhead.resize(2)
    async with Crowd(engine(bulkhead)) as crowd:
        for name in "abc":
            await crowd.start(name, key="new")
    assert [crowd.outcomes[name].ok for name in "abc"] == [True, True, False]


async def test_draining_refuses_newcomers_and_waits_for_the_rest(engine: Engine) -> None:
    bulkhead = Bulkhead(1, queue=9)
    protected = engine(bulkhead)
    drained: list[float] = []

    async def drain() -> None:
        await bulkhead.drain()
        drained.append(clock.now())

    async with Crowd(protected) as crowd:
        for name in "ab":
            await crowd.start(name)
        crowd.group.start_soon(drain)
        crowd.group.start_soon(drain)  # two may wait for it
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(BulkheadFullError, match="is being drained, 1 waiting"):
            await protected.call(FaultScript("never"))
        with pytest.raises(BulkheadFullError, match="is being drained"):
            await protected.bind(key="new").call(FaultScript("never"))
    assert crowd.began == {"a": 0.0, "b": 1.0}
    assert drained == [2.0, 2.0]
    await bulkhead.drain()  # at once


async def test_draining_an_idle_bulkhead(engine: Engine) -> None:
    bulkhead = Bulkhead(1)
    await engine(bulkhead).call(FaultScript("value"))
    await bulkhead.drain()
    assert clock.now() == 0.0


async def test_shadow_mode_reports_and_lets_pass(engine: Engine) -> None:
    recorder = EventRecorder()
    bulkhead = Bulkhead(1, queue=5, mode="shadow", listeners=[recorder])
    protected = engine(bulkhead)
    async with Crowd(protected) as crowd:
        await crowd.start("a")
        assert await protected.call(FaultScript("in")) == "in"
        assert bulkhead.in_use() == 1
    assert bulkhead.rejected == 1
    (rejected,) = recorder.of(CallRejected)
    assert rejected.shadow
    assert bulkhead.in_use() == 0


async def test_off_counts_nothing_and_a_mode_changed_midway_releases_what_was_taken(engine: Engine) -> None:
    bulkhead = Bulkhead(1, mode="off")
    protected = engine(bulkhead)
    async with Crowd(protected) as crowd:
        await crowd.start("a")
        assert bulkhead.in_use() == 0
        bulkhead.mode = "enforce"
        await crowd.start("b", 2.0)
        assert bulkhead.in_use() == 1
        bulkhead.mode = "off"
    assert bulkhead.in_use() == 0


async def test_permits_by_key(engine: Engine) -> None:
    bulkhead = Bulkhead(1)
    async with Crowd(engine(bulkhead)) as crowd:
        for name, key in (("a", "eu"), ("b", "us"), ("c", "eu")):
            await crowd.start(name, key=key)
        assert (bulkhead.in_use("eu"), bulkhead.in_use("us"), bulkhead.in_use("asia")) == (1, 1, 0)
        assert bulkhead.waiting("asia") == 0
    assert [crowd.outcomes[name].ok for name in "abc"] == [True, True, False]


async def test_without_keys_all_share_the_permits(engine: Engine) -> None:
    bulkhead = Bulkhead(1, keyed=False)
    async with Crowd(engine(bulkhead)) as crowd:
        await crowd.start("a", key="eu")
        await crowd.start("b", key="us")
        assert bulkhead.in_use("anything") == 1
    assert not crowd.outcomes["b"].ok


async def test_keys_in_use_survive_many_others(engine: Engine) -> None:
    bulkhead = Bulkhead(1, max_keys=4)
    protected = engine(bulkhead)
    async with Crowd(protected) as crowd:
        await crowd.start("held", 5.0, key="held")
        for number in range(50):
            await protected.bind(key=str(number)).call(FaultScript("x"))
        assert bulkhead.in_use("held") == 1
        await crowd.start("second", key="held")
    assert not crowd.outcomes["second"].ok


async def test_permits_are_shared_by_name_and_store(engine: Engine) -> None:
    store = MemoryStore()
    first, second = Bulkhead(1, name="db", store=store), Bulkhead(1, name="db", store=store)
    async with Crowd(engine(first)) as crowd:
        await crowd.start("a")
        with pytest.raises(BulkheadFullError):
            await engine(second).call(FaultScript("never"))
    with pytest.raises(ValueError, match="name 'db' is taken by a bulkhead with other settings"):
        Bulkhead(2, name="db", store=store)


async def test_a_block_and_a_generator_hold_the_permit_until_they_end(engine: Engine) -> None:
    bulkhead = Bulkhead(1)
    protected = engine(bulkhead)
    async with protected.guard():
        assert bulkhead.in_use() == 1
    assert bulkhead.in_use() == 0

    @protected
    async def numbers() -> AsyncGenerator[int, None]:
        yield 1
        yield 2

    generator = numbers()
    assert bulkhead.in_use() == 0  # not before it is read
    assert await anext(generator) == 1
    assert bulkhead.in_use() == 1
    with pytest.raises(BulkheadFullError):
        await anext(numbers())
    await generator.aclose()
    assert bulkhead.in_use() == 0
    assert [number async for number in numbers()] == [1, 2]
    assert bulkhead.in_use() == 0


def test_it_works_in_a_second_run() -> None:
    bulkhead = Bulkhead(1, queue=5)

    async def main() -> float:
        began = clock.now()
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(bulkhead.call, FaultScript(Delay(1.0)))
        return clock.now() - began

    for backend in ("asyncio", "asyncio", "trio", "asyncio"):
        assert run(main, backend=backend) == 3.0
    assert bulkhead.in_use() == 0
