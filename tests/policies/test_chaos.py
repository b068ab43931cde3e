from __future__ import annotations

from typing import Any

import anyio
import pytest

from resilience import (
    Backoff,
    Call,
    Chaos,
    CircuitBreaker,
    Exponential,
    HazardWarning,
    Lease,
    Operation,
    Pipeline,
    Retry,
    TimedOutError,
    Timeout,
    clock,
)
from resilience.events import ChaosInjected
from resilience.testing import EventRecorder, FaultScript, run
from tests.support.engine import Engine
from tests.support.failures import DownError
from tests.support.scopes import cancelled_after

pytestmark = pytest.mark.anyio
WRONG: Any = "yes"


class StrictError(Exception):
    """Cannot be made with a message alone."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one, two)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "latency, or at least one fault, must be given"),
        ({"latency": -1}, ValueError, "latency must be at least 0, got -1"),
        ({"latency": 1, "rate": 2}, ValueError, "rate must be at most 1, got 2"),
        ({"errors": [5]}, TypeError, "errors must hold exceptions or types of them, got 5"),
        ({"errors": [KeyboardInterrupt]}, TypeError, "errors must hold exceptions or types of them"),
        ({"errors": [StrictError]}, TypeError, "errors must hold exceptions, or types made with a message; Strict"),
        ({"latency": 1, "between": (2, 1)}, ValueError, "between must be greater than 2, got 1"),
        ({"latency": 1, "keys": "eu"}, TypeError, "keys must be a collection of keys or a predicate, got 'eu'"),
        ({"latency": 1, "enabled": WRONG}, TypeError, "enabled must be a bool, got 'yes'"),
        ({"latency": 1, "name": ""}, ValueError, "name must be a non-empty string, got ''"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Chaos(**options)


async def test_it_is_off_until_it_is_switched_on(engine: Engine) -> None:
    chaos = Chaos(errors=[DownError])
    protected = engine(chaos)
    assert not chaos.enabled
    assert await protected.call(FaultScript("up")) == "up"
    chaos.enable()
    with pytest.raises(DownError):
        await protected.call(FaultScript("up"))
    chaos.disable()
    assert await protected.call(FaultScript("up")) == "up"
    assert chaos.injected == 1


async def test_errors_are_new_each_time_and_marked(engine: Engine) -> None:
    given = KeyError("given")
    given.add_note("a note of its own")
    chaos = Chaos(errors=[DownError, given], enabled=True, name="storm", seed=1)
    script = FaultScript("up")
    errors: list[Exception] = []
    for _ in range(20):
        with pytest.raises((DownError, KeyError)) as caught:
            await engine(chaos).call(script)
        errors.append(caught.value)
    assert script.calls == []  # instead of the call
    assert len(set(map(id, errors))) == 20
    assert {type(error) for error in errors} == {DownError, KeyError}
    for error in errors:
        assert "injected by storm" in error.__notes__
        assert error.args == (("given",) if isinstance(error, KeyError) else ("injected by storm",))
    assert given.__notes__ == ["a note of its own"]


async def test_an_error_that_cannot_be_made_again_is_marked_once(engine: Engine) -> None:
    class Single(Exception):  # noqa: N818 - of the test only
        def __new__(cls, *args: Any) -> Single:
            if made:
                raise TypeError("there can be only one")
            return super().__new__(cls)

    made: list[Exception] = []
    error = Single()
    made.append(error)
    chaos = Chaos(errors=[error], enabled=True)
    for _ in range(3):
        with pytest.raises(Single) as caught:
            await engine(chaos).call(FaultScript("up"))
        assert caught.value is error
    assert error.__notes__ == ["injected by Chaos"]


async def test_results_instead_of_the_call(engine: Engine) -> None:
    script = FaultScript("up")
    assert await engine(Chaos(results=[503], enabled=True)).call(script) == 503
    assert await engine(Chaos(results=[None], enabled=True)).call(script) is None
    assert script.calls == []


async def test_delays_before_the_call(engine: Engine) -> None:
    script = FaultScript("up", repeat=True)
    assert await engine(Chaos(latency=2.0, enabled=True)).call(script) == "up"
    assert script.started == [2.0]
    protected = engine(Chaos(latency=(1.0, 2.0), enabled=True, seed=3))
    for _ in range(20):
        began = clock.now()
        await protected.call(script)
        assert 1.0 <= clock.now() - began <= 2.0
    protected = engine(Chaos(latency=Exponential(1.0, most=3.0), enabled=True, seed=3))
    began = clock.now()
    for _ in range(500):
        await protected.call(script)
    assert 0.8 < (clock.now() - began) / 500 < 1.1
    began = clock.now()
    await engine(Chaos(latency=lambda draw: 4.0, enabled=True)).call(script)
    assert clock.now() - began == pytest.approx(4.0)


async def test_a_delay_comes_before_the_error(engine: Engine) -> None:
    with pytest.raises(DownError):
        await engine(Chaos(latency=2.0, errors=[DownError], enabled=True)).call(FaultScript("up"))
    assert clock.now() == 2.0


async def test_a_share_of_the_calls_is_disturbed(engine: Engine) -> None:
    chaos = Chaos(results=["bad"], rate=0.2, enabled=True, seed=5)
    protected = engine(chaos)
    results = [await protected.call(FaultScript("up")) for _ in range(2000)]
    assert results.count("bad") == chaos.injected
    assert 340 < chaos.injected < 460


async def test_with_a_seed_a_run_can_be_repeated(engine: Engine) -> None:
    async def history(chaos: Chaos) -> list[Any]:
        protected = engine(chaos)
        return [await protected.call(FaultScript("up")) for _ in range(100)]

    def made(seed: int | None, rate: float = 0.5) -> Chaos:
        return Chaos(results=[1, 2, 3], rate=rate, enabled=True, seed=seed)

    first = await history(made(7))
    assert first == await history(made(7))
    assert first != await history(made(8))
    assert await history(made(None)) != await history(made(None))
    chaos = made(7)
    assert await history(chaos) == first
    assert await history(chaos) != first
    chaos.enable()
    assert await history(chaos) == first
    # With a higher rate the same calls are disturbed in the same way, and others too.
    more = await history(made(7, rate=0.8))
    assert all(after == before for after, before in zip(more, first, strict=True) if before != "up")


async def test_only_between_two_times(engine: Engine) -> None:
    chaos = Chaos(results=["bad"], between=(10.0, 20.0), enabled=True)
    protected = engine(chaos)

    async def minute() -> list[Any]:
        results: list[Any] = []
        for _ in range(6):
            results.append(await protected.call(FaultScript("up")))
            await anyio.sleep(5)
        return results

    await anyio.sleep(100)
    assert await minute() == ["up", "up", "bad", "bad", "up", "up"]  # since its first call
    assert await minute() == ["up"] * 6
    chaos.enable()
    assert await minute() == ["up", "up", "bad", "bad", "up", "up"]  # since it was switched on


@pytest.mark.parametrize("keys", [["eu", "us"], {"eu"}, {"eu"}.__contains__], ids=["list", "set", "predicate"])
async def test_only_some_keys(keys: Any, engine: Engine) -> None:
    protected = engine(Chaos(results=["bad"], keys=keys, enabled=True))
    assert await protected.run(Call(Operation("op"), FaultScript("up"), key="eu")) == "bad"
    assert await protected.run(Call(Operation("op"), FaultScript("up"), key="asia")) == "up"
    assert await protected.call(FaultScript("up")) == "up"


async def test_every_fault_is_an_event(engine: Engine) -> None:
    recorder = EventRecorder()
    for chaos in (
        Chaos(errors=[DownError], enabled=True, name="a"),
        Chaos(results=[503], latency=1.0, enabled=True, name="b"),
        Chaos(latency=2.0, enabled=True, name="c"),
    ):
        chaos.listen(recorder)
        await engine(chaos).outcome(FaultScript("up"))
    found = recorder.of(ChaosInjected)
    assert [(event.policy, event.fault, event.latency) for event in found] == [
        ("a", "DownError", 0.0),
        ("b", "503", 1.0),
        ("c", "", 2.0),
    ]
    assert isinstance(found[0].error, DownError)
    assert found[1].error is None


async def test_the_policies_around_it_take_it_for_the_dependency(engine: Engine) -> None:
    breaker = CircuitBreaker(minimum_calls=100)
    chaos = Chaos(errors=[DownError], rate=0.5, seed=2, enabled=True)
    protected = engine(Retry(20, backoff=Backoff.none(), budget=None), breaker, chaos)
    for _ in range(20):
        assert await protected.call(FaultScript("up")) == "up"
    assert breaker.metrics().failures == chaos.injected > 5
    with pytest.raises(TimedOutError):
        await engine(Timeout(1.0), Chaos(latency=5.0, enabled=True)).call(FaultScript("up"))


async def test_a_delay_can_be_cancelled(engine: Engine) -> None:
    script = FaultScript("up")
    async with cancelled_after(1.0) as scope:
        await engine(Chaos(latency=5.0, enabled=True)).call(script)
    assert scope.cancelled_caught
    assert script.calls == []


async def test_a_result_that_is_still_alive_is_none_of_its_business() -> None:
    lease = Lease()
    call = Call(Operation("op"), FaultScript("body"), lease=lease)
    assert await Pipeline(Timeout(5), Chaos(latency=1.0, enabled=True)).run(call) == "body"
    lease.close()


def test_it_belongs_innermost() -> None:
    with pytest.warns(HazardWarning, match="chaos around Retry disturbs that policy instead of the dependency"):
        Pipeline(Chaos(latency=1.0), Retry())
    Pipeline(Timeout(10), Retry(), Timeout(2), Chaos(latency=1.0, rate=0.1), Chaos(errors=[OSError], rate=0.01))


def test_blocks_are_refused() -> None:
    with pytest.raises(TypeError, match="Chaos cannot guard a block or an async generator"):
        Pipeline(Chaos(latency=1.0)).guard()


def test_it_works_in_a_second_run() -> None:
    chaos = Chaos(latency=1.0, results=["bad"], enabled=True)
    for backend in ("asyncio", "asyncio", "trio", "asyncio"):
        assert run(chaos.call, FaultScript("up"), backend=backend) == "bad"
