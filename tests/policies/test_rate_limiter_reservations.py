"""Reserve, then settle: in this process, elsewhere, and while the store is away."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import anyio
import pytest

from resilience import Limit, RateLimitedError, RateLimiter, Reservation, StoreUnavailableError, Timeout, clock
from resilience.events import CallRejected, PermitAwaited
from resilience.testing import EventRecorder
from tests.policies.test_rate_limiter import ALGORITHMS, UP, Runner
from tests.policies.test_rate_limiter_limits import LedgerElsewhere, llm
from tests.support.scopes import cancelled_after

pytestmark = pytest.mark.anyio

PLACES = ["here", "elsewhere"]


def made(place: str, *limits: Any, **options: Any) -> RateLimiter:
    """A limiter in memory, or with the same state behind an await."""
    if place == "here":
        return RateLimiter(*limits, **options)
    return RateLimiter(*limits, store=LedgerElsewhere(), name="api", **options)


async def left(limiter: RateLimiter, key: str = "") -> Any:
    return pytest.approx((await limiter.peek(key=key)).remaining)


@pytest.mark.parametrize("place", PLACES)
async def test_the_estimate_is_charged_and_then_the_difference(place: str) -> None:
    limiter = made(place, "100/h")
    held = await limiter.reserve(cost=40)
    assert (held.cost, held.settled, held.key) == (40, False, "")
    assert await left(limiter) == (60,)
    assert await held.settle(25)
    assert await left(limiter) == (75,)
    assert held.settled
    assert not await held.settle(99)
    more = await limiter.reserve(cost=10)
    assert await more.settle(30)
    assert await left(limiter) == (45,)
    assert await (await limiter.reserve(cost=10)).cancel()
    assert await left(limiter) == (45,)
    assert held.id != more.id
    assert repr(held) == f"<Reservation {held.id!r} of 40, settled>"


@pytest.mark.parametrize("place", PLACES)
async def test_dimensions_that_are_left_out_were_used_as_reserved(place: str) -> None:
    limiter = made(place, "60/h", Limit("20000/h", dimension="tokens"))
    held = await limiter.reserve(cost={"requests": 1, "tokens": 1800})
    assert held.cost == {"requests": 1, "tokens": 1800}
    await held.settle({"tokens": 1300})
    assert await left(limiter) == (59, 18_700)
    free = await limiter.reserve(cost={"tokens": 700})
    await free.cancel()
    assert await left(limiter) == (59, 18_700)
    plain = await limiter.reserve()
    assert plain.cost == {"requests": 1, "tokens": 0}
    await plain.settle(2)
    assert await left(limiter) == (57, 18_700)
    for wrong in ({"token": 1}, {"tokens": -1}, -1, math.nan, {"tokens": math.inf}):
        with pytest.raises(ValueError, match="actual must be"):
            await (await limiter.reserve()).settle(wrong)
    with pytest.raises(TypeError, match="actual must be a number"):
        await limiter.settle("x", actual=True)


@pytest.mark.parametrize("place", PLACES)
async def test_an_id_is_charged_once_in_whatever_order_its_messages_come(place: str) -> None:
    limiter = made(place, "100/h")
    first, second = [await limiter.reserve(id="order", cost=30) for _ in range(2)]
    assert first.id == second.id == "order"
    assert await left(limiter) == (70,)
    assert await limiter.settle("order", actual=20)
    assert not await limiter.settle("order", actual=20)
    assert not await first.settle(50)
    assert await left(limiter) == (80,)
    third = await limiter.reserve(id="order", cost=30)
    assert (third.settled, third.cost) == (True, 20)

    assert await limiter.settle("early", actual=15)
    late = await limiter.reserve(id="early", cost=30)
    assert (late.settled, late.cost) == (True, 15)
    assert not await late.cancel()
    assert await left(limiter) == (65,)
    assert await limiter.settle("order", actual=5, key="other"), "the id of another key is another"
    assert not await limiter.settle("never", actual=15, known=True)
    assert await left(limiter) == (65,)


@pytest.mark.parametrize("place", PLACES)
async def test_what_is_forgotten_is_not_charged_twice_by_its_holder(place: str) -> None:
    limiter = made(place, "1000/h", reservation_ttl=60, max_wait=0)
    held = await limiter.reserve(id="slow", cost=100)
    other = await limiter.reserve(id="other", cost=100)
    await anyio.sleep(61)
    before = (await limiter.peek()).remaining
    assert not await held.settle(900), "forgotten: it stays charged as reserved"
    assert not await limiter.settle("other", actual=900, known=True)
    assert (await limiter.peek()).remaining == before
    assert other.cost == 100
    assert await limiter.settle("other", actual=100), "nobody could tell: for one who only has the id it is new"


async def test_records_leave_by_themselves_and_are_bounded() -> None:
    limiter = RateLimiter("1000/s", reservation_ttl=10, max_keys=50)
    records = vars(limiter.line.limiter)["_records"]
    for number in range(300):
        held = await limiter.reserve(key="k")
        if number % 2:
            await held.settle(0.5)
        assert len(records) <= 50
        await anyio.sleep(0.01)
    await anyio.sleep(11)
    await limiter.reserve()
    assert len(records) == 1


@pytest.mark.parametrize("place", PLACES)
async def test_a_block_settles_with_what_was_used(place: str) -> None:
    limiter = made(place, "100/h")
    async with limiter.reservation(cost=40) as held:
        assert isinstance(held, Reservation)
        held.actual = 12
    assert await left(limiter) == (88,)
    with suppress(KeyError):
        async with limiter.reservation(cost=40) as held:
            held.actual = 10
            raise KeyError
    assert await left(limiter) == (78,)
    with pytest.raises(KeyError):
        async with limiter.reservation(cost=8):
            raise KeyError
    assert await left(limiter) == (70,), "nobody knows what was used: the estimate stands"
    async with limiter.reservation(cost=10) as held:
        await held.cancel()
        held.actual = 99
    assert await left(limiter) == (70,)
    async with await limiter.reserve(cost=10) as held:
        held.actual = 20
    assert await left(limiter) == (50,)
    async with cancelled_after(1):
        async with limiter.reservation(cost=10) as held:
            held.actual = 5
            await anyio.sleep(2)
    assert (await limiter.peek()).remaining[0] == pytest.approx(45, abs=0.1)


@pytest.mark.parametrize("place", PLACES)
async def test_reservations_wait_as_calls_do(place: str) -> None:
    recorder = EventRecorder()
    limiter = made(place, "1/s", burst=1, listeners=[recorder])
    await limiter.reserve()
    await limiter.reserve()
    assert clock.now() == pytest.approx(1.0)
    assert [event.waited for event in recorder.of(PermitAwaited)] == pytest.approx([1.0])
    with pytest.raises(RateLimitedError, match="more than 1 per 1 s") as caught:
        await limiter.reserve(max_wait=0.5)
    assert caught.value.retry_after == pytest.approx(1)
    assert len(recorder.of(CallRejected)) == 1
    with pytest.raises(RateLimitedError):
        await Timeout(0.5).call(limiter.reserve)
    assert clock.now() == pytest.approx(1.0), "a deadline that cannot be met is no reason to wait"


async def test_reservations_stand_in_line_with_calls() -> None:
    limiter = RateLimiter("1/s", burst=1)
    runner = Runner(limiter)
    order: list[tuple[str, float]] = []

    async def reserve() -> None:
        await limiter.reserve()
        order.append(("reserved", clock.now()))

    async with anyio.create_task_group() as group:
        await runner.start(group, "a")
        await runner.start(group, "b")
        group.start_soon(reserve)
        await anyio.wait_all_tasks_blocked()
        await runner.start(group, "c")
    assert runner.admitted == [("a", 0.0), ("b", 1.0), ("c", 3.0)]
    assert order == [("reserved", 2.0)]


async def test_the_same_id_twice_in_line_is_one() -> None:
    limiter = RateLimiter("1/s", burst=1)
    await limiter.call(UP)
    moments: list[float] = []

    async def reserve(id: str) -> None:
        await limiter.reserve(id=id)
        moments.append(clock.now())

    async with anyio.create_task_group() as group:
        for id in ("x", "x", "y"):
            group.start_soon(reserve, id)
            await anyio.wait_all_tasks_blocked()
    assert sorted(moments) == pytest.approx([1.0, 1.0, 2.0])


async def test_settled_while_it_stood_in_line() -> None:
    limiter = RateLimiter("10/s", burst=10)
    await limiter.reserve(cost=10)
    found: list[Reservation] = []

    async def reserve() -> None:
        found.append(await limiter.reserve(id="x", cost=10))

    async with anyio.create_task_group() as group:
        group.start_soon(reserve)
        await anyio.sleep(0.5)
        await limiter.settle("x", actual=1)
    assert (found[0].settled, found[0].cost) == (True, 1)
    assert (await limiter.peek()).remaining[0] == pytest.approx(10 * clock.now() - 1 - 0, abs=1.1)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("place", PLACES)
async def test_a_cancelled_reservation_leaves_nothing_behind(place: str, algorithm: Any) -> None:
    limiter = made(place, "2/s", Limit("20/s", dimension="tokens"), algorithm=algorithm)
    cost = {"requests": 1, "tokens": 3}
    while (await limiter.peek(cost=cost)).allowed:
        await limiter.bind(cost=cost).call(UP)
    before = await limiter.peek(cost=cost)
    async with cancelled_after(0.1):
        await limiter.reserve(cost=cost)
    assert (await limiter.peek(cost=cost)).wait == pytest.approx(before.wait - 0.1)


async def test_modes() -> None:
    recorder = EventRecorder()
    limiter = RateLimiter("10/h", mode="shadow", listeners=[recorder])
    held = await limiter.reserve(cost=8)
    refused = await limiter.reserve(cost=8)
    assert (held.cost, refused.cost) == (8, 0)
    assert limiter.rejected == 1
    await refused.settle(5)
    assert (await limiter.peek()).remaining == pytest.approx((2,))
    limiter.mode = "off"
    free = await limiter.reserve(cost=8)
    assert await free.settle(8)
    assert (await limiter.peek()).remaining == pytest.approx((2,))
    assert clock.now() == 0.0


async def test_bad_reservations_are_refused_by_name() -> None:
    limiter = llm()
    for id in ("", 5):
        with pytest.raises(ValueError, match="id must be a non-empty string"):
            await limiter.reserve(id=id)  # type: ignore[arg-type] # on purpose
    with pytest.raises(ValueError, match="max_wait must be at least 0"):
        await limiter.reserve(max_wait=-1)
    with pytest.raises(ValueError, match="cost must be at most 60"):
        await limiter.reserve(cost=61)
    with pytest.raises(ValueError, match="cost must be greater than 0"):
        await limiter.reserve(cost={"tokens": 0})
    constant = llm(cost={"tokens": 500})
    assert (await constant.reserve()).cost == {"requests": 0, "tokens": 500}
    assert (await constant.reserve(cost={"tokens": 7})).cost == {"requests": 0, "tokens": 7}


@pytest.mark.parametrize("on_outage", ["local", "open", "closed"])
async def test_reservations_during_an_outage(on_outage: Any) -> None:
    store = LedgerElsewhere()
    limiter = RateLimiter("20/h", name="api", store=store, max_wait=0, on_outage=on_outage)
    before = await limiter.reserve(id="before", cost=4)
    store.up = False
    if on_outage == "closed":
        with pytest.raises(RateLimitedError, match="the shared store does not answer"):
            await limiter.reserve(id="during", cost=8)
        assert store.ledger.voided == [], "its caller may try again with the same id"
    else:
        held = await limiter.reserve(id="during", cost=8)
        assert (held.cost, limiter.degraded) == (8, True)
        assert store.ledger.voided == ["during"], "should it have been carried out all the same"
        again = await limiter.outcome(limiter.reserve, cost=9)
        assert again.ok is (on_outage == "open")
        if on_outage == "local":
            assert await limiter.settle("during", actual=1), "where it was made"
        assert await held.settle(1) is (on_outage == "open")
        assert limiter.outage.admitted >= 1
    with pytest.raises(StoreUnavailableError):
        await before.settle(1)
    assert not before.settled
    async with before:
        before.actual = 1
    assert not before.settled, "at the end of a block an outage is no error"
    store.up = True
    assert await before.settle(1)
    assert (await limiter.peek()).remaining == pytest.approx((19,))


async def test_a_wait_for_the_store_that_is_cancelled_is_given_back_or_voided() -> None:
    store = LedgerElsewhere()
    limiter = RateLimiter("1/s", burst=1, name="api", store=store)
    await limiter.reserve()
    async with cancelled_after(0.5):
        await limiter.reserve(id="x")
    assert (await limiter.peek()).wait == pytest.approx(0.5)
    assert (await limiter.reserve(id="x")).settled, "an id is spent when its reservation was cancelled"
    await anyio.sleep(0.5)
    await limiter.reserve()

    async def vanish() -> None:
        await anyio.sleep(0.4)
        store.up = False

    async with anyio.create_task_group() as group:
        group.start_soon(vanish)
        async with cancelled_after(0.5):
            await limiter.reserve(id="y")
    assert store.ledger.voided == ["y"]
