"""What headers say of limits, in all their forms; and that rubbish is nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience_llm import ANTHROPIC, OPENAI, Profile
from resilience_llm.headers import LONGEST, exhausted_for, number, seconds_until, told

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
OPENAI_HEADERS = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-remaining-requests": "59",
    "x-ratelimit-reset-requests": "1s",
    "x-ratelimit-remaining-tokens": "0",
    "x-ratelimit-reset-tokens": "1m3.5s",
}
ANTHROPIC_HEADERS = {
    "anthropic-ratelimit-requests-remaining": "0",
    "anthropic-ratelimit-requests-reset": "2027-01-15T08:00:30Z",
    "anthropic-ratelimit-input-tokens-remaining": "2000",
    "anthropic-ratelimit-output-tokens-remaining": "0",
    "anthropic-ratelimit-output-tokens-reset": "2027-01-15T08:00:20Z",
}
DRAFT = {"ratelimit": '"default";r=50;t=30', "ratelimit-policy": '"default";q=100;w=60'}
DRAFTS = {
    "ratelimit": '"per;minute, \\"all\\"";r=7;t=5, "burst";r=0;t=2, input-tokens;r=9',
    "ratelimit-policy": '"per;minute, \\"all\\"";q=10;qu="tokens", "burst";q=100;w=60;qu="requests"',
}


@pytest.mark.parametrize(
    ("headers", "profile", "expected"),
    [
        ({}, OPENAI, []),
        (OPENAI_HEADERS, OPENAI, [("requests", 59, 0), ("tokens", 0, 0)]),
        (OPENAI_HEADERS, ANTHROPIC, []),
        (ANTHROPIC_HEADERS, ANTHROPIC, [("requests", 0, 0), ("input_tokens", 2000, 0), ("output_tokens", 0, 0)]),
        (DRAFT, OPENAI, [("requests", 50, 30)]),
        (DRAFTS, OPENAI, [("tokens", 7, 5), ("requests", 0, 2), ("input_tokens", 9, 0)]),
        ({"ratelimit": "limit=100, remaining=50, reset=5"}, OPENAI, [("requests", 50, 5)]),
        ({"ratelimit": '"default";r=5;t=999999'}, OPENAI, []),
        ({"ratelimit": '"default";r=-5'}, OPENAI, []),
        ({"ratelimit": '"default;r=5'}, OPENAI, []),
        ({"x-ratelimit-remaining-tokens": "-1", "x-ratelimit-remaining-requests": "many"}, OPENAI, []),
    ],
)
def test_what_is_told(headers: dict[str, str], profile: Profile, expected: list[tuple[str, float, float]]) -> None:
    assert told(headers, profile) == expected


@pytest.mark.parametrize(
    ("headers", "profile", "expected"),
    [
        ({}, OPENAI, None),
        (OPENAI_HEADERS, OPENAI, 63.5),
        (ANTHROPIC_HEADERS, ANTHROPIC, 20.0),
        (DRAFTS, OPENAI, 2.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "soon"}, OPENAI, None),
    ],
)
def test_when_there_is_more(headers: dict[str, str], profile: Profile, expected: float | None) -> None:
    assert exhausted_for(headers, profile, NOW) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("60ms", 0.06),
        ("1m3.5s", 63.5),
        ("6m0s", 360.0),
        ("1h2m3s", 3723.0),
        ("7.66s", 7.66),
        (" 12 ", 12.0),
        ("0.5", 0.5),
        ("250us", 0.00025),
        ("2027-01-15T08:00:30Z", 30.0),
        ("2027-01-15T08:00:30.5+00:00", 30.5),
        ("2027-01-15T08:00:30", 30.0),
        ("2020-01-15T08:00:30Z", 0.0),
        ("2099-01-15T08:00:30Z", None),
        ("1d", 86_400.0),
        ("2d", None),
        ("999999999999999", None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("5x", None),
        ("1e5", None),
        ("nan", None),
        ("1" * 5000, None),
        ("9999-12-31T23:59:59-23:59", None),
        ("0001-01-01T00:00:00+23:59", 0.0),
    ],
)
def test_seconds(text: str, expected: float | None) -> None:
    assert seconds_until(text, NOW) == pytest.approx(expected)


ANYTHING = st.text(max_size=60) | st.text(alphabet='0123456789.smh;=,"\\rtqw- :TZ', max_size=60)
NAMES = st.sampled_from(sorted({*OPENAI_HEADERS, *ANTHROPIC_HEADERS, *DRAFT}))


@given(st.dictionaries(NAMES, ANYTHING), st.sampled_from([OPENAI, ANTHROPIC]))
def test_rubbish_never_raises(headers: dict[str, str], profile: Profile) -> None:
    for _, remaining, reset_after in told(headers, profile):
        assert 0 <= remaining <= 1e15
        assert 0 <= reset_after <= LONGEST
    pause = exhausted_for(headers, profile, NOW)
    assert pause is None or 0 <= pause <= LONGEST


@given(ANYTHING)
def test_a_number_is_one_or_none(text: str) -> None:
    found = number(text)
    assert found is None or 0 <= found < 1e15


def test_a_long_field_is_read_in_little_time() -> None:
    import time

    began = time.perf_counter()
    for hostile in ('"a' * 50_000, "a;" * 50_000, 'a;b="' + "\\" * 50_000, "1m" * 50_000, '"a";r=1,' * 50_000):
        headers = {"ratelimit": hostile, "x-ratelimit-reset-tokens": hostile, "x-ratelimit-remaining-tokens": "0"}
        told(headers, OPENAI)
        exhausted_for(headers, OPENAI, NOW)
    assert time.perf_counter() - began < 1.0
