from __future__ import annotations

import asyncio
import contextvars
import gc
import traceback
import weakref
from contextlib import suppress
from typing import Any

import anyio
import pytest

from resilience import Bulkhead, Call, Lease, Operation, Pipeline, Retry, SingleFlight, TimedOutError, Timeout, clock
from resilience.events import CallCoalesced
from resilience.policy import Policy
from resilience.running._deadlines import deadline_of
from resilience.testing import EventRecorder, FaultScript, VirtualClock
from tests.support.counted import Counted, together
from tests.support.engine import Engine
from tests.support.failures import DownError
from tests.support.scopes import cancelled_after

WRONG: Any = 5

pytestmark = pytest.mark.anyio


def test_bad_options_are_refused() -> None:
    with pytest.raises(TypeError, match="key must be a function"):
        SingleFlight(key=WRONG)
    with pytest.raises(TypeError, match="ignore must be a row of parameter names"):
        SingleFlight(ignore="self")


async def test_calls_that_overlap_share_one_run(engine: Engine) -> None:
    recorder, counted = EventRecorder(), Counted()
    protected = engine(SingleFlight(listeners=[recorder]))
    assert await together(5, lambda: protected.call(counted.run)) == ["a 1"] * 5
    assert (counted.begun, clock.now()) == (1, 1.0)
    assert [event.waiting for event in recorder.of(CallCoalesced)] == [2, 3, 4, 5]
    assert await protected.call(counted.run) == "a 2", "nothing is kept"


async def test_different_arguments_do_not(engine: Engine) -> None:
    counted = Counted()

    @engine(SingleFlight())
    async def fetch(key: object) -> str:
        return str(await counted.run(key))

    results: list[Any] = []
    async with anyio.create_task_group() as group:
        for key in (1, True, 1.0, "1", 1):

            async def one(key: object = key) -> None:
                results.append(await fetch(key))

            group.start_soon(one)
    assert counted.begun == 4
    assert len(set(results)) == 4


async def test_a_key_of_ones_own_and_parameters_that_do_not_count(engine: Engine) -> None:
    counted = Counted()

    def number_of(number: int, noise: object) -> int:
        return number

    by_key = engine(SingleFlight(key=number_of))
    ignoring = engine(SingleFlight(ignore=["noise"]))

    async def fetch(number: int, noise: object) -> str:
        return str(await counted.run(number))

    for protected in (by_key, ignoring):
        noises: list[Any] = [[], {}]
        counted.begun = 0

        async def one(protected: Policy = protected, noises: list[Any] = noises) -> str:
            return await protected.call(fetch, 1, noises.pop())

        assert await together(2, one) == ["1 1"] * 2


async def test_the_run_survives_its_first_caller(engine: Engine) -> None:
    counted = Counted()
    protected = engine(SingleFlight())
    results: list[str] = []

    async def follow() -> None:
        results.append(await protected.call(counted.run))

    async with anyio.create_task_group() as group:

        async def lead() -> None:
            async with cancelled_after(0.5):
                await protected.call(counted.run)

        group.start_soon(lead)
        await anyio.sleep(0.1)
        group.start_soon(follow)
        group.start_soon(follow)
    assert results == ["a 1"] * 2
    assert (counted.begun, counted.cancelled, clock.now()) == (1, 0, 1.0)


async def test_it_is_cancelled_with_the_last_who_waits_and_cleans_up_before_he_goes(engine: Engine) -> None:
    counted = Counted(seconds=10)
    protected = engine(SingleFlight())

    async def one(seconds: float) -> None:
        async with cancelled_after(seconds):
            await protected.call(counted.run)

    async with anyio.create_task_group() as group:
        group.start_soon(one, 1)
        group.start_soon(one, 3)
        group.start_soon(one, 2)
    assert (counted.begun, counted.cancelled, counted.cleaned, clock.now()) == (1, 1, 1, 3.5)
    counted.seconds = 0
    assert await protected.call(counted.run) == "a 2"


