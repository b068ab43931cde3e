"""The state of policies: partitions, the limiter in memory, and stores."""

from __future__ import annotations

import math
from typing import Any

import anyio
import pytest

from resilience import GCRA, Bulkhead, CircuitBreaker, FixedWindow, MemoryStore, RateLimiter, Retry, Store
from resilience.limits.memory_limiter import MemoryLimiter
from resilience.partitions import Partitions

pytestmark = pytest.mark.anyio


class Box:
    def __init__(self) -> None:
        self.needed = False


def partitions(max_keys: int) -> Partitions[Box]:
    return Partitions(Box, droppable=lambda box: not box.needed, max_keys=max_keys)


def test_a_key_keeps_its_state() -> None:
    states = partitions(10)
    box = states.get("a")
    assert states.get("a") is states.find("a") is box
    assert states.find("b") is None
    assert len(states) == 1
    states.drop("a")
    states.drop("a")
    assert states.find("a") is None


def test_idle_keys_leave_and_needed_ones_stay() -> None:
    states = partitions(10)
    needed = states.get("needed")
    needed.needed = True
    for number in range(1000):
        states.get(str(number))
        states.get("used")
    assert states.find("needed") is needed
    assert states.find("0") is None
    assert states.find("999") is not None
    assert len(states) <= 13
    assert {key for key, _ in states.items()} >= {"needed", "used", "999"}
    assert len(states.values()) == len(states)


def test_the_state_of_calls_without_a_key_stays() -> None:
    states = partitions(2)
    unkeyed = states.get("")
    for number in range(100):
        states.get(str(number))
    assert states.get("") is unkeyed


def test_more_needed_keys_than_allowed_are_kept_all() -> None:
    states = partitions(4)
    for number in range(100):
        states.get(str(number)).needed = True
    assert len(states) == 100


@pytest.mark.parametrize(("max_keys", "error"), [(0, ValueError), (1.5, TypeError), (True, TypeError)])
def test_a_bound_must_be_a_whole_number(max_keys: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_keys must be"):
        partitions(max_keys)


async def test_idle_keys_of_a_limiter_leave_by_themselves() -> None:
    limiter = MemoryLimiter([GCRA(10, 1.0)])
    for number in range(1000):
        limiter.acquire(str(number), (1,), 0.0)
    assert len(limiter) == 1000
    for _ in range(4):
        await anyio.sleep(3)
        limiter.acquire("alive", (1,), 0.0)
    assert len(limiter) == 1


async def test_a_key_in_use_survives_the_turn() -> None:
    limiter = MemoryLimiter([FixedWindow(5, 10.0)])
    await anyio.sleep(1)
    for _ in range(5):
        assert limiter.acquire("busy", (1,), 0.0).decision.allowed
    for second in range(8):
        limiter.acquire(str(second), (1,), 0.0)
        assert not limiter.acquire("busy", (1,), 0.0).decision.allowed
        await anyio.sleep(1)


@pytest.mark.parametrize("rules", [[GCRA(10, 1.0)], [GCRA(10, 1.0), GCRA(100, 5.0)]], ids=["one", "two"])
async def test_too_many_keys_are_swept_but_no_debt_is(rules: list[GCRA]) -> None:
    limiter = MemoryLimiter(rules, max_keys=100)
    costs = (1,) * len(rules)
    while limiter.acquire("debtor", costs, 100.0).decision.wait < 30:
        pass
    for number in range(1000):
        limiter.acquire(str(number), costs, 0.0)
        if number % 10 == 0:
            await anyio.sleep(0.5)
    assert len(limiter) < 250
    assert limiter.peek("debtor", costs).wait > 0 or anyio.current_time() > 30


async def test_a_booking_far_ahead_is_not_forgotten() -> None:
    limiter = MemoryLimiter([GCRA(1, 1.0, burst=1)])
    for _ in range(100):
        limiter.acquire("a", (1,), math.inf)
    for _ in range(9):
        await anyio.sleep(10)
        limiter.acquire("other", (1,), 0.0)
        assert not limiter.acquire("a", (1,), 0.0).decision.allowed


async def test_refunds_of_what_is_unknown_or_fresh_do_nothing() -> None:
    limiter = MemoryLimiter([GCRA(2, 1.0), GCRA(5, 1.0)])
    limiter.refund("nobody", (1, 1))
    assert len(limiter) == 0
    booking = limiter.acquire("a", (1, 1), 0.0)
    limiter.refund("a", (1, 1), booking.stamp)
    assert len(limiter) == 0
    limiter.acquire("a", (1, 1), 0.0)
    limiter.acquire("a", (1, 1), 0.0)
    limiter.refund("a", (1, 1))
    assert list(limiter.peek("a", (1, 1)).remaining) == pytest.approx([1.0, 4.0])


async def test_the_limiter_of_unkeyed_calls_is_like_any_other() -> None:
    limiter = MemoryLimiter([GCRA(2, 1.0)])
    for key in ("", "a"):
        assert limiter.acquire(key, (2,), 0.0).decision.allowed
        assert not limiter.acquire(key, (1,), 0.0).decision.allowed
        limiter.refund(key, (1,))
        assert limiter.acquire(key, (1,), 0.0).decision.allowed
        limiter.reset(key)
        assert limiter.peek(key, (2,)).allowed


class Empty(Store):
    """Holds nothing."""


@pytest.mark.parametrize("what", ["rate limiters", "circuit breakers", "bulkheads", "retry budgets"])
def test_a_store_refuses_what_it_cannot_hold(what: str) -> None:
    def make(store: Store) -> None:
        match what:
            case "rate limiters":
                RateLimiter("1/s", name="x", store=store)
            case "circuit breakers":
                CircuitBreaker(name="x", store=store)
            case "bulkheads":
                Bulkhead(1, name="x", store=store)
            case _:
                Retry(name="x", store=store)

    make(MemoryStore())
    with pytest.raises(TypeError, match=f"store must be one that can hold {what}; Empty cannot"):
        make(Empty())


def test_states_of_different_kinds_may_have_one_name() -> None:
    store = MemoryStore()
    Bulkhead(1, name="x", store=store)
    CircuitBreaker(name="x", store=store)
    RateLimiter("1/s", name="x", store=store)
    assert Retry(name="x", store=store).budget is not None
