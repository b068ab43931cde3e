from __future__ import annotations

import heapq
import itertools
import math
import random
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.machines.backoff import START, Backoff, BackoffState
from resilience.machines.retry_budget import RatioBudget, RetryBudgetMachine, TokenBudget


def test_token_table() -> None:
    budget = TokenBudget()
    assert (budget.transient_cost, budget.throttled_cost, budget.available(0.0)) == (14.0, 5.0, 500.0)
    steps: list[tuple[Any, float]] = [
        (lambda: budget.reserve(0.0, budget.transient_cost), 486.0),
        (lambda: budget.reserve(0.0, budget.throttled_cost), 481.0),
        (lambda: budget.settle(0.0, succeeded=False, cost=5.0), 481.0),
        (lambda: budget.settle(0.0, succeeded=False), 481.0),
        (lambda: budget.settle(0.0, succeeded=True), 482.0),
        (lambda: budget.settle(0.0, succeeded=True, cost=14.0), 496.0),
        (lambda: budget.reserve(0.0, 14.0), 482.0),
        (lambda: budget.cancel(1.0, 14.0, reserved_at=0.0), 496.0),
        (lambda: budget.cancel(1.0, 14.0, reserved_at=0.0), 500.0),
        (lambda: budget.settle(0.0, succeeded=True), 500.0),
    ]
    for step, expected in steps:
        step()
        assert budget.available(0.0) == expected == budget.tokens


def test_a_full_outage_gets_thirty_five_retries_and_then_none() -> None:
    budget = TokenBudget()
    assert [budget.reserve(0.0, 14.0) for _ in range(40)] == [True] * 35 + [False] * 5
    assert budget.available(1e9) == 10.0, "time alone brings nothing back"
    for _ in range(4):
        budget.settle(0.0, succeeded=True)
    assert budget.reserve(0.0, 14.0)
    assert budget.available(0.0) == 0.0


def test_ratio_table() -> None:
    budget = RatioBudget(ratio=0.2, window=10.0, minimum_per_second=0.5)
    assert (budget.transient_cost, budget.throttled_cost) == (1.0, 1.0)
    assert budget.available(0.0) == 5.0
    for n in range(20):
        budget.settle(n / 10, succeeded=bool(n % 2))
    assert budget.available(2.0) == 9.0
    assert [budget.reserve(2.0, 1.0) for _ in range(10)] == [True] * 9 + [False]
    assert budget.available(9.9) == 0.0
    assert budget.available(10.0) == 0.0, "ten calls have left, and the retries of 2.0 are still there"
    assert budget.available(12.0) == 5.0


@pytest.mark.parametrize("percent", range(1, 101))
def test_shares_are_exact(percent: int) -> None:
    budget = RatioBudget(ratio=percent / 100, minimum_per_second=0)
    for _ in range(100):
        budget.settle(0.0, succeeded=False)
    assert sum(budget.reserve(0.0, 1.0) for _ in range(150)) == percent


def test_a_retry_cancelled_in_its_back_off_costs_nothing() -> None:
    budget = RatioBudget(window=10.0, minimum_per_second=0.1)
    assert budget.reserve(1.0, 1.0)
    assert not budget.reserve(2.0, 1.0)
    budget.cancel(3.0, 1.0, reserved_at=1.0)
    assert budget.reserve(3.0, 1.0)


def test_a_late_cancellation_does_not_pay_for_a_second_retry() -> None:
    budget = RatioBudget(window=10.0, minimum_per_second=0.1)
    assert budget.reserve(1.0, 1.0)
    assert budget.reserve(12.0, 1.0)
    budget.cancel(13.0, 1.0, reserved_at=1.0)
    assert not budget.reserve(13.0, 1.0)


def test_reading_changes_nothing() -> None:
    budget = RatioBudget(minimum_per_second=0.1)
    budget.settle(0.0, succeeded=True)
    assert budget.available(100.0) == 1.0
    assert budget.available(0.0) == 1.2


steps = st.lists(
    st.tuples(st.sampled_from(["reserve", "cancel", "success", "failure"]), st.integers(0, 40)), max_size=80
)


@settings(deadline=None)
@given(steps=steps, capacity=st.floats(14.0, 100.0))
def test_tokens_stay_between_zero_and_capacity(steps: list[tuple[str, int]], capacity: float) -> None:
    budget = TokenBudget(capacity)
    held: list[float] = []
    for step, number in steps:
        cost = (budget.transient_cost, budget.throttled_cost)[number % 2]
        before = budget.tokens
        if step == "reserve":
            granted = budget.reserve(0.0, cost)
            assert granted == (before >= cost)
            assert budget.tokens == before - cost * granted
            held += [cost] * granted
        elif step == "cancel" and held:
            budget.cancel(0.0, held.pop(), 0.0)
        else:
            budget.settle(0.0, step == "success", held.pop() if held else 0.0)
        assert 0.0 <= budget.tokens <= capacity
    before = budget.tokens
    for cost in held:
        budget.cancel(0.0, cost, 0.0)
    assert budget.tokens == pytest.approx(min(capacity, before + sum(held)))