async def test_who_comes_while_it_is_being_cancelled_begins_another(engine: Engine) -> None:
    counted = Counted()
    protected = engine(SingleFlight())
    async with anyio.create_task_group() as group:

        async def lead() -> None:
            async with cancelled_after(0.5):
                await protected.call(counted.run)

        group.start_soon(lead)
        await anyio.sleep(0.75)
        assert await protected.call(counted.run) == "a 2"
    assert (counted.cancelled, counted.cleaned, counted.completed) == (1, 1, 1)


async def test_ten_thousand_callers_and_a_leader_cancelled_ten_times() -> None:
    counted = Counted(seconds=30)
    protected = SingleFlight()
    results: list[str] = []
    cancelled = 0

    async def caller() -> None:
        results.append(await protected.call(counted.run))

    async def leader() -> None:
        nonlocal cancelled
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as inner:

                async def cancel() -> None:
                    await anyio.sleep(1)
                    scope.cancel()

                inner.start_soon(cancel)
                await protected.call(counted.run)
        cancelled += scope.cancelled_caught

    async with anyio.create_task_group() as group:
        for batch in range(10):
            group.start_soon(leader)  # in the first batch it begins the run
            for _ in range(1_000):
                group.start_soon(caller)
            await anyio.sleep(1.5 if batch else 0.5)
    assert (counted.begun, counted.completed, counted.cancelled) == (1, 1, 0)
    assert (len(results), set(results), cancelled) == (10_000, {"a 1"}, 10)


async def test_a_leader_who_is_always_cancelled_alone_is_replaced(engine: Engine) -> None:
    """Nobody else waits yet, so the run ends with him; the last one completes."""
    counted = Counted(seconds=2)
    protected = engine(SingleFlight())
    for _ in range(10):
        async with cancelled_after(1):
            await protected.call(counted.run)
    assert await together(100, lambda: protected.call(counted.run)) == ["a 11"] * 100
    assert (counted.completed, counted.cancelled, counted.cleaned) == (1, 10, 10)


async def test_an_error_goes_to_all_and_each_has_an_exception_of_his_own(engine: Engine) -> None:
    class OddError(Exception):
        def __init__(self, *, code: int) -> None:
            super().__init__("odd")
            self.code = code

    counted = Counted(OddError(code=7))
    protected = engine(SingleFlight())
    errors = await together(4, lambda: protected.call(counted.run))
    assert counted.begun == 1
    assert [(type(error), error.args, error.code) for error in errors] == [(OddError, ("odd",), 7)] * 4
    assert len({id(error) for error in errors}) == 4
    for error in errors:
        error.add_note("mine")
        assert error.__notes__ == ["mine"]
    depths = [len(traceback.extract_tb(error.__traceback__)) for error in errors]
    assert len(set(depths)) == 1, "no traceback has grown by another's"
    assert all(any(frame.name == "run" for frame in traceback.extract_tb(error.__traceback__)) for error in errors)


async def test_a_caller_alone_gets_the_very_exception(engine: Engine) -> None:
    error = DownError()
    counted = Counted(error)
    with pytest.raises(DownError) as caught:
        await engine(SingleFlight()).call(counted.run)
    assert caught.value is error


async def test_errors_leave_no_cycles_behind(engine: Engine) -> None:
    class Error(Exception):
        pass

    protected = engine(SingleFlight())
    counted = Counted(Error, Error)

    async def caught() -> None:
        with suppress(Error):
            await protected.call(counted.run)

    gc.collect()
    gc.disable()
    try:
        await together(3, caught)
        await caught()
        await anyio.sleep(1)
        alive = [each for each in gc.get_objects() if isinstance(each, Error)]
        assert len(alive) == 0
    finally:
        gc.enable()


