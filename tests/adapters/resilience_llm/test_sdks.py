"""The providers' own SDKs over our client: charged what the stand-in counted, and its errors are theirs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import openai
import pytest

from resilience import RateLimitedError
from resilience_llm import ANTHROPIC, LLMLimits, llm_client
from tests.support.llm_server import LLMServer, llm_server

from .support import charged, limits_of

pytestmark = pytest.mark.asyncio
MESSAGES: Any = [{"role": "user", "content": "that, " * 40}]


@pytest.fixture(scope="module")
def provider() -> Iterator[LLMServer]:
    with llm_server(requests=60, tokens=20_000, minute=86_400, latency=0.001) as server:
        yield server


@asynccontextmanager
async def chatting(server: LLMServer, limits: LLMLimits, retried: bool = True) -> AsyncGenerator[Any]:
    under = llm_client(limits, "standard" if retried else None)
    client = openai.AsyncOpenAI(base_url=server.openai, api_key="key", http_client=under, max_retries=0)
    async with client:
        yield client.chat.completions


def used(server: LLMServer, name: str) -> tuple[float, float]:
    report = server.report()[name]
    return report["admitted"], report["used"]


async def test_openai_is_charged_what_it_counted(provider: LLMServer) -> None:
    limits = limits_of()
    asked: Any = {"model": "one", "messages": MESSAGES, "max_completion_tokens": 100}
    async with chatting(provider, limits) as chat:
        answer = await chat.create(**asked)
        assert answer.usage.total_tokens == used(provider, "openai/one")[1]
        stream = await chat.create(**asked, stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].usage == answer.usage
        raw = await chat.with_raw_response.create(**asked)
        assert raw.http_response.extensions["resilience"].attempts == 1
    assert await charged(limits, "one") == used(provider, "openai/one")


async def test_an_openai_stream_without_usage_is_charged_by_its_characters(provider: LLMServer) -> None:
    limits = limits_of()
    async with chatting(provider, limits) as chat:
        stream = await chat.create(model="two", messages=MESSAGES, max_completion_tokens=100, stream=True)
        text = "".join([choice.delta.content or "" async for chunk in stream for choice in chunk.choices])
    asked = (len("user") + len(MESSAGES[0]["content"])) / 4 + 4
    requests, tokens = await charged(limits, "two")
    assert requests == 1
    assert tokens == pytest.approx(asked + len(text) / 4, abs=2)


async def test_anthropic_is_charged_what_it_counted(provider: LLMServer) -> None:
    limits = limits_of(ANTHROPIC)
    asked: Any = {"model": "one", "messages": MESSAGES, "max_tokens": 100}
    client = anthropic.AsyncAnthropic(
        base_url=provider.anthropic, api_key="key", http_client=llm_client(limits), max_retries=0
    )
    async with client:
        create: Any = client.messages.create
        answer = await create(**asked)
        async with client.messages.stream(**asked) as events:
            assert (await events.get_final_message()).usage.output_tokens == answer.usage.output_tokens
    assert await charged(limits, "one") == used(provider, "anthropic/one")


async def test_a_stream_that_the_reader_leaves_is_settled(provider: LLMServer) -> None:
    limits = limits_of()
    async with chatting(provider, limits) as chat:
        stream = await chat.create(model="three", messages=MESSAGES, max_completion_tokens=1000, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
    requests, tokens = await charged(limits, "three")
    assert requests == 1
    assert tokens < 500  # of the 1,000 that were reserved, and 700 that were written


async def test_refusals_here_and_there(provider: LLMServer) -> None:
    asked: Any = {"model": "four", "messages": MESSAGES, "max_completion_tokens": 15_000}
    async with chatting(provider, limits_of(), retried=False) as chat:
        await chat.create(**asked)
        with pytest.raises(openai.APIConnectionError) as here:
            await chat.create(**asked)
        assert isinstance(here.value.__cause__, RateLimitedError)
        assert here.value.__cause__.limit == "tokens"
    limits = limits_of()
    async with chatting(provider, limits, retried=False) as chat:  # a process that knows nothing of what has been used
        with pytest.raises(openai.RateLimitError):
            await chat.create(**asked)
        with pytest.raises(openai.APIConnectionError):
            await chat.create(**asked)
    requests, tokens = await charged(limits, "four")
    assert requests == 0  # the one that was refused has cost nothing, and it was tokens that were lacking
    assert tokens >= 20_000
    assert used(provider, "openai/four")[0] == 1
