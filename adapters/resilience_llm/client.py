"""A client for the SDKs of OpenAI and Anthropic, in one line.

    openai.AsyncOpenAI(http_client=llm_client(limits), max_retries=0)
    anthropic.AsyncAnthropic(http_client=llm_client(limits), max_retries=0)

Retries and a circuit breaker go around the limits: every attempt is reserved, so that it comes when it may.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Literal, overload

from resilience import CircuitBreaker, Pipeline, Retry
from resilience.policy import Policy
from resilience.verdict import IGNORED, SUCCESS, Advice, Classifier, Verdict
from resilience_httpx import FAILURES, IDEMPOTENT, ResilientTransport, http_classifier
from resilience_httpx.host import HOSTS

from .limits import LLMLimits
from .transport import LimitedTransport

if TYPE_CHECKING:
    import httpx
    import httpx2

READ_TIMEOUT = 600.0
"""Seconds between two parts of an answer: one that is not streamed may take so long to come."""
CONNECT_TIMEOUT = 5.0


@overload
def llm_client(
    limits: LLMLimits,
    policy: Policy | Literal["standard"] | None = "standard",
    *,
    transport: httpx2.AsyncBaseTransport | None = None,
    library: Literal["httpx2"] = "httpx2",
    **options: Any,
) -> httpx2.AsyncClient: ...
@overload
def llm_client(
    limits: LLMLimits,
    policy: Policy | Literal["standard"] | None = "standard",
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    library: Literal["httpx"],
    **options: Any,
) -> httpx.AsyncClient: ...
def llm_client(
    limits: LLMLimits,
    policy: Policy | Literal["standard"] | None = "standard",
    *,
    transport: Any = None,
    library: Literal["httpx", "httpx2"] = "httpx2",
    **options: Any,
) -> Any:
    """An `AsyncClient` that keeps `limits`, for the `http_client` of an SDK.

    `policy` runs around every request: by default three attempts and a circuit breaker for each origin; None for
    none. It may repeat POSTs, for asking a model twice changes nothing; not where the provider says
    `x-should-retry: false`. `transport` does the sending (for a proxy, say). `library` is the one that the SDK uses:
    `"httpx2"` (default) or `"httpx"`. `options` are those of its `AsyncClient`; by default redirects are followed
    and the timeout is 600 s between two parts of an answer and 5 s for a connection. Waiting for a limit is no part
    of these.

    Raises TypeError or ValueError for bad options, ImportError if the library is not installed.
    """
    if library not in HOSTS:
        raise ValueError(f"library must be one of {', '.join(map(repr, HOSTS))}, got {library!r}")
    module: Any = importlib.import_module(library)
    inner: Any = LimitedTransport(limits, transport)
    if policy is not None:
        pipeline = _standard(limits.name) if policy == "standard" else policy
        inner = ResilientTransport(
            pipeline, inner, key="origin", classifier=_classifier(limits), retry_methods=IDEMPOTENT | {"POST"}
        )
    timeout = module.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT)
    return module.AsyncClient(transport=inner, **{"timeout": timeout, "follow_redirects": True, **options})


def _standard(name: str) -> Policy:
    return Pipeline(Retry(attempts=3), CircuitBreaker(), name=name)


def _classifier(limits: LLMLimits) -> Classifier:
    """That for HTTP, with the profile's statuses for too much traffic and the word of those who know better."""
    throttled = limits.profile.throttled
    http = http_classifier(failures=FAILURES - throttled, throttled=throttled)
    judge = http.result
    assert judge is not None

    def final(response: Any) -> bool:
        headers = getattr(response, "headers", {})
        return bool(headers.get("x-should-retry") == "false")

    def result(response: Any) -> Verdict:
        verdict = judge(response)
        return IGNORED if verdict is not SUCCESS and final(response) else verdict

    def advice(response: Any, error: Exception | None) -> Advice | None:
        return None if response is not None and final(response) else http.advice(response, error)

    return Classifier(http.error, result, advice)
