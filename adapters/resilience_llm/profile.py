"""What differs between providers: paths, header names, the fields of `usage`.

    OURS = dataclasses.replace(OPENAI, name="ours", paths=("/generate",))

Everything is data, so that another provider is another `Profile`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .estimate import Estimate, estimate_tokens
from .model_call import ModelCall


@dataclass(frozen=True, slots=True)
class LimitFields:
    """The headers in which a provider tells the state of one limit."""

    dimension: str
    """What the limit counts: `requests`, `tokens`, `input_tokens` or `output_tokens`."""
    remaining: str
    """The header with what is left."""
    reset: str
    """The header with the time at which the limit is whole again: a duration (`1m3.5s`, `60ms`) or a date."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A provider, or a kind of API that several of them speak.

    Raises TypeError or ValueError for an empty name or no paths.
    """

    name: str
    paths: tuple[str, ...]
    """Ends of the paths of requests that are limited; all others pass untouched."""
    headers: tuple[LimitFields, ...] = ()
    input_fields: tuple[tuple[str, ...], ...] = (("prompt_tokens", "input_tokens"),)
    """Fields of `usage` that make up the input, to be added; of alternatives in one tuple the first that is there."""
    output_fields: tuple[tuple[str, ...], ...] = (("completion_tokens", "output_tokens"),)
    """The same for the output."""
    usage_paths: tuple[tuple[str, ...], ...] = (("usage",), ("message", "usage"), ("response", "usage"))
    """Where `usage` may be in an answer or in an event of a stream."""
    throttled: frozenset[int] = frozenset({429})
    """Statuses by which the provider asks for less."""
    key_headers: tuple[str, ...] = ("authorization", "api-key")
    """Headers with the API key."""
    estimate: Callable[[ModelCall], Estimate] = estimate_tokens

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"name must be a non-empty string, got {self.name!r}")
        if not isinstance(self.paths, tuple) or not self.paths:
            raise ValueError(f"paths must be a tuple of at least one end of a path, got {self.paths!r}")
        if not callable(self.estimate):
            raise TypeError(f"estimate must be a function of a ModelCall, got {self.estimate!r}")


OPENAI = Profile(
    name="openai",
    paths=("/completions", "/responses", "/embeddings"),
    headers=tuple(
        LimitFields(each, f"x-ratelimit-remaining-{each}", f"x-ratelimit-reset-{each}")
        for each in ("requests", "tokens")
    ),
)
"""OpenAI, Azure, and the many that speak its API. Streams tell their usage only with
`stream_options={"include_usage": True}`."""

ANTHROPIC = Profile(
    name="anthropic",
    paths=("/v1/messages", "/v1/complete"),
    headers=tuple(
        LimitFields(
            each.replace("-", "_"), f"anthropic-ratelimit-{each}-remaining", f"anthropic-ratelimit-{each}-reset"
        )
        for each in ("requests", "tokens", "input-tokens", "output-tokens")
    ),
    # Tokens read from the cache do not count for the limits of current models.
    input_fields=(("input_tokens",), ("cache_creation_input_tokens",)),
    output_fields=(("output_tokens",),),
    throttled=frozenset({429, 529}),
    key_headers=("x-api-key", "authorization"),
)
"""Anthropic's Messages. Of the input, what was written to the cache counts, what was read from it does not."""
