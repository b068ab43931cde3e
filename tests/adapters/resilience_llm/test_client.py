"""The client for the SDKs: retries around the limits, a circuit breaker, and timeouts that suit long answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import httpx2
import pytest

from resilience import Backoff, CircuitOpenError, Pipeline, Retry
from resilience_llm import ANTHROPIC, llm_client

from .support import ASKED, PATH, WHOLE, charged, limits_of

pytestmark = pytest.mark.anyio
AT_ONCE = Pipeline(Retry(3, backoff=Backoff.none(), throttled=Backoff.none()), name="models")


def answering(*answers: Any) -> tuple[Callable[[Any], Any], list[Any]]:
    """A handler that gives these in turn, and the requests that it got."""
    got: list[Any] = []

    def handler(request: Any) -> Any:
        got.append(request)
        return answers[len(got) - 1]

    return handler, got


async def test_a_retried_request_is_charged_once() -> None:
    limits = limits_of(max_wait=5)
    refused = httpx2.Response(429, headers={"retry-after": "0"})
    handler, got = answering(httpx2.Response(500), httpx2.Response(200, json=WHOLE))
    async with llm_client(limits, AT_ONCE, transport=httpx2.MockTransport(handler)) as client:
        response = await client.post(PATH, json=ASKED)
    assert response.extensions["resilience"].attempts == len(got) == 2
    assert await charged(limits) == (2, 100)  # both were asked for, one has done its work
    limits = limits_of(requests="60/s", tokens="900000/s", max_wait=5)
    handler, got = answering(refused, httpx2.Response(200, json=WHOLE))
    async with llm_client(limits, AT_ONCE, transport=httpx2.MockTransport(handler)) as client:
        assert (await client.post(PATH, json=ASKED)).status_code == 200
    assert len(got) == 2


@pytest.mark.parametrize("status", [429, 500])
async def test_the_provider_may_say_that_it_is_final(status: int) -> None:
    handler, got = answering(httpx2.Response(status, headers={"x-should-retry": "false"}))
    async with llm_client(limits_of(), AT_ONCE, transport=httpx2.MockTransport(handler)) as client:
        assert (await client.post(PATH, json=ASKED)).status_code == status
    assert len(got) == 1


async def test_an_overloaded_provider_is_asked_again() -> None:
    limits = limits_of(ANTHROPIC, requests="60/s", tokens="900000/s", max_wait=5)
    handler, got = answering(httpx2.Response(529), httpx2.Response(200, json={}))
    async with llm_client(limits, AT_ONCE, transport=httpx2.MockTransport(handler)) as client:
        assert (await client.post("https://api.example/v1/messages", json=ASKED)).status_code == 200
    assert len(got) == 2


async def test_the_standard_policy_retries_and_breaks_the_circuit() -> None:
    limits = limits_of()

    def handler(request: Any) -> Any:
        raise httpx2.ConnectError("no", request=request)

    async with llm_client(limits, transport=httpx2.MockTransport(handler)) as client:
        with pytest.raises(httpx2.ConnectError):
            await client.post(PATH, json=ASKED)
        for _ in range(20):
            with pytest.raises(httpx2.TransportError):
                await client.post(PATH, json=ASKED)
        with pytest.raises(CircuitOpenError):
            await client.post(PATH, json=ASKED)
    assert await charged(limits) == (0, 0)


async def test_without_a_policy_there_is_one_attempt() -> None:
    handler, got = answering(httpx2.Response(500))
    async with llm_client(limits_of(), None, transport=httpx2.MockTransport(handler)) as client:
        assert (await client.post(PATH, json=ASKED)).status_code == 500
    assert len(got) == 1


async def test_the_old_library_too() -> None:
    limits = limits_of()
    handler, _ = answering(httpx.Response(200, json=WHOLE))
    async with llm_client(limits, library="httpx", transport=httpx.MockTransport(handler)) as client:
        assert isinstance(client, httpx.AsyncClient)
        assert (await client.post(PATH, json=ASKED)).json() == WHOLE
    assert await charged(limits) == (1, 100)


async def test_options_of_the_client() -> None:
    async with llm_client(limits_of()) as client:
        assert client.timeout == httpx2.Timeout(600, connect=5)
        assert client.follow_redirects
    async with llm_client(limits_of(), timeout=7, follow_redirects=False, headers={"x-a": "b"}) as client:
        assert client.timeout == httpx2.Timeout(7)
        assert not client.follow_redirects
        assert client.headers["x-a"] == "b"
    with pytest.raises(ValueError, match="library must be one of 'httpx', 'httpx2'"):
        llm_client(limits_of(), library="requests")  # type: ignore[call-overload] # on purpose