async def test_deadlines_are_each_callers_own(engine: Engine) -> None:
    counted = Counted(seconds=3)
    outcomes: list[Any] = []

    async def one(seconds: float, flight: Policy) -> None:
        protected = engine(Timeout(seconds), flight)
        try:
            result = await protected.call(counted.run)
            outcomes.append((clock.now(), result))
        except TimedOutError as error:
            outcomes.append((clock.now(), error.seconds))

    flight = SingleFlight()
    async with anyio.create_task_group() as group:
        for seconds in (1, 5, 2):
            group.start_soon(one, seconds, flight)
    assert outcomes == [(1.0, 1), (2.0, 2), (3.0, "a 1")]
    assert counted.begun == 1


async def test_the_run_knows_the_latest_deadline_of_those_who_wait(engine: Engine) -> None:
    seen: list[float] = []

    class Look(Policy):
        def wrap(self, proceed: Any) -> Any:
            async def look(call: Call) -> Any:
                seen.append(deadline_of(call))
                await anyio.sleep(0.5)
                seen.append(deadline_of(call))
                return await proceed(call)

            return look

    flight, look, counted = SingleFlight(), Look(), Counted(seconds=0)
    async with anyio.create_task_group() as group:
        group.start_soon(engine(Timeout(2), flight, look).call, counted.run)
        await anyio.sleep(0.25)
        group.start_soon(engine(Timeout(4), flight, look).call, counted.run)
    assert seen == [2.0, 4.25]
    seen.clear()
    await engine(flight, look).call(counted.run)
    assert seen == [float("inf")] * 2


async def test_a_retry_inside_does_not_sleep_past_the_last_deadline(engine: Engine) -> None:
    script = FaultScript(DownError, DownError, DownError)
    protected = engine(Timeout(3), SingleFlight(), Retry(attempts=5, random=lambda: 0.999, budget=None))
    slow = engine(Timeout(0.01), SingleFlight(), Retry(attempts=5, random=lambda: 0.999, budget=None))
    with pytest.raises(DownError) as caught:
        await slow.call(script)
    assert caught.value.__notes__ == ["Retry gave up after 1 attempt: deadline"]
    script = FaultScript(DownError, DownError, "up")
    assert await protected.call(script) == "up"


async def test_attempts_inside_are_counted_for_who_began(engine: Engine) -> None:
    seen: list[int] = []

    class Look(Policy):
        def wrap(self, proceed: Any) -> Any:
            async def look(call: Call) -> Any:
                try:
                    return await proceed(call)
                finally:
                    seen.append(call.attempt)

            return look

    await engine(Look(), SingleFlight(), Retry()).call(FaultScript(DownError, "up"))
    assert seen == [2]


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


async def test_the_run_has_a_copy_of_the_first_callers_context(engine: Engine) -> None:
    seen: list[str] = []
    after: list[str] = []

    async def fetch() -> None:
        seen.append(variable.get())
        variable.set("changed inside")
        await anyio.sleep(1)

    protected = engine(SingleFlight())

    async def one(name: str) -> None:
        variable.set(name)
        await protected.call(fetch)
        after.append(variable.get())

    async with anyio.create_task_group() as group:
        group.start_soon(one, "first")
        await anyio.sleep(0.1)
        group.start_soon(one, "second")
    assert seen == ["first"]
    assert sorted(after) == ["first", "second"]


async def test_a_result_that_nobody_takes_is_closed(engine: Engine) -> None:
    closed: list[float] = []

    class Response:
        async def aclose(self) -> None:
            closed.append(clock.now())

    async def stubborn() -> Response:
        with suppress(anyio.get_cancelled_exc_class()):
            await anyio.sleep(1)
        return Response()

    protected = engine(SingleFlight())
    async with cancelled_after(0.5):
        await protected.call(stubborn)
    assert closed == [0.5]
    assert isinstance(await protected.call(stubborn), Response)
    assert closed == [0.5]


