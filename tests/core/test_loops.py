"""One policy in several event loops: one after another, taking turns, and in several threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from resilience import Bulkhead, Call, Operation, Pipeline, RateLimiter, TimedOutError, Timeout
from resilience.testing import Delay, FaultScript, VirtualClock
from tests.support.engine import Engine


def stack(engine: Engine) -> Any:
    return engine(Timeout(5.0), Bulkhead(9, queue=9))


def in_a_thread(work: Callable[[], Any]) -> Any:
    """Run to the end in a thread of its own, while this one waits."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


def test_loops_that_take_turns_keep_their_own_deadlines(engine: Engine) -> None:
    protected, virtual = stack(engine), VirtualClock()
    with virtual.installed():
        first, second = virtual.loop(), virtual.loop()
        early = first.create_task(protected.outcome(anyio.sleep_forever))
        first.run_until_complete(asyncio.sleep(1))
        late = second.run_until_complete(protected.outcome(anyio.sleep_forever))
        assert isinstance(late.error, TimedOutError)
        assert virtual.now() == 6.0
        assert isinstance(first.run_until_complete(early).error, TimedOutError)
        assert virtual.now() == 6.0
        assert first.run_until_complete(protected.call(FaultScript(Delay(4.9, "in time")))) == "in time"
        first.close()
        second.close()


def test_a_loop_in_another_thread(engine: Engine) -> None:
    protected, virtual = stack(engine), VirtualClock()

    async def slow() -> str:
        await asyncio.sleep(1)
        other = in_a_thread(lambda: virtual.run(protected.outcome, FaultScript(Delay(2.0, "other"))))
        assert other.value == "other"
        late = in_a_thread(lambda: virtual.run(protected.outcome, FaultScript(Delay(9.0))))
        assert isinstance(late.error, TimedOutError)
        await asyncio.sleep(0.1)
        return "too late by now"

    with virtual.installed():
        outcome = virtual.run(protected.outcome, slow)
        assert isinstance(outcome.error, TimedOutError)
        assert virtual.run(protected.call, FaultScript(Delay(4.9, "in time"))) == "in time"


def test_a_loop_that_ended_in_the_middle_of_calls_leaves_nothing_to_the_next(engine: Engine) -> None:
    protected, virtual = stack(engine), VirtualClock()

    async def abandon() -> None:
        for _ in range(3):
            asyncio.create_task(protected.outcome(anyio.sleep_forever))  # noqa: RUF006 - it is to be abandoned
        await asyncio.sleep(4.5)

    with virtual.installed():
        for _ in range(2):
            virtual.run(abandon)  # ends by cancelling them
            outcome = virtual.run(protected.outcome, FaultScript(Delay(4.9, "in time")))
            assert outcome.value == "in time"
            assert isinstance(virtual.run(protected.outcome, anyio.sleep_forever).error, TimedOutError)
            assert virtual.run(protected.call, FaultScript(Delay(4.9, "in time")), backend="trio") == "in time"


def test_waiters_of_a_loop_that_ended_are_gone(engine: Engine) -> None:
    bulkhead, limiter = Bulkhead(1, queue=9), RateLimiter("1/s", burst=1)
    protected, virtual = engine(bulkhead, limiter), VirtualClock()

    async def abandon() -> None:
        for _ in range(5):
            asyncio.create_task(protected.outcome(asyncio.sleep, 60))  # noqa: RUF006 - it is to be abandoned
        await asyncio.sleep(0.5)
        assert (bulkhead.in_use(), bulkhead.waiting()) == (1, 4)

    with virtual.installed():
        virtual.run(abandon)
        assert (bulkhead.in_use(), bulkhead.waiting()) == (0, 0)
        assert virtual.run(protected.call, FaultScript("next"), backend="trio") == "next"
        assert virtual.now() == 1.0


def test_a_deadline_is_exact_however_many_calls_come(engine: Engine) -> None:
    protected, virtual = engine(Timeout(5.0)), VirtualClock()
    ended: dict[float, float] = {}

    async def one() -> None:
        began = virtual.now()
        with pytest.raises(TimedOutError):
            await protected.call(anyio.sleep_forever)
        ended[began] = virtual.now()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(200):
                group.start_soon(one)
                await anyio.sleep(0.07)

    with virtual.installed():
        virtual.run(main)
    assert len(ended) == 200
    assert list(ended.values()) == pytest.approx([began + 5.0 for began in ended])


def test_a_pipeline_can_be_folded_around_any_handler() -> None:
    async def handler(call: Call) -> str:
        return f"handled {call.key}"

    async def main() -> Any:
        folded = Pipeline(Pipeline(Timeout(5.0)), Bulkhead(1)).wrap(handler)
        return await folded(Call(Operation("op"), handler, key="eu"))

    assert VirtualClock().run(main) == "handled eu"
