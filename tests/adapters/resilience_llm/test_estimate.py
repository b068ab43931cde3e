"""Estimates: close for text, capped by what the request allows, and never an error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience_llm import Estimate, ModelCall, estimate_tokens
from tests.support.json_values import JSON_OBJECTS


def call(path: str = "/v1/chat/completions", size: int = 0, **body: Any) -> ModelCall:
    return ModelCall(path, body, size=size)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (call(messages=[{"role": "user", "content": "x" * 396}], max_tokens=50), (104, 50)),
        (call(messages=[{"content": [{"type": "text", "text": "x" * 36}]}], max_completion_tokens=7), (14, 7)),
        (call(messages=[], max_completion_tokens=7, max_tokens=9), (0, 7)),
        (call(messages=[], max_tokens=7, n=3), (0, 21)),
        (call(messages=[]), (0, 1000)),
        (call("/v1/messages", system="x" * 40, messages=[], max_tokens=9), (10, 9)),
        (call("/v1/responses", input="x" * 40, instructions="y" * 4, max_output_tokens=9), (11, 9)),
        (call("/v1/embeddings", input=["x" * 40, "y" * 4]), (11, 0)),
        (call("/v1/embeddings", input=[[1, 2, 3], [4]]), (4, 0)),
        (call(messages=[{"image_url": {"url": "data:image/png;base64," + "A" * 9999}}], max_tokens=1), (1004, 1)),
        (call(messages=[{"source": {"data": "A" * 99_999}}], max_tokens=1), (1004, 1)),
        (call(messages=[], max_tokens=True, n="many"), (0, 1000)),
        (call(messages=[], max_tokens=float("nan")), (0, 1000)),
        (call(messages=[], max_tokens=1e300), (0, 1e8)),
        (call(size=400), (100, 1000)),
    ],
)
def test_what_is_estimated(asked: ModelCall, expected: tuple[float, float]) -> None:
    assert estimate_tokens(asked) == Estimate(*expected)


@given(JSON_OBJECTS, st.sampled_from(["/v1/messages", "/v1/embeddings"]))
def test_whatever_is_asked_has_an_estimate(body: dict[str, Any], path: str) -> None:
    inward, outward = estimate_tokens(ModelCall(path, body, size=10))
    assert inward >= 0
    assert outward >= 0
