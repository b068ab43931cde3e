from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience_httpx import advised_delay

NOW = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT


@pytest.mark.parametrize(
    ("value", "delay"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("1.5", 1.5),
        (" 3 ", 3.0),
        (".5", 0.5),
        ("2.", 2.0),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60.0),
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60.0),
        ("Sun Nov  6 08:50:37 1994", 60.0),
        ("Sun, 06 Nov 1994 08:50:37", 60.0),
        ("Sun, 06 Nov 1994 10:50:37 +0200", 60.0),
        ("Sun, 06 Nov 1994 08:49:00 GMT", 0.0),
        ("99999999999", 99_999_999_999.0),
    ],
)
def test_values_that_are_understood(value: str, delay: float) -> None:
    assert advised_delay({"retry-after": value}, NOW) == delay


@pytest.mark.parametrize(
    "value",
    [
        *("", "-1", "+1", "1e3", "0x10", "nan", "inf", "1,5", "5, 5", "١٢", "9" * 400, "soon", ":", "Sun, 06 Nov"),
        "Sun, 99 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 99999 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 +999999",
    ],
)
def test_values_that_are_not_understood_count_as_absent(value: str) -> None:
    assert advised_delay({"retry-after": value}, NOW) is None
    assert advised_delay({"retry-after-ms": value}, NOW) is None


def test_milliseconds_go_first_if_they_are_understood() -> None:
    assert advised_delay({"retry-after-ms": "1500", "retry-after": "2"}, NOW) == 1.5
    assert advised_delay({"retry-after-ms": "soon", "retry-after": "2"}, NOW) == 2.0
    assert advised_delay({}, NOW) is None


def test_a_date_is_compared_with_the_date_of_the_response() -> None:
    headers = {"retry-after": "Sun, 06 Nov 1994 08:50:37 GMT", "date": "Sun, 06 Nov 1994 08:50:27 GMT"}
    assert advised_delay(headers, NOW) == 10.0
    assert advised_delay({**headers, "date": "today"}, NOW) == 60.0


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "date"]), st.text()))
def test_nothing_raises(headers: dict[str, str]) -> None:
    delay = advised_delay(headers, NOW)
    assert delay is None or 0.0 <= delay < float("inf")
