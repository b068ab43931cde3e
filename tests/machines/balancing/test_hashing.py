from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from resilience.machines.balancing import fraction, rank

KEYS = [f"user-{number}" for number in range(4000)]


def first(key: str, **weights: float) -> str:
    return rank(key, weights)[0]


@given(st.text())
def test_a_fraction_is_between_0_and_1_and_always_the_same(text: str) -> None:
    assert 0 < fraction(text) < 1
    assert fraction(text) == fraction(text)


def test_fractions_are_those_of_every_process_and_version() -> None:
    assert round(fraction("user-7"), 9) == 0.245394707


def test_names_get_keys_by_their_weights() -> None:
    counts = Counter(first(key, a=1, b=2, c=5) for key in KEYS)
    for name, part in (("a", 1 / 8), ("b", 2 / 8), ("c", 5 / 8)):
        assert abs(counts[name] / len(KEYS) - part) < 0.03


def test_a_weight_of_0_gets_nothing() -> None:
    assert rank("x", {"a": 0, "b": 1}) == ["b"]
    assert rank("x", {}) == []


def test_a_larger_weight_moves_keys_only_to_it() -> None:
    for key in KEYS:
        before, after = first(key, a=95, b=5), first(key, a=95, b=20)
        assert after in (before, "b")


def test_a_new_name_takes_keys_and_moves_no_other() -> None:
    moved = [key for key in KEYS if first(key, a=1, b=1, c=1) != first(key, a=1, b=1, c=1, d=1)]
    assert {first(key, a=1, b=1, c=1, d=1) for key in moved} == {"d"}
    assert abs(len(moved) / len(KEYS) - 1 / 4) < 0.03


def test_without_its_first_choice_a_key_goes_to_the_second() -> None:
    for key in KEYS[:200]:
        order = rank(key, {"a": 1, "b": 2, "c": 3})
        assert (
            rank(key, {name: weight for name, weight in (("a", 1), ("b", 2), ("c", 3)) if name != order[0]})
            == (order[1:])
        )