@settings(deadline=None)
@given(steps=steps, ratio=st.sampled_from([0.0, 0.1, 0.5]), minimum=st.sampled_from([0.25, 1.0]))
def test_retries_stay_within_their_share_of_every_window(
    steps: list[tuple[str, int]], ratio: float, minimum: float
) -> None:
    """With one bucket of the sum per second, a bucket-aligned window is one the budget itself looks at."""
    budget = RatioBudget(ratio, window=10.0, minimum_per_second=minimum)
    now = 0.0
    calls: list[float] = []
    retries: list[float] = []
    for step, quarters in steps:
        now += quarters / 4
        oldest = math.floor(now) - 9
        allowed = ratio * sum(at >= oldest for at in calls) + minimum * 10.0
        spent = sum(at >= oldest for at in retries)
        assert budget.available(now) == pytest.approx(max(0.0, allowed - spent))
        if step == "reserve":
            assert budget.reserve(now, 1.0) == (spent + 1 <= allowed + 1e-9)
            if spent + 1 <= allowed + 1e-9:
                retries.append(now)
        elif step == "cancel" and retries:
            budget.cancel(now, 1.0, retries.pop(0))
        else:
            budget.settle(now, step == "success")
            calls.append(now)


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (TokenBudget, {"capacity": 0}, ValueError, "capacity must be greater than 0, got 0"),
        (TokenBudget, {"capacity": math.nan}, ValueError, "capacity must be finite, got nan"),
        (TokenBudget, {"capacity": True}, TypeError, "capacity must be a number, got True"),
        (TokenBudget, {"capacity": 10}, ValueError, "transient_cost must be at most 10, got 14.0"),
        (TokenBudget, {"throttled_cost": 501}, ValueError, "throttled_cost must be at most 500.0, got 501"),
        (TokenBudget, {"transient_cost": 0}, ValueError, "transient_cost must be greater than 0, got 0"),
        (TokenBudget, {"deposit": -1}, ValueError, "deposit must be greater than 0, got -1"),
        (RatioBudget, {"ratio": -0.1}, ValueError, "ratio must be at least 0, got -0.1"),
        (RatioBudget, {"ratio": math.inf}, ValueError, "ratio must be finite, got inf"),
        (RatioBudget, {"window": 0}, ValueError, "window must be greater than 0, got 0"),
        (
            RatioBudget,
            {"minimum_per_second": -1},
            ValueError,
            "minimum_per_second must be at least 0, got -1",
        ),
        (
            RatioBudget,
            {"ratio": 0, "minimum_per_second": 0},
            ValueError,
            "ratio or minimum_per_second must be greater than 0, got 0 for both",
        ),
    ],
)
def test_bad_construction(make: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        make(**options)
    assert str(caught.value) == message


@pytest.mark.parametrize("cost", [0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("budget", [TokenBudget(), RatioBudget()], ids=["token", "ratio"])
def test_costs_must_be_positive_and_finite(budget: RetryBudgetMachine, cost: float) -> None:
    before = budget.available(0.0)
    with pytest.raises(ValueError, match="cost must be"):
        budget.reserve(0.0, cost)
    with pytest.raises(ValueError, match="cost must be"):
        budget.cancel(0.0, cost, 0.0)
    assert budget.available(0.0) == before


def test_a_settled_cost_is_checked_whether_or_not_it_matters() -> None:
    for succeeded in (True, False):
        with pytest.raises(ValueError, match="cost must be greater than 0, got -1"):
            TokenBudget().settle(0.0, succeeded, -1.0)


# A metastable failure: 80 requests a second on a server of 100 a second, clients that give up after a second, and
# one dip to 30 a second for ten seconds. The server works off its queue in order, abandoned requests included.


@dataclass
class Request:
    left: int
    delay_state: BackoffState = START
    cost: float = 0.0


def goodput(retries: int, budget: RetryBudgetMachine | None, *, seconds: int = 100) -> list[int]:
    """Answers in time, per second of virtual time."""
    rng = random.Random(1)
    order = itertools.count()
    backoff = Backoff.full()
    # (when, tie-breaker, request, what happens): None is sent, True answered, False timed out.
    agenda: list[tuple[float, int, Request, bool | None]] = [
        (n / 80, next(order), Request(retries), None) for n in range(80 * seconds)
    ]
    answered = [0] * seconds
    server_free = 0.0
    while agenda and agenda[0][0] < seconds:
        now, _, request, event = heapq.heappop(agenda)
        if event is None:
            start = max(server_free, now)
            server_free = start + (1 / 30 if 20 <= start < 30 else 1 / 100)
            in_time = server_free <= now + 1.0
            heapq.heappush(agenda, (min(server_free, now + 1.0), next(order), request, in_time))
        elif event:
            answered[int(now)] += 1
            if budget:
                budget.settle(now, True, request.cost)
        elif request.left and (budget is None or budget.reserve(now, budget.transient_cost)):
            request.left -= 1
            request.cost = budget.transient_cost if budget else 0.0
            delay, request.delay_state = backoff.step(request.delay_state, rng.random())
            heapq.heappush(agenda, (now + delay, next(order), request, None))
        elif budget:
            budget.settle(now, False, request.cost)
    return answered


def at_the_end(answered: list[int]) -> float:
    return sum(answered[-20:]) / 20


def test_without_retries_a_dip_ends_by_itself() -> None:
    answered = goodput(0, None)
    assert sum(answered[22:30]) == 0
    assert at_the_end(answered) == pytest.approx(80, abs=1)


def test_with_free_retries_a_dip_never_ends() -> None:
    answered = goodput(3, None)
    assert sum(answered[:20]) / 20 == pytest.approx(80, abs=1)
    assert at_the_end(answered) == 0


@pytest.mark.parametrize(
    "make", [TokenBudget, lambda: RatioBudget(0.1, minimum_per_second=0.5)], ids=["token", "ratio"]
)
def test_with_a_budget_a_dip_ends_by_itself(make: Any) -> None:
    assert at_the_end(goodput(3, make())) == pytest.approx(80, abs=1)


def test_a_ratio_budget_only_helps_if_the_dependency_can_carry_what_it_allows() -> None:
    """Finagle's defaults allow 80 * 1.2 + 10 = 106 a second: too much for this server."""
    assert at_the_end(goodput(3, RatioBudget())) == 0
