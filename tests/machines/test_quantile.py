from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.machines.quantile import GROWTH, LEAST, MOST, LatencyMachine, Quantile

latencies = st.floats(LEAST, MOST)


def taught(rule: Quantile, values: list[float], now: float = 0.0) -> LatencyMachine:
    machine = LatencyMachine(rule)
    for value in values:
        machine.record(now, value)
    return machine


def exact(values: list[float], q: float) -> float:
    """The least value that a share `q` of all is not above."""
    return sorted(values)[math.ceil(q * len(values)) - 1]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"q": 0}, ValueError, "q must be greater than 0, got 0"),
        ({"q": 1}, ValueError, "q must be less than 1, got 1"),
        ({"q": "0.5"}, TypeError, "q must be a number, got '0.5'"),
        ({"start": 0}, ValueError, "start must be greater than 0, got 0"),
        ({"samples": 0}, ValueError, "samples must be at least 1, got 0"),
        ({"window": math.inf}, ValueError, "window must be finite, got inf"),
        ({"least": -1}, ValueError, "least must be greater than 0, got -1"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Quantile(**options)


@settings(deadline=None)
@given(values=st.lists(latencies, min_size=1, max_size=200), q=st.floats(0.01, 0.99))
def test_the_answer_is_the_quantile_or_a_little_more(values: list[float], q: float) -> None:
    machine = taught(Quantile(q, samples=1, least=LEAST), values)
    answer = machine.delay(0.0)
    assert answer is not None
    assert exact(values, q) * (1 - 1e-9) <= answer <= max(exact(values, q) * GROWTH, LEAST) * (1 + 1e-9)
    assert machine.count == len(values)


@settings(deadline=None)
@given(history=st.lists(st.tuples(st.integers(0, 40), latencies), min_size=1, max_size=300))
def test_the_window_covers_all_of_the_last_half_and_nothing_that_is_twice_as_old(
    history: list[tuple[int, float]],
) -> None:
    """With one sample enough, halves turn by the time alone."""
    rule = Quantile(0.5, samples=1, window=60.0, least=LEAST)
    machine = LatencyMachine(rule)
    now = 0.0
    seen: list[tuple[float, float]] = []
    for step, value in history:
        now += step
        machine.record(now, value)
        seen.append((now, value))
        answer = machine.delay(now)
        assert answer is not None
        # A half lasts as long as there is nothing new, so what is old is told by the samples since.
        assert 1 <= machine.count <= len(seen)
        assert machine.count >= sum(1 for at, _ in seen if now - at < 30.0)
        assert min(v for _, v in seen) * (1 - 1e-9) <= answer <= max(v for _, v in seen) * GROWTH * (1 + 1e-9)


def test_before_there_are_enough_samples_it_says_what_it_was_told() -> None:
    assert taught(Quantile(samples=3), [1.0, 1.0]).delay(0.0) is None
    assert taught(Quantile(samples=3, start=0.2), [1.0, 1.0]).delay(0.0) == 0.2
    assert taught(Quantile(samples=3, start=0.2), [1.0] * 3).delay(0.0) == pytest.approx(1.0, rel=0.05)


def test_it_is_never_below_the_least() -> None:
    assert taught(Quantile(samples=1, least=0.5), [0.01]).delay(0.0) == 0.5


def test_it_follows_a_change_within_a_window() -> None:
    machine = LatencyMachine(Quantile(0.95, window=60.0))
    for second in range(120):
        machine.record(float(second), 0.1)
    assert machine.delay(120.0) == pytest.approx(0.1, rel=0.05)
    for second in range(120, 190):
        machine.record(float(second), 1.0)
    assert machine.delay(190.0) == pytest.approx(1.0, rel=0.05)
    for second in range(190, 260):
        machine.record(float(second), 0.1)
    assert machine.delay(260.0) == pytest.approx(0.1, rel=0.05)


def test_what_is_rarely_called_is_not_forgotten() -> None:
    machine = taught(Quantile(samples=20), [0.1] * 20)
    for hour in range(1, 10):
        machine.record(3600.0 * hour, 0.1)
        assert machine.delay(3600.0 * hour) == pytest.approx(0.1, rel=0.05)
    assert machine.count == 29


def test_a_clock_that_steps_back_does_no_harm() -> None:
    machine = taught(Quantile(samples=1), [0.1], now=1000.0)
    machine.record(0.0, 0.1)
    assert machine.count == 2
    assert machine.delay(0.0) == pytest.approx(0.1, rel=0.05)


def test_an_answer_lasts_for_a_sixteenth_more_samples() -> None:
    machine = taught(Quantile(0.5, samples=1), [0.1] * 160)
    before = machine.delay(0.0)
    for _ in range(10):
        machine.record(0.0, 5.0)
        assert machine.delay(0.0) == before
    for _ in range(200):
        machine.record(0.0, 5.0)
    assert machine.delay(0.0) == pytest.approx(5.0, rel=0.05)


@pytest.mark.parametrize(("latency", "counted"), [(0.0, LEAST), (-1.0, LEAST), (1e-9, LEAST), (math.inf, MOST)])
def test_absurd_latencies_are_counted_as_the_shortest_or_longest(latency: float, counted: float) -> None:
    answer = taught(Quantile(samples=1, least=LEAST / 10), [latency]).delay(0.0)
    assert answer == pytest.approx(counted, rel=0.05)


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="latency must be a number, got nan"):
        LatencyMachine(Quantile()).record(0.0, math.nan)


def test_its_memory_is_bounded() -> None:
    machine = LatencyMachine(Quantile())
    for n in range(20_000):
        machine.record(n / 100, LEAST * 1.001 ** (n % 25_000))
    machine.delay(200.0)
    assert max(len(machine._counts), len(machine._old)) <= math.log(MOST / LEAST) / math.log(GROWTH) + 2
