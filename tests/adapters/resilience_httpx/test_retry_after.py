from __future__ import annotations

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience_httpx import FAILURES, THROTTLED, advised_delay, http_classifier
from tests.support.rules import LONG

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
        ("999999999", 999_999_999.0),
        ("1m3.5s", 63.5),
        ("60ms", 0.06),
        ("6m0s", 360.0),
        ("1h0m0.5s", 3600.5),
        ("1d", 86_400.0),
        ("250us", 0.00025),
        ("250\u00b5s", 0.00025),
        ("250\u03bcs", 0.00025),
        ("100ns", 1e-7),
        ("1994-11-06T08:50:37Z", 60.0),
        ("1994-11-06t08:50:37z", 60.0),
        ("1994-11-06 08:50:37.250", 60.25),
        ("1994-11-06T08:50:37.250000999Z", 60.25),
        ("1994-11-06T10:50:37+02:00", 60.0),
        ("1994-11-06T08:49:00Z", 0.0),
    ],
)
def test_values_that_are_understood(value: str, delay: float) -> None:
    assert advised_delay({"retry-after": value}, NOW) == pytest.approx(delay, rel=1e-12)


@pytest.mark.parametrize(
    ("value", "delay"),
    [("1700000060", 60.0), ("1700000060.5", 60.5), ("1700000060500", 60.5), ("1600000000", 0.0), ("1000000000", 0.0)],
)
def test_numbers_too_large_for_a_pause_are_moments(value: str, delay: float) -> None:
    assert advised_delay({"retry-after": value}, 1_700_000_000.0) == delay
    assert advised_delay({"x-ratelimit-reset": value}, 1_700_000_000.0) == delay


@pytest.mark.parametrize(
    "value",
    [
        *("", "-1", "+1", "1e3", "0x10", "nan", "inf", "1,5", "5, 5", "١٢", "9" * 400, "soon", ":", "Sun, 06 Nov"),
        "Sun, 99 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 99999 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 +999999",
        *(
            "1x",
            "s",
            "1 s",
            "1m 3s",
            "-1s",
            "1m3",
            "ms60",
            "1994-11-06",
            "1994-13-06T08:49:37Z",
            "1994-11-06T25:00:00Z",
        ),
        *("1" * 101, "1s" * 60, "0000-01-01T00:00:00Z", "1994-11-06T08:49:37+99:99"),
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


OPENAI = {
    "x-ratelimit-remaining-requests": "0",
    "x-ratelimit-reset-requests": "1m3.5s",
    "x-ratelimit-remaining-tokens": "149984",
    "x-ratelimit-reset-tokens": "6m0s",
}
ANTHROPIC = {
    "anthropic-ratelimit-requests-remaining": "12",
    "anthropic-ratelimit-requests-reset": "1994-11-06T08:59:37Z",
    "anthropic-ratelimit-input-tokens-remaining": "0",
    "anthropic-ratelimit-input-tokens-reset": "1994-11-06T08:50:37Z",
    "anthropic-ratelimit-output-tokens-remaining": "0",
    "anthropic-ratelimit-output-tokens-reset": "1994-11-06T08:50:07Z",
}


@pytest.mark.parametrize(
    ("headers", "delay"),
    [
        (OPENAI, 63.5),
        ({**OPENAI, "x-ratelimit-remaining-tokens": "0"}, 360.0),
        ({**OPENAI, "x-ratelimit-remaining-requests": "1"}, None),
        ({**OPENAI, "retry-after": "2"}, 2.0),
        ({**OPENAI, "retry-after": "soon"}, 63.5),
        (ANTHROPIC, 60.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "60"}, 60.0),
        ({"x-rate-limit-reset": "30"}, 30.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "7"}, 7.0),
        ({"ratelimit": '"burst";r=4;t=9, "day";r=0;t=40'}, 40.0),
        ({"ratelimit": '"default";r=5;t=30'}, None),
        ({"ratelimit": '"default";t=30'}, 30.0),
        ({"ratelimit": "limit=10, remaining=0, reset=5"}, None),
        ({"x-ratelimit-reset": "rubbish"}, None),
    ],
)
def test_limits_that_are_used_up(headers: dict[str, str], delay: float | None) -> None:
    assert advised_delay(headers, NOW) == delay


def test_a_failure_is_not_delayed_by_limits_that_were_not_its_reason() -> None:
    assert advised_delay({"x-ratelimit-reset": "30"}, NOW, throttled=False) is None
    assert advised_delay({"ratelimit": '"default";t=30'}, NOW, throttled=False) is None
    assert advised_delay({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "30"}, NOW, throttled=False) == 30.0
    assert advised_delay({"retry-after": "30"}, NOW, throttled=False) == 30.0


NAMES = [
    *("retry-after", "retry-after-ms", "date", "ratelimit", "ratelimit-reset", "x-ratelimit-reset"),
    *("x-ratelimit-remaining", "x-ratelimit-reset-tokens", "x-rate-limit-reset"),
    *("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
]
LIKELY = st.text("0123456789.:-+TZ hmsund\u00b5;=rt,JanSu", max_size=40)
EXAMPLES = settings(max_examples=5000 if LONG else 300, deadline=None)


@EXAMPLES
@given(st.dictionaries(st.sampled_from(NAMES), st.text() | LIKELY))
def test_nothing_raises(headers: dict[str, str]) -> None:
    delay = advised_delay(headers, NOW)
    assert delay is None or 0.0 <= delay < float("inf")


@EXAMPLES
@given(st.dictionaries(st.sampled_from(NAMES), st.binary(max_size=200) | LIKELY.map(str.encode)), st.integers(100, 999))
def test_no_bytes_that_a_server_may_send_make_the_classifier_raise(headers: dict[str, bytes], status: int) -> None:
    raw = [(name.encode(), value) for name, value in headers.items()]
    advice = http_classifier().advice(httpx2.Response(status, headers=raw), None)
    assert (advice is None) == (status not in FAILURES | THROTTLED)
    if advice is not None:
        assert advice.delay is None or 0.0 <= advice.delay < float("inf")
