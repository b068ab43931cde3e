from __future__ import annotations

import dataclasses
import math
import random
import statistics
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.machines.backoff import START, Backoff, BackoffState

JITTERED = [Backoff.full, Backoff.equal, Backoff.decorrelated, Backoff.decorrelated_v2]
ALL = [*JITTERED, Backoff.exponential, Backoff.linear]
KINDS = ["full", "equal", "decorrelated", "decorrelated_v2", "exponential", "linear", "constant", "none"]

almost_one = math.nextafter(1.0, 0.0)
draws = st.floats(0.0, almost_one)


def delays(backoff: Backoff, draws: list[float]) -> list[float]:
    state, result = START, list[float]()
    for draw in draws:
        delay, state = backoff.step(state, draw)
        result.append(delay)
    return result


@pytest.mark.parametrize(
    ("backoff", "draw", "expected"),
    [
        (Backoff.full(1, 10), 0.5, [0.5, 1, 2, 4, 5, 5]),
        (Backoff.full(1, 10), 0.0, [0, 0, 0, 0, 0, 0]),
        (Backoff.equal(1, 10), 0.0, [0.5, 1, 2, 4, 5, 5]),
        (Backoff.equal(1, 10), 0.5, [0.75, 1.5, 3, 6, 7.5, 7.5]),
        (Backoff.decorrelated(1, 10), 0.0, [1, 1, 1, 1, 1, 1]),
        (Backoff.decorrelated(1, 10), 0.5, [2, 3.5, 5.5, 5.5, 5.5, 5.5]),
        (Backoff.exponential(1, 10), 0.5, [1, 2, 4, 8, 10, 10]),
        (Backoff.linear(1, 4), 0.5, [1, 2, 3, 4, 4, 4]),
        (Backoff.constant(1.5), 0.5, [1.5] * 6),
        (Backoff.none(), 0.5, [0.0] * 6),
    ],
    ids=repr,
)
def test_table(backoff: Backoff, draw: float, expected: list[float]) -> None:
    assert delays(backoff, [draw] * 6) == pytest.approx(expected)


def test_decorrelated_v2_follows_the_published_curve_below_the_cap() -> None:
    """Reference values from the formula as published: base / 1.4 * (f(n + u) - f(n - 1 + u'))."""

    def f(t: float) -> float:
        return 2**t * math.tanh(math.sqrt(4 * t))

    u = [0.3, 0.9, 0.1, 0.6, 0.5]
    points = [f(n + draw) for n, draw in enumerate(u)]
    expected = [(b - a) / 1.4 for a, b in zip([0.0, *points], points, strict=False)]
    assert delays(Backoff.decorrelated_v2(1.0, 1e6), u) == pytest.approx(expected)


def test_decorrelated_v2_has_medians_that_double() -> None:
    rng = random.Random(1)
    runs = [delays(Backoff.decorrelated_v2(1.0, 1e6), [rng.random() for _ in range(5)]) for _ in range(4000)]
    medians = [statistics.median(run[n] for run in runs) for n in range(5)]
    assert medians == pytest.approx([1, 1, 2, 4, 8], rel=0.15)


@pytest.mark.parametrize("make", ALL)
@settings(deadline=None)
@given(
    base=st.floats(1e-6, 1e6),
    factor=st.floats(1.0, 1e9),
    sequence=st.lists(draws, min_size=1, max_size=60),
)
def test_delays_stay_between_zero_and_the_cap(make: Any, base: float, factor: float, sequence: list[float]) -> None:
    cap = base * factor
    assert all(0.0 <= delay <= cap * (1 + 1e-12) for delay in delays(make(base, cap), sequence))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("retries", [10, 1023, 1024, 5000, 10**6, 10**400])
@pytest.mark.parametrize("draw", [0.0, almost_one])
def test_huge_numbers_of_retries_do_not_overflow(kind: Any, retries: int, draw: float) -> None:
    backoff = Backoff(kind, 0.05, 20.0)
    delay, state = backoff.step(BackoffState(retries, 0.5), draw)
    assert 0.0 <= delay <= 20.0
    assert state.retries == retries + 1


