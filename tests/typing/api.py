# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""What type checkers make of the public interface. Checked by mypy and pyright, never run.

Every `type: ignore` here is a mistake that both have to find: an unneeded one is itself an error.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from typing import Any, assert_type

from resilience import (
    BreakerMetrics,
    BreakerState,
    Bulkhead,
    Cache,
    Call,
    CircuitBreaker,
    Decision,
    Event,
    Fallback,
    Guard,
    JsonCodec,
    MemoryStore,
    Outcome,
    Pipeline,
    RateLimiter,
    Reservation,
    Retry,
    SingleFlight,
    Timeout,
)

timeout = Timeout(2)
retry = Retry(attempts=3)
breaker = CircuitBreaker()
bulkhead = Bulkhead(10)
limiter = RateLimiter("100/s", "1000/h", store=MemoryStore(), name="search")
fallback = Fallback(0)
cache = Cache(60, stale_for=5)
payments = Pipeline(timeout, retry, breaker, name="payments")


async def plain(order: int, *, note: str = "") -> str:
    return f"{order}{note}"


# Decorating keeps parameters and result.


@payments
async def by_pipeline(order: int, *, note: str = "") -> str:
    return await plain(order, note=note)


@retry
async def by_policy(order: int) -> bytes:
    return bytes(order)


@Timeout(1)
async def by_guard(order: int) -> list[int]:
    return [order]


@payments.bind(key="eu", cost=2, name="charge")
async def by_binding(order: int) -> float:
    return order / 2


@retry.bind(key=str)
async def by_policy_binding(order: int) -> float:
    return order / 2


async def decorated() -> None:
    assert_type(await by_pipeline(1, note="x"), str)
    await assert_type(by_pipeline(1), Coroutine[Any, Any, str])
    assert_type(await by_policy(1), bytes)
    assert_type(await by_guard(1), list[int])
    assert_type(await by_binding(1), float)
    assert_type(await by_policy_binding(1), float)
    assert_type(await fallback(breaker(bulkhead(limiter(plain))))(1, note="x"), str)
    await by_pipeline("1")  # type: ignore[arg-type]  # the parameter's type is kept
    await by_pipeline(1, remark="x")  # type: ignore[call-arg]  # and its name
    await by_policy()  # type: ignore[call-arg]  # and that it is required
    await by_guard("1")  # type: ignore[arg-type]
    await by_binding("1")  # type: ignore[arg-type]


# Calling.


async def called() -> None:
    assert_type(await payments.call(plain, 1, note="x"), str)
    assert_type(await retry.call(plain, 1), str)
    assert_type(await payments.bind(cost=3).call(plain, 1), str)
    assert_type(await timeout.call(lambda: plain(1)), str)
    outcome = await payments.outcome(plain, 1)
    assert_type(outcome, Outcome[str])
    assert_type(outcome.value, str)
    assert_type(outcome.error, Exception | None)
    assert_type(outcome.ok, bool)
    assert_type(await breaker.bind(key="eu").outcome(plain, 1), Outcome[str])
    await payments.call(plain, "1")  # type: ignore[arg-type]
    await payments.call(plain)  # type: ignore[call-arg]
    await retry.outcome(plain, 1, remark="x")  # type: ignore[call-arg]


# Guarding a block.


async def guarded() -> None:
    assert_type(breaker.guard(key="eu", cost=2), AbstractAsyncContextManager[Call, bool | None])
    async with Pipeline(breaker, bulkhead).guard() as call:
        assert_type(call, Call)
    async with limiter.bind(key="eu").guard() as call:
        assert_type(call, Call)
    retry.guard()  # type: ignore[attr-defined]  # a block runs once
    fallback.guard()  # type: ignore[attr-defined]  # a block has no other answer


# Methods.


class Client:
    @payments
    async def fetch(self, path: str) -> bytes:
        return path.encode()

    @retry
    @staticmethod
    async def static(path: str) -> bytes:
        return path.encode()

    @payments
    @classmethod
    async def of_class(cls, path: str) -> bytes:
        return path.encode()

    @staticmethod
    @breaker
    async def static_inside(path: str) -> bytes:
        return path.encode()

    @classmethod
    @breaker
    async def of_class_inside(cls, path: str) -> bytes:
        return path.encode()

    @bulkhead
    async def stream(self, path: str) -> AsyncGenerator[bytes, None]:
        yield path.encode()


async def methods(client: Client) -> None:
    assert_type(await client.fetch("/"), bytes)
    assert_type(await client.static("/"), bytes)
    assert_type(await Client.static("/"), bytes)
    assert_type(await client.of_class("/"), bytes)
    assert_type(await Client.of_class("/"), bytes)
    assert_type(await Client.static_inside("/"), bytes)
    assert_type(await Client.of_class_inside("/"), bytes)
    assert_type(client.stream("/"), AsyncGenerator[bytes, None])
    await client.fetch(1)  # type: ignore[arg-type]
    await client.static(1)  # type: ignore[arg-type]
    await client.of_class(1)  # type: ignore[arg-type]


