"""One of several processes that ask two models more than their providers allow, with the providers' own SDKs.

python -m tests.support.llm_worker PLAN

PLAN is JSON: `redis` and `prefix`, `openai` and `anthropic` (URLs), `requests`, `tokens`, `minute`, `margin`. Prints a
line when it is ready. Each line that it then reads is a stage: `model`, `limited` (or without limits of ours), `words`
(of a question), `most` (tokens of an answer), `pace` (questions a second, to each provider), `seconds`, and `starts`
(on the clock of the machine, so that all begin together). Prints what became of the questions.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any, TypeAlias

import anthropic
import openai

from resilience import RateLimitedError
from resilience_llm import ANTHROPIC, OPENAI, LLMLimits, llm_client
from resilience_redis import RedisStore

Outcomes: TypeAlias = dict[str, Counter[str]]


class Asker:
    """Asks both providers, streamed and not in turn."""

    def __init__(self, plan: dict[str, Any], clients: tuple[Any, Any]) -> None:
        own: dict[str, Any] = {"api_key": "key", "max_retries": 0}
        self.openai = openai.AsyncOpenAI(base_url=plan["openai"], http_client=clients[0], **own)
        self.anthropic = anthropic.AsyncAnthropic(base_url=plan["anthropic"], http_client=clients[1], **own)

    async def ask(self, provider: str, stream: bool, stage: dict[str, Any]) -> None:
        messages = [{"role": "user", "content": "that " * stage["words"]}]
        given: Any = {"model": stage["model"], "messages": messages}
        if provider == "openai":
            create: Any = self.openai.chat.completions.create
            given["max_completion_tokens"] = stage["most"]
            if not stream:
                await create(**given)
                return
            given |= {"stream": True, "stream_options": {"include_usage": True}}
            async for _ in await create(**given):
                pass
            return
        given["max_tokens"] = stage["most"]
        if not stream:
            await self.anthropic.messages.create(**given)
            return
        async with self.anthropic.messages.stream(**given) as events:
            async for _ in events:
                pass

    async def stage(self, stage: dict[str, Any]) -> Outcomes:
        """Ask both for a time."""
        outcomes: Outcomes = {"openai": Counter(), "anthropic": Counter()}
        await asyncio.gather(*(self.demand(name, stage, counted) for name, counted in outcomes.items()))
        return outcomes

    async def demand(self, provider: str, stage: dict[str, Any], counted: Counter[str]) -> None:
        """Ask at an even pace, whatever becomes of it; what is under way at the end is given up."""
        asked, streamed, tasks = 0, itertools.cycle((True, False)), set[asyncio.Task[None]]()
        await asyncio.sleep(stage["starts"] - time.monotonic())
        while (elapsed := time.monotonic() - stage["starts"]) < stage["seconds"]:
            while asked < elapsed * stage["pace"]:
                tasks.add(asyncio.create_task(self.outcome(provider, next(streamed), stage, counted)))
                asked += 1
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def outcome(self, provider: str, stream: bool, stage: dict[str, Any], counted: Counter[str]) -> None:
        try:
            await self.ask(provider, stream, stage)
            outcome = "answered"
        except asyncio.CancelledError:
            outcome = "given up"
        except (openai.RateLimitError, anthropic.RateLimitError):
            outcome = "429"
        except (openai.APIConnectionError, anthropic.APIConnectionError) as error:
            outcome = "refused here" if isinstance(error.__cause__, RateLimitedError) else repr(error.__cause__)
        counted[outcome] += 1


@contextlib.asynccontextmanager
async def askers(plan: dict[str, Any]) -> AsyncGenerator[tuple[Asker, Asker]]:
    """One without limits of ours, one with; both have been used: much of the SDKs is imported only then."""
    async with RedisStore.from_url(plan["redis"], prefix=plan["prefix"], timeout=5.0) as store:
        minute = f"{plan['minute']}s"
        ours = [
            llm_client(
                LLMLimits(
                    profile,
                    requests=f"{plan['requests']}/{minute}",
                    tokens=f"{plan['tokens']}/{minute}",
                    max_wait=plan["minute"],
                    margin=plan["margin"],
                    store=store,
                )
            )
            for profile in (OPENAI, ANTHROPIC)
        ]
        both = Asker(plan, (None, None)), Asker(plan, (ours[0], ours[1]))
        async with contextlib.AsyncExitStack() as stack:
            for asker in both:
                await stack.enter_async_context(asker.openai)
                await stack.enter_async_context(asker.anthropic)
                for provider, stream in itertools.product(("openai", "anthropic"), (True, False)):
                    await asker.ask(provider, stream, {"model": "another", "words": 1, "most": 10})
            yield both


async def work(plan: dict[str, Any]) -> None:
    async with askers(plan) as (unlimited, limited):
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            stage: dict[str, Any] = json.loads(line)
            print(json.dumps(await (limited if stage["limited"] else unlimited).stage(stage)), flush=True)


if __name__ == "__main__":
    asyncio.run(work(json.loads(sys.argv[1])))