async def test_a_result_that_comes_in_the_moment_of_the_cancellation_is_closed(engine: Engine) -> None:
    closed: list[int] = []

    class Response:
        async def aclose(self) -> None:
            closed.append(1)

    async def fetch() -> Response:
        await anyio.sleep(1)
        scope.cancel()
        return Response()

    with anyio.CancelScope() as scope:
        await engine(SingleFlight()).call(fetch)
    assert closed == [1]


async def test_a_permit_inside_is_free_when_the_last_caller_has_gone(engine: Engine) -> None:
    bulkhead, counted = Bulkhead(1), Counted(seconds=10)
    protected = engine(SingleFlight(), bulkhead)
    async with cancelled_after(1):
        await protected.call(counted.run)
    assert bulkhead.in_use() == 0


async def test_calls_that_cannot_be_shared_run_by_themselves(engine: Engine) -> None:
    counted = Counted()
    protected = engine(SingleFlight())
    operation = Operation("one")
    calls = [Call(operation, counted.run, repeatable=False) for _ in range(2)]
    assert sorted(await together(2, lambda: protected.run(calls.pop()))) == ["a 1", "a 2"]
    calls = [Call(operation, counted.run, lease=Lease()) for _ in range(2)]
    assert sorted(await together(2, lambda: protected.run(calls.pop()))) == ["a 3", "a 4"]


async def test_it_cannot_guard_a_block() -> None:
    with pytest.raises(TypeError, match="cannot guard a block"):
        SingleFlight().guards()


async def test_two_pipelines_with_one_flight_share_its_runs() -> None:
    flight, counted = SingleFlight(), Counted()
    pipelines = [Pipeline(flight), Pipeline(Retry(), flight)]
    assert await together(2, lambda: pipelines.pop().call(counted.run)) == ["a 1"] * 2


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_exit_is_passed_on(kind: type[BaseException], virtual_clock: VirtualClock) -> None:
    async def leave() -> None:
        await anyio.sleep(1)
        raise kind("bye")

    for backend in ("asyncio", "trio"):
        with pytest.raises(kind):
            virtual_clock.run(SingleFlight().call, leave, backend=backend)


def test_one_object_serves_one_loop_after_another_and_abandoned_runs_do_not_matter() -> None:
    flight, counted = SingleFlight(), Counted(seconds=0.001)
    loop = asyncio.new_event_loop()
    forever = Counted(seconds=3600)
    task = loop.create_task(flight.call(forever.run))
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert forever.begun == 1
    assert asyncio.run(flight.call(counted.run)) == "a 1"
    later = Counted(seconds=0.001)
    # The same key as the abandoned run, in another loop.
    forever.seconds = 0.001
    assert asyncio.run(flight.call(forever.run)) == "a 2"
    assert asyncio.run(flight.call(later.run)) == "a 1"
    for each in asyncio.all_tasks(loop):
        each.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()


class Sleeper:
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def test_what_a_closed_loop_has_left_behind_goes_with_the_next(caplog: pytest.LogCaptureFixture) -> None:
    flight, sleeper = SingleFlight(), Sleeper()
    loop = asyncio.new_event_loop()
    task = loop.create_task(flight.call(sleeper.sleep, 3600))
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    loop.close()
    del task
    left = weakref.ref(sleeper)
    del sleeper
    asyncio.run(flight.call(Sleeper().sleep, 0))
    gc.collect()
    assert left() is None
    assert not flight._flights._flights
    assert "was destroyed but it is pending" in caplog.text  # what asyncio says of it


def test_eager_tasks() -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(vars(asyncio).get("eager_task_factory"))  # since 3.12
        flight, counted = SingleFlight(), Counted(seconds=0.01)

        async def at_once() -> str:
            return "at once"

        assert await flight.call(at_once) == "at once"
        assert await asyncio.gather(*(flight.call(counted.run) for _ in range(3))) == ["a 1"] * 3

    asyncio.run(main())
