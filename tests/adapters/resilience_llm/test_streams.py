"""Streams: not a byte changed, and charged what was received, however they end."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from resilience_llm import ANTHROPIC, LimitedTransport

from .support import ASKED, PATH, STREAM, USAGE, always, charged, chunk, client_of, events, limits_of, parts

pytestmark = pytest.mark.anyio


async def test_a_stream_passes_unchanged_and_is_settled_at_its_end(lib: Any) -> None:
    limits = limits_of()
    sent = events(chunk("word " * 10), chunk("word " * 4), {"choices": [], "usage": USAGE})
    async with client_of(lib, limits, lambda _: lib.Response(200, headers=STREAM, content=parts(sent))) as client:
        async with client.stream("POST", PATH, json=ASKED) as response:
            received = list[bytes]()
            async for each in response.aiter_raw():
                received.append(each)
                assert await charged(limits) == (1, 524)
        assert received == sent
    assert await charged(limits) == (1, 100)


@pytest.mark.parametrize(
    ("sent", "used"),
    [
        (events(chunk("x" * 400)), 124),  # no usage: the estimate of the input, a quarter of the characters
        ([], 24),
        ([b'data: {"delta": "', b"x" * 40 + b'"}\n'], 34),  # the last event is not quite whole
        ([b"rubbish", b"\xff\n\n"], 24),
    ],
)
async def test_a_stream_without_usage_is_charged_what_was_received(lib: Any, sent: list[bytes], used: int) -> None:
    limits = limits_of()
    async with client_of(lib, limits, lambda _: lib.Response(200, headers=STREAM, content=parts(sent))) as client:
        await client.post(PATH, json=ASKED)
    assert await charged(limits) == (1, used)


async def test_a_broken_stream_is_charged_what_was_received(lib: Any) -> None:
    limits = limits_of()
    sent = parts(events(chunk("x" * 400)), lib.ReadError("cut"))
    async with client_of(lib, limits, lambda _: lib.Response(200, headers=STREAM, content=sent)) as client:
        with pytest.raises(lib.ReadError):
            await client.post(PATH, json=ASKED)
    assert await charged(limits) == (1, 124)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_stream_that_is_left_is_charged_what_was_received(lib: Any, cancelled: bool) -> None:
    limits = limits_of()
    sent = events(*[chunk("x" * 400)] * 9)
    answer = lib.Response(200, headers=STREAM, content=parts(sent))
    transport: Any = LimitedTransport(limits, lib.MockTransport(always(answer)))
    response = await transport.handle_async_request(lib.Request("POST", PATH, json=ASKED))
    with anyio.CancelScope() as scope:
        try:
            seen = 0
            async for each in response.stream:
                seen += len(each)
                if seen > 1000:
                    break
            if cancelled:
                scope.cancel()
                await anyio.sleep(1)
        finally:
            await response.aclose()
    assert await charged(limits) == (1, 224)


async def test_anthropic_streams_tell_their_input_first(lib: Any) -> None:
    limits = limits_of(ANTHROPIC, tokens=None, input_tokens="20000/d", output_tokens="20000/d")
    usage = {"input_tokens": 7, "cache_creation_input_tokens": 5, "cache_read_input_tokens": 99, "output_tokens": 1}
    delta = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x" * 40}}
    start: Any = {"type": "message_start", "message": {"usage": usage}}
    done = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 44}}
    for values, expected in (((start, delta), (1, 12, 11)), ((start, delta, done), (1, 12, 44))):
        async with client_of(
            lib, limits, always(lib.Response(200, headers=STREAM, content=parts(events(*values))))
        ) as client:
            await client.post("https://api.example/v1/messages", json=ASKED)
        assert await charged(limits) == expected
        await limits.limiter.reset(key="m")
