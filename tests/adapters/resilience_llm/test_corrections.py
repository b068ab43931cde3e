"""What responses say of the limits is taken over, and after too many requests nothing goes."""

from __future__ import annotations

from typing import Any

import pytest

from resilience_llm import ANTHROPIC

from .support import ASKED, PATH, charged, client_of, limits_of, parts

pytestmark = pytest.mark.anyio


OPENAI_SAYS = {"x-ratelimit-remaining-requests": "50", "x-ratelimit-remaining-tokens": "3000"}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (OPENAI_SAYS, (10, 17_000)),
        ({"x-ratelimit-remaining-requests": "999999", "x-ratelimit-remaining-tokens": "rubbish"}, (1, 524)),
        ({"ratelimit": '"default";r=20;t=9'}, (40, 524)),
        ({"ratelimit": '"input-tokens";r=0;t=9'}, (1, 524)),  # no limit of ours
    ],
)
async def test_what_remains_is_taken_over(lib: Any, headers: dict[str, str], expected: tuple[int, int]) -> None:
    limits = limits_of()
    async with client_of(lib, limits, lambda _: lib.Response(200, headers=headers, content=parts([b"{}"]))) as client:
        async with client.stream("POST", PATH, json=ASKED):
            assert await charged(limits) == expected


@pytest.mark.parametrize(
    ("headers", "waits"),
    [
        ({"retry-after": "20"}, (20, 20)),
        ({"retry-after-ms": "1500"}, (1.5, 1.5)),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "30s"}, (0, 30)),
        ({"retry-after": "20", **OPENAI_SAYS, "x-ratelimit-remaining-tokens": "500"}, (0, 20)),
        ({"retry-after": "99999999"}, (300, 300)),
        ({"retry-after": "rubbish"}, (0, 0)),
    ],
)
async def test_after_too_many_requests_nothing_goes(
    lib: Any, headers: dict[str, str], waits: tuple[float, float]
) -> None:
    """Until `Retry-After`, else the reset of what is used up; and the request itself costs nothing."""
    limits = limits_of()
    async with client_of(lib, limits, lambda _: lib.Response(429, headers=headers)) as client:
        assert (await client.post(PATH, json=ASKED)).status_code == 429
    if headers == {"retry-after": "rubbish"}:
        assert await charged(limits) == (60, 20_000)
    for dimension, wait, unit in zip(("requests", "tokens"), waits, (1440, 4.32), strict=True):
        peeked = await limits.limiter.peek(key="m", cost={dimension: 1})
        assert peeked.wait == pytest.approx(wait + unit if wait or headers == {"retry-after": "rubbish"} else 0, abs=1)


async def test_an_overloaded_anthropic_wants_less_too(lib: Any) -> None:
    limits = limits_of(ANTHROPIC)
    async with client_of(lib, limits, lambda _: lib.Response(529, headers={"retry-after": "20"})) as client:
        await client.post("https://api.example/v1/messages", json=ASKED)
    assert (await limits.limiter.peek(key="m", cost={"requests": 1})).wait > 19
