from __future__ import annotations

import enum
import json
import math
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience import JsonCodec, PickleCodec
from resilience.caching.codecs import Codec


class Word(str):
    pass


class Number(enum.IntEnum):
    ONE = 1


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types."""
    return repr(one) == repr(other)


@pytest.mark.parametrize("codec", [JsonCodec(), PickleCodec()])
@given(value=plain)
def test_plain_data_come_back_as_they_were(codec: Codec, value: Any) -> None:
    text = codec.encode(value)
    assert text.isascii()
    assert same(codec.decode(text), value)


def test_surrogates_come_back_too() -> None:
    assert JsonCodec().decode(JsonCodec().encode("\ud800")) == "\ud800"


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ((1,), "value is a tuple"),
        ({1}, "value is a set"),
        (b"x", "value is a bytes"),
        (date(2026, 1, 1), "value is a date"),
        (Word("x"), "value is a Word"),
        (Number.ONE, "value is a Number"),
        ({"a": [1, (2,)]}, r"value\['a'\]\[1\] is a tuple"),
        ({1: 2}, "value has the key 1: JSON has only strings as keys"),
        ({"a": {Word("b"): 2}}, r"value\['a'\] has the key 'b'"),
        ([math.nan], r"value\[0\] is nan: JSON has only finite numbers"),
        (-math.inf, "value is -inf"),
    ],
)
def test_json_refuses_what_it_would_change(value: Any, where: str) -> None:
    with pytest.raises((TypeError, ValueError), match=where):
        JsonCodec().encode(value)


def test_json_is_compact() -> None:
    assert JsonCodec().encode({"a": [1, 2.5, None, True, "é"]}) == '{"a":[1,2.5,null,true,"\\u00e9"]}'
    with pytest.raises(json.JSONDecodeError):
        JsonCodec().decode("no json")


def test_pickle_takes_all() -> None:
    value = {1: (2, {3}), "when": date(2026, 1, 1), "n": Number.ONE}
    assert same(PickleCodec().decode(PickleCodec().encode(value)), value)


def test_names_keep_forms_apart() -> None:
    assert (JsonCodec().name, PickleCodec().name) == ("json", "pickle")
