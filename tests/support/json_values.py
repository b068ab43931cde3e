"""Values of JSON for property tests, with the names that providers of models use as often as others."""

from __future__ import annotations

from hypothesis import strategies as st

_OF_USAGE = "prompt_tokens input_tokens output_tokens completion_tokens cache_creation_input_tokens"
_OTHERS = "usage message response choices delta content text type data n messages input max_tokens"
NAMES = st.sampled_from(f"{_OF_USAGE} {_OTHERS}".split())
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
JSON_OBJECTS = st.dictionaries(NAMES, JSON_VALUES, max_size=5)
