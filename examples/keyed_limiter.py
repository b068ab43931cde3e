"""A limit per tenant, and a cost per request."""

import asyncio
from dataclasses import dataclass

from resilience import RateLimiter


@dataclass
class Prompt:
    tenant: str
    tokens: int


def tenant_of(prompt: Prompt) -> str:
    return prompt.tenant


def tokens_of(prompt: Prompt) -> float:
    return prompt.tokens


limiter = RateLimiter("1000/minute", max_wait=0, name="tokens")


@limiter.bind(key=tenant_of, cost=tokens_of)
async def complete(prompt: Prompt) -> str:
    return f"{prompt.tenant}: {prompt.tokens} tokens"


async def main() -> None:
    print(await complete(Prompt("north", 900)))
    print(await complete(Prompt("south", 900)))
    outcome = await limiter.outcome(complete, Prompt("north", 200))
    print("north again:", type(outcome.error).__name__)


asyncio.run(main())

# Prints:
# north: 900 tokens
# south: 900 tokens
# north again: RateLimitedError
