"""What the tests share: limits that hardly refill, clients of them, and answers of both providers."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

from resilience_llm import OPENAI, LimitedTransport, LLMLimits, Profile

PATH = "https://api.example/v1/chat/completions"
ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x" * 76}], "max_tokens": 500}
"""Estimated at 24 tokens of input and 500 of output."""
USAGE = {"prompt_tokens": 30, "completion_tokens": 70, "total_tokens": 100}
WHOLE = {"choices": [{"message": {"content": "word " * 70}}], "usage": USAGE}


def limits_of(profile: Profile = OPENAI, **options: Any) -> LLMLimits:
    """60 requests and 20,000 tokens a day."""
    given: dict[str, Any] = {"requests": "60/d", "tokens": "20000/d", "margin": 0, "max_wait": 0}
    return LLMLimits(profile, **given | options)


def always(response: Any) -> Callable[[Any], Any]:
    """A handler that gives the same response to every request."""
    return lambda request: response


def client_of(lib: Any, limits: LLMLimits, handler: Callable[[Any], Any]) -> Any:
    """A client whose requests end in `handler`."""
    return lib.AsyncClient(transport=LimitedTransport(limits, lib.MockTransport(handler)))


async def charged(limits: LLMLimits, key: str = "m") -> tuple[int, ...]:
    """Units of each limit that are gone, as they were a moment ago."""
    peeked = await limits.limiter.peek(key=key, cost={next(iter(limits.limiter.limits.dimensions)): 1})
    rules = limits.limiter.rules
    return tuple(round(rule.burst - left) for rule, left in zip(rules, peeked.remaining, strict=True))


def events(*values: Any) -> list[bytes]:
    """A stream of events, cut in inconvenient places."""
    stream = b"".join(f"data: {json.dumps(value)}\n\n".encode() for value in values) + b"data: [DONE]\n\n"
    return [stream[place : place + 37] for place in range(0, len(stream), 37)]


def chunk(text: str, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}}], **more}


async def parts(chunks: list[bytes], broken: Exception | None = None) -> AsyncGenerator[bytes]:
    for each in chunks:
        yield each
    if broken is not None:
        raise broken


STREAM = {"content-type": "text/event-stream; charset=utf-8"}
