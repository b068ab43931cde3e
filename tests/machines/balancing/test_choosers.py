from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.machines.balancing import EndpointState, chooser

from .support import endpoints

draws = st.floats(0, 1, exclude_max=True)


def names(strategy: Any, given: list[EndpointState], count: int, **options: Any) -> str:
    choose = chooser(strategy, **options).choose
    return "".join(choose(given, 0.0, (step + 0.5) / count, None).name for step in range(count))


def test_round_robin_takes_turns_whatever_the_weights() -> None:
    assert names("round_robin", endpoints(1, 5, 1), 7) == "abcabca"


def test_weighted_mixes_evenly() -> None:
    assert names("weighted", endpoints(5, 1, 1), 14) == "aabacaa" * 2


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_weighted_is_exact_over_a_round(weights: list[int]) -> None:
    counts = Counter(names("weighted", endpoints(*weights), sum(weights)))
    assert [counts[name] for name in "abcdefgh"[: len(weights)]] == weights


def test_least_in_flight_looks_at_load_and_weight() -> None:
    a, b, c = endpoints(1, 1, 4)
    for _ in range(3):
        c.begin(0.0)
    assert names("least_in_flight", [a, b, c], 6) == "aabbcc"  # 1/1, 1/1, 4/4
    a.begin(0.0)
    c.begin(0.0)
    assert names("least_in_flight", [a, b, c], 3) == "bbb"


def test_two_choices_takes_the_cheaper_of_each_pair() -> None:
    a, b, c = endpoints(1, 1, 1)
    for endpoint, latency in ((a, 0.1), (b, 0.2), (c, 0.3)):
        endpoint.observe(latency, 0.0, 10.0)
    assert Counter(names("two_choices", [a, b, c], 600)) == {"a": 400, "b": 200}


def test_two_choices_of_equals_are_even_and_of_one_no_choice() -> None:
    assert Counter(names("two_choices", endpoints(1, 1, 1, 1), 1200)) == dict.fromkeys("abcd", 300)
    assert names("two_choices", endpoints(1), 3) == "aaa"


@given(st.integers(2, 10), draws)
def test_two_choices_are_two(count: int, draw: float) -> None:
    made = endpoints(*[1] * count)
    for endpoint in made[1:]:
        endpoint.begin(0.0)
    chosen = chooser("two_choices").choose(made, 0.0, draw, None)
    assert chosen in made


def test_consistent_hash_keeps_a_key_where_it_is() -> None:
    made = endpoints(*[1] * 5)
    choose = chooser("consistent_hash").choose
    homes = {str(key): choose(made, 0.0, 0.9, str(key)) for key in range(500)}
    assert len({id(home) for home in homes.values()}) == 5
    for key, home in homes.items():
        rest = made[1:]
        if home is not made[0]:
            assert choose(rest, 0.0, 0.1, key) is home


def test_consistent_hash_without_a_key_is_random() -> None:
    assert names("consistent_hash", endpoints(1, 1), 4) == "aabb"


@given(st.integers(1, 6), st.lists(st.sampled_from("xyz"), max_size=60), st.floats(1, 3))
def test_bounded_loads_are_bounded(count: int, keys: list[str], bound: float) -> None:
    made = endpoints(*[1] * count)
    choose = chooser("consistent_hash", bound=bound).choose
    for total, key in enumerate(keys, 1):
        chosen = choose(made, 0.0, 0.0, key)
        chosen.begin(0.0)
        assert chosen.in_flight < bound * total / count + 1 + 1e-9


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"strategy": "random"}, ValueError, "strategy must be one of 'round_robin'"),
        ({"strategy": "two_choices", "decay": 0}, ValueError, "decay must be greater than 0"),
        ({"strategy": "consistent_hash", "bound": 0.5}, ValueError, "bound must be at least 1"),
        ({"strategy": "weighted", "bound": 2}, ValueError, "bound must be left out unless"),
    ],
)
def test_wrong_options_are_refused(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        chooser(**options)
