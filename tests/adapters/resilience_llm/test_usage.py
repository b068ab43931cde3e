"""What answers say they used, whole and in streams; and what is made of those that do not say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience_llm import ANTHROPIC, OPENAI, Estimate, Profile
from resilience_llm import sse as events
from resilience_llm.sse import EventReader
from resilience_llm.usage import Meter
from tests.support.json_values import JSON_VALUES

ESTIMATE = Estimate(100, 500)


def used(profile: Profile, *parts: Any) -> Estimate:
    meter = Meter(profile)
    for part in parts:
        meter.see(part)
    return meter.used(ESTIMATE)


def chunk(text: str, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"role": "assistant", "content": text}}], **more}


CHAT_USAGE = {"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46, "prompt_tokens_details": {"x": 1}}
CLAUDE_USAGE = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 5,
    "cache_read_input_tokens": 900,
    "output_tokens": 7,
}
STARTED: dict[str, Any] = {
    "type": "message_start",
    "message": {"content": [], "usage": {**CLAUDE_USAGE, "output_tokens": 1}},
}


def delta(text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


CASES: list[tuple[Profile, list[Any], tuple[float, float]]] = [
    (OPENAI, [{"choices": [{"message": {"content": "x" * 99}}], "usage": CHAT_USAGE}], (12, 34)),
    (OPENAI, [chunk("x" * 99, usage=None), {"choices": [], "usage": CHAT_USAGE}], (12, 34)),
    (OPENAI, [chunk("x" * 60), chunk("y" * 20)], (100, 20)),
    (OPENAI, [{"output": [], "usage": {"input_tokens": 3, "output_tokens": 4}}], (3, 4)),
    (OPENAI, [{"delta": "x" * 40}], (100, 10)),
    (OPENAI, [{"delta": "x" * 40}, {"response": {"usage": {"input_tokens": 3, "output_tokens": 4}}}], (3, 4)),
    (OPENAI, [{"data": [{"embedding": "x" * 999}], "usage": {"prompt_tokens": 8, "total_tokens": 8}}], (8, 0)),
    (OPENAI, [{"choices": [{"message": {"content": "x" * 40, "role": "assistant"}}]}], (100, 10)),
    (OPENAI, [chunk("x" * 40, usage={"prompt_tokens": 3, "completion_tokens": 10}), chunk("y" * 8)], (3, 12)),
    (OPENAI, [], (100, 0)),
    (ANTHROPIC, [{"content": [{"type": "text", "text": "x" * 99}], "usage": CLAUDE_USAGE}], (15, 7)),
    (ANTHROPIC, [STARTED], (15, 1)),
    (ANTHROPIC, [STARTED, delta("x" * 40)], (15, 11)),
    (ANTHROPIC, [STARTED, delta("x" * 40), {"delta": {}, "usage": {"output_tokens": 9}}], (15, 9)),
    (OPENAI, [{"usage": {"prompt_tokens": "12", "completion_tokens": -5}}], (100, 0)),
    (OPENAI, [{"usage": {"prompt_tokens": 1e300, "completion_tokens": float("nan")}}], (1e8, 0)),
    (OPENAI, [None, [], "usage", 7, {"usage": []}, {"response": 5}], (100, 0)),
]


@pytest.mark.parametrize(("profile", "parts", "expected"), CASES)
def test_what_was_used(profile: Profile, parts: list[Any], expected: tuple[float, float]) -> None:
    assert used(profile, *parts) == Estimate(*expected)


@given(st.lists(JSON_VALUES, max_size=5), st.sampled_from([OPENAI, ANTHROPIC]))
def test_nothing_that_is_answered_is_an_error(parts: list[Any], profile: Profile) -> None:
    inward, outward = used(profile, *parts)
    assert 0 <= inward < 1e9
    assert 0 <= outward < 1e9


@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9), min_size=1), max_size=5),
    st.sampled_from([b"\n", b"\r\n"]),
    st.lists(st.integers(0, 300), max_size=12),
)
def test_events_are_the_same_however_they_are_cut(values: list[Any], end: bytes, cuts: list[int]) -> None:
    stream = b": a comment" + end
    for value in values:
        # One value in two lines of data, which are joined by a line feed.
        head, tail = b"data: [", json.dumps(value).encode() + b"]"
        stream += b"event: delta" + end + head + end + b"data:" + tail + end + end
    stream += b"data: [DONE]" + end + end + b"data: 5"
    reader, found, place = EventReader(), list[Any](), 0
    for cut in (*sorted(cuts), len(stream)):
        found += reader.feed(stream[place:cut])
        place = max(place, cut)
    assert found == [[value] for value in values]


def test_the_last_event_needs_no_empty_line() -> None:
    reader = EventReader()
    assert reader.feed(b'data: {"a": 1}\n') == []
    assert reader.end() == [{"a": 1}]
    assert reader.end() == []


def test_an_event_too_long_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST", 100)
    reader = EventReader()
    assert reader.feed(b"data: " + b"1" * 200 + b"\n\n" + b"data: 2\n\n") == [2]


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_no_bytes_are_an_error(chunks: list[bytes]) -> None:
    reader = EventReader()
    for each in chunks:
        reader.feed(each)
    reader.end()
