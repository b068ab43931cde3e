from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.machines.balancing import EndpointState

seconds = st.floats(0, 1000)


def observed(*latencies: tuple[float, float]) -> EndpointState:
    """An endpoint with these (latency, moment)."""
    endpoint = EndpointState("a")
    for latency, now in latencies:
        endpoint.observe(latency, now, decay=10.0)
    return endpoint


def test_what_is_slower_counts_at_once_and_what_is_faster_by_and_by() -> None:
    endpoint = observed((0.1, 0.0), (0.5, 1.0))
    assert endpoint.latency(1.0, 10.0) == 0.5
    endpoint.observe(0.1, 11.0, 10.0)
    assert endpoint.latency(11.0, 10.0) == pytest.approx(0.5 / math.e + 0.1 * (1 - 1 / math.e))


def test_an_average_fades_when_nothing_is_observed() -> None:
    endpoint = observed((1.0, 0.0))
    assert endpoint.latency(10.0, 10.0) == pytest.approx(1 / math.e)
    assert endpoint.latency(-5.0, 10.0) == 1.0  # a clock that stepped back fades nothing


@given(st.lists(st.tuples(seconds, seconds), min_size=1), seconds)
def test_the_average_is_between_0_and_the_slowest(latencies: list[tuple[float, float]], later: float) -> None:
    endpoint = observed(*latencies)
    assert 0 <= endpoint.latency(later, 10.0) <= max(latency for latency, _ in latencies) * (1 + 1e-9)


def test_cost_is_latency_times_load_over_weight() -> None:
    endpoint = observed((0.1, 0.0))
    assert endpoint.cost(0.0, 10.0) == 0.1
    tickets = [endpoint.begin(0.0), endpoint.begin(0.0)]
    assert endpoint.cost(0.0, 10.0) == pytest.approx(0.3)
    endpoint.weight = 2.0
    endpoint.failures = 3
    assert endpoint.cost(0.0, 10.0) == pytest.approx(0.6)
    assert [endpoint.finish(tickets[0]), endpoint.finish(tickets[0]), endpoint.in_flight] == [True, False, 1]


def test_a_request_under_way_for_long_counts_before_it_is_over() -> None:
    endpoint = observed((0.1, 0.0))
    endpoint.begin(0.0)
    endpoint.begin(4.0)
    assert endpoint.cost(5.0, 10.0) == pytest.approx(15.0)


def test_a_long_body_is_load_and_no_latency_if_that_is_wanted() -> None:
    endpoint = observed((0.1, 0.0))
    ticket, other = endpoint.begin(0.0), endpoint.begin(4.0)
    endpoint.answered(ticket)
    assert endpoint.cost(5.0, 10.0) == pytest.approx(3.0)
    assert [endpoint.finish(other), endpoint.finish(ticket), endpoint.finish(ticket)] == [True, True, False]
    endpoint.answered(ticket)
    assert endpoint.in_flight == 0


def test_an_unknown_endpoint_is_asked_once_and_then_waited_for() -> None:
    endpoint = EndpointState("a")
    assert not endpoint.known
    assert endpoint.cost(0.0, 10.0) == 0
    ticket = endpoint.begin(0.0)
    assert endpoint.cost(0.0, 10.0) > 1e8
    endpoint.finish(ticket)
    endpoint.observe(0.2, 0.2, 10.0)
    assert endpoint.known
    assert endpoint.cost(0.2, 10.0) == 0.2


def test_warmth_grows_from_a_tenth_to_1() -> None:
    endpoint = EndpointState("a")
    assert endpoint.warmth(0.0, 10.0) == 1
    endpoint.warming_since = 100.0
    assert [endpoint.warmth(now, 10.0) for now in (99, 100, 105, 110, 200)] == [0.1, 0.1, 0.5, 1, 1]
    assert endpoint.warmth(100, 0.0) == 1
