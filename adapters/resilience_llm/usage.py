"""What an answer has used so far: from its `usage`, and from the text of a stream that has not told it yet.

meter = Meter(ANTHROPIC)
meter.see({"type": "message_start", "message": {"usage": {"input_tokens": 12, "output_tokens": 1}}})
meter.used(estimate)       # Estimate(input=12.0, output=1.0)
"""

from __future__ import annotations

from typing import Any, cast

from .estimate import CHARACTERS_PER_TOKEN, Estimate, amount
from .profile import Profile

_TEXT = ("choices", "content", "output", "delta", "completion")
"""Fields of an answer, or of an event, with what the model has written."""
_NO_TEXT = frozenset({"type", "role", "id", "index", "signature", "finish_reason", "stop_reason", "logprobs", "name"})


class Meter:
    """Counts what one answer uses. Numbers of a provider are totals so far: the last one counts."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._said: dict[str, float] = {}
        self._since = 0
        """Characters written since the provider last told its count."""
        self.seen: bool = False
        """Whether anything was understood."""

    def see(self, part: Any) -> None:
        """Take in a whole answer, or one event of a stream. Never raises, whatever it is."""
        if not isinstance(part, dict):
            return
        answer = cast("dict[str, Any]", part)
        self.seen = True
        self._since += sum(_written(answer.get(field)) for field in _TEXT)
        for path in self._profile.usage_paths:
            usage: Any = answer
            for name in path:
                usage = cast("dict[str, Any]", usage).get(name) if isinstance(usage, dict) else None
            if isinstance(usage, dict):
                self._tell(cast("dict[str, Any]", usage))

    def used(self, estimate: Estimate) -> Estimate:
        """Tokens used up to now; the input is that of the estimate if nothing was said about it."""
        given = _total(self._said, self._profile.input_fields)
        written = _total(self._said, self._profile.output_fields) or 0.0
        return Estimate(estimate.input if given is None else given, written + self._since / CHARACTERS_PER_TOKEN)

    def _tell(self, usage: dict[str, Any]) -> None:
        told = {name: amount(value) for name, value in usage.items() if isinstance(value, int | float)}
        self._said.update(told)
        if any(name in told for fields in self._profile.output_fields for name in fields):
            self._since = 0


def _total(said: dict[str, float], groups: tuple[tuple[str, ...], ...]) -> float | None:
    found = [next((said[name] for name in names if name in said), None) for names in groups]
    numbers = [each for each in found if each is not None]
    return sum(numbers) if numbers else None


def _written(value: Any) -> int:
    """Characters of the text in a part of an answer, without what only describes it."""
    total, left = 0, [value]
    while left:
        each: Any = left.pop()
        if isinstance(each, str):
            total += len(each)
        elif isinstance(each, dict):
            named = cast("dict[str, Any]", each)
            left += [part for name, part in named.items() if name not in _NO_TEXT]
        elif isinstance(each, list):
            left += each
    return total
