"""How many tokens a request may use, before it is sent.

    estimate_tokens(call)      # Estimate(input=12.0, output=500.0)

Four characters are about one token of English. The output is estimated by the most that the request allows. Only an
estimate: what was not used is given back when the answer says so.
"""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, NamedTuple, cast

from .model_call import ModelCall

CHARACTERS_PER_TOKEN = 4
DEFAULT_OUTPUT = 1_000
"""Tokens that an answer is expected to have if the request sets no limit."""
ATTACHMENT = 1_000
"""Tokens of an image or document that comes in the request."""
_OVERHEAD = 4
"""Tokens that mark the beginning and end of a message."""
_INPUT = ("messages", "system", "input", "prompt", "instructions", "tools", "functions")
_OUTPUT = ("max_completion_tokens", "max_output_tokens", "max_tokens")


class Estimate(NamedTuple):
    """Tokens of one request, of its input and of its output."""

    input: float
    output: float


def estimate_tokens(call: ModelCall) -> Estimate:
    """The estimate of all profiles: characters / 4, and the `max_tokens` of the request, by whatever name.

    Without such a limit the answer counts 1,000 tokens, that of an embedding none; images and documents count
    1,000 each, already counted tokens as they are.
    """
    if not call.body:
        return Estimate(call.size / CHARACTERS_PER_TOKEN, DEFAULT_OUTPUT)
    characters = sum(characters_of(call.body.get(field)) for field in _INPUT)
    messages = call.body.get("messages")
    overhead = _OVERHEAD * len(messages) if isinstance(messages, Sized) else 0
    return Estimate(characters / CHARACTERS_PER_TOKEN + overhead, _output(call))


def characters_of(value: Any) -> int:
    """All characters of the strings in a JSON value; a number counts as a token, an attachment as many."""
    total, left = 0, [value]
    while left:
        each: Any = left.pop()
        if isinstance(each, str):
            total += len(each) if not each.startswith("data:") else ATTACHMENT * CHARACTERS_PER_TOKEN
        elif isinstance(each, dict):
            # Binary data in base64 is `data` in both providers' formats.
            named = cast("dict[str, Any]", each)
            left += [part if name != "data" else "data:" for name, part in named.items()]
        elif isinstance(each, list):
            left += each
        elif isinstance(each, int | float) and not isinstance(each, bool):
            total += CHARACTERS_PER_TOKEN
    return total


def _output(call: ModelCall) -> float:
    if call.path.endswith("/embeddings"):
        return 0.0
    limits = [call.body.get(field) for field in _OUTPUT]
    most = next((each for each in limits if amount(each)), DEFAULT_OUTPUT)
    choices = call.body.get("n")
    return amount(most) * max(1.0, amount(choices))


def amount(value: Any) -> float:
    """A number of tokens as others write it; 0 for what is none, and never absurdly many."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        return 0.0
    return float(min(value, MOST))


MOST = 100_000_000
"""Tokens that no request uses: whoever says more is mistaken."""
