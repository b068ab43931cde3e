from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from resilience import Bulkhead, Pipeline, RateLimitedError, RateLimiter, TimedOutError, Timeout
from resilience.testing import HANG, FaultScript
from tests.support.engine import Engine

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": 5}, "key must be a string or a function of the call's arguments, got 5"),
        ({"cost": "1"}, "cost must be a number, a mapping or a function of the call's arguments, got '1'"),
        ({"cost": True}, "cost must be a number, a mapping or a function of the call's arguments, got True"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Timeout(1).bind(**options)


async def test_key_and_cost_as_values_and_as_functions(engine: Engine) -> None:
    limiter = RateLimiter("10/s", max_wait=0)
    protected = engine(limiter)

    def tenant(name: str, size: float = 1) -> str:
        return name

    def weight(name: str, size: float = 1) -> float:
        return size

    await protected.bind(key="eu", cost=4).call(FaultScript(1))
    assert (await limiter.peek(key="eu")).remaining[0] == pytest.approx(6.0)
    await protected.bind(key=tenant, cost=weight).call(FaultScript(1), "us", size=3)
    assert (await limiter.peek(key="us")).remaining[0] == pytest.approx(7.0)
    assert (await limiter.peek()).remaining[0] == pytest.approx(10.0)

    @protected.bind(key=tenant, cost=weight)
    async def work(name: str, size: float = 1) -> str:
        return f"{name} {size}"

    assert await work("us", 2) == "us 2"
    assert (await limiter.peek(key="us")).remaining[0] == pytest.approx(5.0)
    assert (await protected.bind(cost=11).outcome(FaultScript(1))).error is not None


async def test_the_name_is_that_of_the_operation(engine: Engine) -> None:
    with pytest.raises(TimedOutError, match="search did not finish"):
        await engine(Timeout(1)).bind(name="search").call(FaultScript(HANG))
    with pytest.raises(TimedOutError, match="search did not finish"):
        await engine(Timeout(1)).bind(name="search")(FaultScript(HANG))()
    outcome = await engine(Timeout(1)).bind(name="search").outcome(FaultScript(HANG))
    assert str(outcome.error).startswith("search did not finish")


async def test_blocks_and_generators(engine: Engine) -> None:
    bulkhead = Bulkhead(1)
    protected = engine(bulkhead)
    async with protected.bind(key="eu", cost=2).guard() as call:
        assert (call.key, call.cost) == ("eu", 2)
        assert bulkhead.in_use("eu") == 1

    @protected.bind(key=str)
    async def numbers(tenant: str) -> AsyncGenerator[int, None]:
        yield bulkhead.in_use(tenant)

    assert [number async for number in numbers("us")] == [1]

    class Client:
        @protected.bind(key="eu")
        @staticmethod
        async def static() -> int:
            return bulkhead.in_use("eu")

        @protected.bind(key="eu")
        @classmethod
        async def of_class(cls) -> int:
            return bulkhead.in_use("eu")

    assert (await Client.static(), await Client.of_class()) == (1, 1)
    for bound in (protected.bind(key=str), protected.bind(cost=float)):
        with pytest.raises(TypeError, match="key and cost must be values, not functions, to guard a block"):
            bound.guard()


async def test_the_policy_itself_stays_as_it_was() -> None:
    limiter = RateLimiter("2/s", max_wait=0)
    pipeline = Pipeline(limiter)
    pipeline.bind(cost=2)
    await pipeline.call(FaultScript(1))
    await pipeline.call(FaultScript(1))
    with pytest.raises(RateLimitedError):
        await pipeline.call(FaultScript(1))