@pytest.mark.parametrize("make", ALL)
def test_the_extremes_of_doubles_are_survived(make: Any) -> None:
    rng = random.Random(2)
    for base, cap in [(1e-300, 1e300), (1e300, 1e308), (5e-324, 1.0)]:
        result = delays(make(base, cap), [rng.random() for _ in range(3000)])
        assert all(0.0 <= delay <= cap for delay in result)


@pytest.mark.parametrize("make", JITTERED)
def test_the_cap_comes_before_the_jitter(make: Any) -> None:
    """Clients that have been failing for long must not all wait exactly the cap."""
    rng = random.Random(3)
    late = [delays(make(0.05, 20.0), [rng.random() for _ in range(30)])[-1] for _ in range(2000)]
    assert len(set(late)) == len(late)
    assert max(late) <= 20.0
    assert statistics.stdev(late) > 2.0
    assert sum(delay > 0.99 * 20.0 for delay in late) < 0.05 * len(late)


@pytest.mark.parametrize(
    ("make", "mean", "low", "high"),
    [
        # The third retry with base 1: 2**2 = 4 seconds before jitter.
        (Backoff.full, 2.0, 0.0, 4.0),
        (Backoff.equal, 3.0, 2.0, 4.0),
    ],
)
def test_distribution(make: Any, mean: float, low: float, high: float) -> None:
    rng = random.Random(4)
    sample = [delays(make(1.0, 20.0), [0.0, 0.0, rng.random()])[2] for _ in range(4000)]
    assert statistics.fmean(sample) == pytest.approx(mean, rel=0.03)
    assert low <= min(sample) < low + 0.05 * high
    assert high >= max(sample) > 0.95 * high
    middle = statistics.quantiles(sample, n=4)
    expected = [low + (high - low) * quarter for quarter in (0.25, 0.5, 0.75)]
    assert middle == pytest.approx(expected, rel=0.08)


def test_decorrelated_depends_on_the_previous_delay() -> None:
    backoff = Backoff.decorrelated(1.0, 100.0)
    low, _ = backoff.step(backoff.step(START, 0.0)[1], 0.5)
    high, _ = backoff.step(backoff.step(START, 0.99)[1], 0.5)
    assert [low, high] == pytest.approx([2.0, 4.97])


def test_decorrelated_v2_with_a_cap_near_the_base_is_full_jitter_below_the_cap() -> None:
    backoff = Backoff.decorrelated_v2(1.0, 1.0)
    assert delays(backoff, [almost_one] * 4) == pytest.approx([1.0] * 4)
    assert delays(backoff, [0.0] * 4) == [0.0] * 4


def test_defaults() -> None:
    assert Backoff() == Backoff.full() == Backoff(kind="full", base=0.05, cap=20.0)
    for make in ALL:
        assert (make().base, make().cap) == (0.05, 20.0)


def test_it_is_immutable_and_hashable() -> None:
    backoff = Backoff.full()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(backoff, "base", 2.0)  # noqa: B010 - a plain assignment would not pass the type checker
    assert len({backoff, Backoff.full(), Backoff.equal()}) == 2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("full", 0), ValueError, "base must be greater than 0, got 0"),
        (("full", -1.0), ValueError, "base must be greater than 0, got -1.0"),
        (("full", math.nan), ValueError, "base must be finite, got nan"),
        (("full", 1.0, math.inf), ValueError, "cap must be finite, got inf"),
        (("full", 1.0, 0.5), ValueError, "cap must be at least base (1.0), got 0.5"),
        (("full", True), TypeError, "base must be a number, got True"),
        (("full", 1.0, "2"), TypeError, "cap must be a number, got '2'"),
        (("fibonacci",), ValueError, f"kind must be one of {', '.join(KINDS)}, got 'fibonacci'"),
    ],
)
def test_bad_input(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        Backoff(*arguments)
    assert str(caught.value) == message


def test_bad_constant() -> None:
    with pytest.raises(ValueError, match="delay must be greater than 0, got 0"):
        Backoff.constant(0)
