"""The limits of LLM providers, kept before they are exceeded: requests and tokens a minute, shared by all processes.

    from resilience_llm import OPENAI, LLMLimits, llm_client

    limits = LLMLimits(OPENAI, requests="60/min", tokens="20000/min", store=store)
    client = openai.AsyncOpenAI(http_client=llm_client(limits), max_retries=0)

Tokens are estimated before a request, reserved, and settled with the usage that the answer reports. Needs httpx2 or
httpx: `anyresilience[httpx2]` or `anyresilience[httpx]`. Raises ImportError without both.
"""

from __future__ import annotations

from .client import llm_client
from .estimate import Estimate, estimate_tokens
from .limits import LLMLimits
from .model_call import ModelCall
from .profile import ANTHROPIC, OPENAI, LimitFields, Profile
from .transport import LimitedTransport

__all__ = [
    "ANTHROPIC",
    "OPENAI",
    "Estimate",
    "LLMLimits",
    "LimitFields",
    "LimitedTransport",
    "ModelCall",
    "Profile",
    "estimate_tokens",
    "llm_client",
]
