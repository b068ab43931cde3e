"""A breaker that shares its circuits, in virtual time, in a generated frame and by hooks alone."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from resilience import BreakerState, CircuitBreaker, CircuitOpenError
from resilience.events import CallRejected, CircuitClosed, CircuitOpened, StoreDegraded
from resilience.testing import HANG, Delay, EventRecorder, FaultScript
from tests.support.engine import Engine
from tests.support.failures import DownError
from tests.support.fleet_store import FleetServer, FleetStore
from tests.support.scopes import cancelled_after

pytestmark = pytest.mark.anyio

CLOSED, OPEN, HALF_OPEN, ISOLATED = BreakerState


class Fleet:
    """Two processes on one server."""

    def __init__(self, engine: Engine, **options: Any) -> None:
        self.server = FleetServer()
        self.recorder = EventRecorder()
        defaults: dict[str, Any] = {"count": 8, "minimum_calls": 4, "jitter": 0.0, "probes": 2, "name": "db"}
        self.breakers = [CircuitBreaker(store=FleetStore(self.server), **(defaults | options)) for _ in range(2)]
        self.breakers[0].listen(self.recorder)
        self.protected = [engine(breaker) for breaker in self.breakers]

    async def fail(self, which: int, times: int = 1) -> None:
        for _ in range(times):
            with pytest.raises(DownError):
                await self.protected[which].call(FaultScript(DownError))

    async def succeed(self, which: int, times: int = 1) -> None:
        for _ in range(times):
            assert await self.protected[which].call(FaultScript("up")) == "up"

    def states(self) -> list[BreakerState]:
        return [breaker.state() for breaker in self.breakers]

    async def open(self) -> None:
        await self.fail(0, 2)
        await self.fail(1, 2)
        self.server.deliver()
        assert self.states() == [OPEN, OPEN]


async def test_the_first_call_asks_and_no_other(engine: Engine) -> None:
    fleet = Fleet(engine)
    began = anyio.current_time()
    await fleet.succeed(0, 50)
    assert anyio.current_time() - began == pytest.approx(0.01)
    assert fleet.server.asked == 1


async def test_a_fresh_process_is_refused_by_an_open_circuit(engine: Engine) -> None:
    fleet = Fleet(engine)
    await fleet.succeed(0)
    fleet.breakers[0].isolate()
    fleet.server.deliver()
    with pytest.raises(CircuitOpenError, match=r"is isolated$"):
        await fleet.protected[1].call(FaultScript("never"))
    fleet.breakers[1].reset()
    fleet.server.deliver()
    await fleet.succeed(0)


async def test_it_opens_and_closes_for_both(engine: Engine) -> None:
    fleet = Fleet(engine)
    await fleet.open()
    script = FaultScript("never")
    for protected in fleet.protected:
        with pytest.raises(CircuitOpenError, match="db is open, try again in 5 s"):
            await protected.call(script)
    assert script.calls == []
    asked = fleet.server.asked
    await anyio.sleep(5)
    await fleet.succeed(0)
    await fleet.succeed(1)
    fleet.server.deliver()
    assert fleet.states() == [CLOSED, CLOSED]
    assert fleet.server.asked == asked + 2
    assert fleet.recorder.kinds() == ["circuit_opened", "call_rejected", "circuit_half_opened", "circuit_closed"]
    assert fleet.recorder.of(CircuitOpened)[0].open_for == 5.0


async def test_exactly_the_probes_of_many_callers(engine: Engine) -> None:
    fleet = Fleet(engine, probes=3)
    await fleet.open()
    await anyio.sleep(5)
    script = FaultScript(Delay(1.0, "up"), repeat=True)
    outcomes: list[Any] = []

    async def caller(protected: Any) -> None:
        outcomes.append(await protected.outcome(script))

    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(caller, fleet.protected[number % 2])
    assert len(script.calls) == 3
    assert sum(outcome.ok for outcome in outcomes) == 3
    assert {outcome.error.state for outcome in outcomes if outcome.rejected} == {"half-open"}
    fleet.server.deliver()
    assert fleet.states() == [CLOSED, CLOSED]


async def test_a_cancelled_probe_gives_back_its_place(engine: Engine) -> None:
    fleet = Fleet(engine, probes=1)
    await fleet.open()
    await anyio.sleep(5)
    async with cancelled_after(1.0):
        await fleet.protected[0].call(FaultScript(HANG))
    with pytest.raises(CircuitOpenError, match="half-open"):
        await fleet.protected[1].call(FaultScript("never"))
    fleet.server.deliver()
    await fleet.succeed(1)
    fleet.server.deliver()
    assert fleet.states() == [CLOSED, CLOSED]


async def test_a_failing_probe_opens_it_for_longer(engine: Engine) -> None:
    fleet = Fleet(engine, probes=1)
    await fleet.open()
    await anyio.sleep(5)
    await fleet.fail(1)
    fleet.server.deliver()
    assert fleet.states() == [OPEN, OPEN]
    assert fleet.breakers[0].metrics().retry_after == pytest.approx(10.0)


async def test_a_late_answer_changes_nothing(engine: Engine) -> None:
    fleet = Fleet(engine, probes=1)
    await fleet.succeed(0)
    async with anyio.create_task_group() as group:
        group.start_soon(fleet.protected[0].outcome, FaultScript(Delay(20.0, DownError)))
        await anyio.sleep(1)
        await fleet.open()
        await anyio.sleep(5)
        await fleet.succeed(1)
        fleet.server.deliver()
        assert fleet.states() == [CLOSED, CLOSED]
    fleet.server.deliver()
    assert fleet.breakers[0].metrics().failures == 0
    assert fleet.server.breakers[""].votes == {}


async def test_every_outcome_is_told_however_calls_are_run(engine: Engine) -> None:
    fleet = Fleet(engine, minimum_calls=8)
    for turn in range(5):
        await fleet.succeed(0, 7)
        await fleet.fail(0)
        fleet.server.deliver()
        vote = fleet.server.breakers[""].votes["process0"]
        assert (vote.calls, vote.failures) == (8, 1), turn
    await fleet.fail(1, 3)
    await fleet.succeed(0, 20)
    await fleet.fail(0, 3)
    assert fleet.states() == [CLOSED, CLOSED]
    await fleet.fail(0)
    assert fleet.states() == [OPEN, CLOSED], "its own window"
    fleet.server.deliver()
    assert fleet.states() == [OPEN, OPEN], "both say so"


async def test_shadow_mode_asks_counts_and_lets_pass(engine: Engine) -> None:
    fleet = Fleet(engine, mode="shadow")
    await fleet.open()
    await fleet.succeed(0)
    (rejected,) = fleet.recorder.of(CallRejected)
    assert rejected.shadow
    await anyio.sleep(5)
    await fleet.succeed(0, 3)
    fleet.server.deliver()
    assert fleet.states() == [CLOSED, CLOSED]


async def test_off_asks_nobody(engine: Engine) -> None:
    fleet = Fleet(engine, mode="off")
    await fleet.fail(0, 10)
    assert fleet.server.asked == 0
    assert fleet.states() == [CLOSED, CLOSED]


@pytest.mark.parametrize("on_outage", ["local", "open", "closed"])
async def test_without_the_store(on_outage: str, engine: Engine) -> None:
    fleet = Fleet(engine, on_outage=on_outage)
    fleet.server.away = True
    assert not fleet.breakers[0].degraded
    if on_outage == "closed":
        with pytest.raises(CircuitOpenError, match="db: the shared store does not answer") as caught:
            await fleet.protected[0].call(FaultScript("never"))
        assert (caught.value.state, caught.value.retry_after) == ("unknown", None)
    else:
        await fleet.succeed(0)
    assert fleet.breakers[0].degraded
    assert fleet.breakers[0].metrics().calls == (on_outage == "local")
    assert fleet.recorder.of(StoreDegraded)[0].behaviour == on_outage


async def test_shadow_mode_lets_pass_what_is_refused_without_the_store(engine: Engine) -> None:
    fleet = Fleet(engine, on_outage="closed", mode="shadow")
    fleet.server.away = True
    await fleet.succeed(0)
    (rejected,) = fleet.recorder.of(CallRejected)
    assert rejected.shadow
    assert fleet.breakers[0].metrics().calls == 0


async def test_alone_it_opens_probes_and_closes_by_itself(engine: Engine) -> None:
    fleet = Fleet(engine)
    await fleet.open()
    fleet.server.away = True
    await anyio.sleep(5)
    await fleet.succeed(0, 2)
    assert fleet.breakers[0].state() is CLOSED
    assert fleet.breakers[0].outage.admitted == 1
    await fleet.fail(0, 4)
    assert fleet.breakers[0].state() is OPEN
    fleet.server.away = False
    await anyio.sleep(5)
    await fleet.succeed(1, 2)
    fleet.server.deliver()
    assert fleet.states() == [CLOSED, CLOSED]
    assert len(fleet.recorder.of(CircuitClosed)) == 2


async def test_a_block_waits_for_the_store_as_a_call_does(engine: Engine) -> None:
    fleet = Fleet(engine)
    async with fleet.protected[0].guard():
        pass
    assert fleet.breakers[0].metrics().calls == 1
    await fleet.open()
    with pytest.raises(CircuitOpenError):
        await fleet.protected[0].guard().__aenter__()