# Async generators.


@payments.bind(name="pages")
async def bound_pages(count: int) -> AsyncGenerator[int, str]:
    for page in range(count):
        yield page


@limiter
async def pages(count: int) -> AsyncIterator[int]:
    for page in range(count):
        yield page


async def generators() -> None:
    assert_type(pages(3), AsyncIterator[int])
    assert_type(bound_pages(3), AsyncGenerator[int, str])
    async for page in pages(3):
        assert_type(page, int)
    pages("3")  # type: ignore[arg-type]


# Callables that return an awaitable.


def returns_awaitable(order: int) -> Awaitable[str]:
    return plain(order)


class Callee:
    async def __call__(self, order: int) -> str:
        return str(order)


async def awaitables() -> None:
    assert_type(await breaker(returns_awaitable)(1), str)
    assert_type(await payments(Callee())(1), str)
    assert_type(await payments.call(Callee(), 1), str)
    await payments(Callee())("1")  # type: ignore[arg-type]


# What cannot be guarded.


def sync(order: int) -> str:
    return str(order)


def sync_generator(order: int) -> Generator[int, None, None]:
    yield order


async def async_generator(order: int) -> AsyncGenerator[int, None]:
    yield order


retry(sync)  # type: ignore[arg-type]  # not async
breaker(sync)  # type: ignore[arg-type]
payments(sync)  # type: ignore[arg-type]
payments(sync_generator)  # type: ignore[arg-type]
retry(async_generator)  # type: ignore[arg-type]  # a generator cannot be repeated
fallback(async_generator)  # type: ignore[arg-type]
Pipeline(timeout, "retry")  # type: ignore[arg-type]
Timeout("2")  # type: ignore[arg-type]
RateLimiter("1/s", algorithm="guess")  # type: ignore[arg-type]
RateLimiter("1/s", on_outage="panic")  # type: ignore[arg-type]
CircuitBreaker(mode="dry")  # type: ignore[arg-type]
Retry(on=ValueError())  # type: ignore[arg-type]  # a type, not an instance


async def refused_calls() -> None:
    await payments.call(sync, 1)  # type: ignore[arg-type]
    await payments.outcome(sync, 1)  # type: ignore[arg-type]


# Everything else that users see.


class Gate(Guard[int]):
    def enter(self, call: Call) -> int | None:
        assert_type(call.key, str)
        assert_type(call.deadline, float | None)
        return 1

    def leave(self, call: Call, token: int, result: Any, error: BaseException | None) -> None:
        assert_type(token, int)


def listener(event: Event) -> None:
    assert_type(event.kind, str)
    assert_type(event.operation, str)


async def caches() -> None:
    assert_type(await cache.call(plain, 1), str)
    assert_type(await SingleFlight(ignore=["note"]).call(plain, 1), str)
    assert_type(await cache.peek(plain, 1, note="x"), Outcome[str] | None)
    assert_type(await cache.invalidate(plain, 1), bool)
    await cache.put("value", plain, 1)
    await cache.put("value", plain, "1")  # type: ignore[arg-type]
    await cache.bind(key="eu").put("value", plain, 1)
    users = cache.writer(plain, plain, behind=10)
    await users.write("value", 1, note="x")
    await users.write("value", "1")  # type: ignore[arg-type]
    await users.write(b"value", 1)  # type: ignore[arg-type]
    Cache("60")  # type: ignore[arg-type]
    Cache(60, negative=KeyError, codec=JsonCodec())
    Cache(60, codec=7)  # type: ignore[arg-type]


async def the_rest() -> None:
    assert_type(await Gate().call(plain, 1), str)
    assert_type(payments.listen(listener), Callable[[], None])
    assert_type(breaker.state("eu"), BreakerState)
    assert_type(breaker.metrics(), BreakerMetrics)
    assert_type(bulkhead.in_use(), int)
    assert_type(await limiter.peek(key="eu", cost=2), Decision)
    assert_type(await limiter.reserve(key="eu", cost={"requests": 1}), Reservation)
    assert_type(await limiter.settle("id", actual={"requests": 2}), bool)
    async with limiter.reservation(cost=5) as held:
        assert_type(held, Reservation)
        held.actual = "5"  # type: ignore[assignment]
    await limiter.bind(cost={"requests": 1}).call(plain, 1)
    await limiter.bind(cost={"requests": "1"}).call(plain, 1)  # type: ignore[dict-item]
    assert_type(Pipeline.standard(retry=retry, breaker=breaker), Pipeline)
    payments.listen(print)
    payments.listen("print")  # type: ignore[arg-type]
