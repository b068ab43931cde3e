"""The transport: charged what was used, whatever becomes of a request; and not a byte changed."""

from __future__ import annotations

import gzip
import json
from typing import Any

import anyio
import pytest

from resilience import CircuitBreaker, RateLimitedError
from resilience_httpx import ResilientTransport
from resilience_llm import ANTHROPIC, LimitedTransport, LLMLimits
from tests.support.http_server import Answer, MisbehavingServer

from .support import ASKED, PATH, USAGE, WHOLE, charged, chunk, client_of, events, limits_of, parts

pytestmark = pytest.mark.anyio


async def test_an_answer_is_charged_what_it_used(lib: Any) -> None:
    limits, during = limits_of(), list[Any]()

    async def handler(request: Any) -> Any:
        during.append(await charged(limits))
        return lib.Response(200, json=WHOLE)

    async with client_of(lib, limits, handler) as client:
        assert (await client.post(PATH, json=ASKED)).json() == WHOLE
    assert during == [(1, 524)]
    assert await charged(limits) == (1, 100)


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_compressed_answers_are_read_too(lib: Any, kind: str) -> None:
    limits = limits_of()
    plain = json.dumps(WHOLE).encode() if "json" in kind else b"".join(events(chunk("x"), {"usage": USAGE}))
    headers = {"content-type": kind, "content-encoding": "gzip"}
    packed = gzip.compress(plain)
    sent = parts([packed[:30], packed[30:]])
    async with client_of(lib, limits, lambda _: lib.Response(200, headers=headers, content=sent)) as client:
        assert (await client.post(PATH, json=ASKED)).content == plain
    assert await charged(limits) == (1, 100)


@pytest.mark.parametrize(
    ("content", "headers"),
    [(b"no json", {}), (b"\x1f\x8b rubbish", {"content-encoding": "gzip"}), (b"[1]", {})],
)
async def test_an_answer_that_says_nothing_stays_charged_as_estimated(
    lib: Any, content: bytes, headers: dict[str, str]
) -> None:
    limits = limits_of()
    async with client_of(lib, limits, lambda _: lib.Response(200, headers=headers, content=parts([content]))) as client:
        async with client.stream("POST", PATH, json=ASKED) as response:
            async for _ in response.aiter_raw():
                pass
    assert await charged(limits) == (1, 524)


async def test_an_answer_too_large_to_keep_stays_charged_as_estimated(
    lib: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resilience_llm import tally

    monkeypatch.setattr(tally, "MOST", 50)
    limits = limits_of()
    sent = parts([json.dumps(WHOLE).encode(), b" "])
    async with client_of(lib, limits, lambda _: lib.Response(200, content=sent)) as client:
        assert (await client.post(PATH, json=ASKED)).json() == WHOLE
    assert await charged(limits) == (1, 524)


@pytest.mark.parametrize(("status", "expected"), [(400, (1, 0)), (401, (1, 0)), (500, (1, 0)), (307, (1, 0))])
async def test_an_error_has_used_no_tokens(lib: Any, status: int, expected: tuple[int, int]) -> None:
    limits = limits_of()
    async with client_of(lib, limits, lambda _: lib.Response(status, json={"error": {}})) as client:
        assert (await client.post(PATH, json=ASKED)).status_code == status
    assert await charged(limits) == expected


@pytest.mark.parametrize("error", ["ConnectError", "ConnectTimeout", "PoolTimeout"])
async def test_what_was_not_sent_costs_nothing(lib: Any, error: str) -> None:
    limits = limits_of()

    def handler(request: Any) -> Any:
        raise getattr(lib, error)("no", request=request)

    async with client_of(lib, limits, handler) as client:
        with pytest.raises(getattr(lib, error)):
            await client.post(PATH, json=ASKED)
    assert await charged(limits) == (0, 0)


async def test_what_a_policy_inside_refuses_costs_nothing(lib: Any) -> None:
    limits, breaker = limits_of(), CircuitBreaker()
    breaker.isolate()
    async with lib.AsyncClient(transport=LimitedTransport(limits, ResilientTransport(breaker))) as client:
        with pytest.raises(lib.TransportError):
            await client.post(PATH, json=ASKED)
    assert await charged(limits) == (0, 0)


async def test_an_answer_that_never_comes_stays_charged(lib: Any) -> None:
    limits = limits_of()

    def handler(request: Any) -> Any:
        raise lib.ReadTimeout("no", request=request)

    async with client_of(lib, limits, handler) as client:
        with pytest.raises(lib.ReadTimeout):
            await client.post(PATH, json=ASKED)
    assert await charged(limits) == (1, 524)


async def test_a_request_cancelled_before_it_left_costs_nothing(lib: Any, server: MisbehavingServer) -> None:
    """It waits for the only connection of the pool; the one that has it was sent, and stays charged."""
    limits, traced = limits_of(), list[str]()
    url = server.answer("/v1/chat/completions", Answer(ending="hang"))

    async def trace(event: str, info: Any) -> None:
        traced.append(event)

    inner = lib.AsyncHTTPTransport(limits=lib.Limits(max_connections=1))
    async with lib.AsyncClient(transport=LimitedTransport(limits, inner), timeout=None) as client:
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(_post, client, url, {"trace": trace})
            await server.until(lambda: bool(server.received("/v1/chat/completions")))
            assert await charged(limits) == (2, 1048)
            group.cancel_scope.cancel()
    assert any(each.endswith("send_request_headers.started") for each in traced)
    # What has come of the answer, headers and not yet a whole body, says nothing: the estimate stands.
    assert await charged(limits) == (1, 524)


async def _post(client: Any, url: str, extensions: dict[str, Any]) -> None:
    await client.post(url, json=ASKED, extensions=extensions)


async def test_a_refusal_is_an_error_of_both_trees(lib: Any) -> None:
    limits = limits_of(requests="1/h")
    async with client_of(lib, limits, lambda _: lib.Response(200, json=WHOLE)) as client:
        await client.post(PATH, json=ASKED)
        with pytest.raises(lib.TransportError) as caught:
            await client.post(PATH, json=ASKED)
        assert isinstance(caught.value, RateLimitedError)
        assert caught.value.limit == "requests"
        assert caught.value.retry_after == pytest.approx(3600, abs=5)
        await client.post(PATH, json={**ASKED, "model": "another"})
    assert await charged(limits) == (1, 100)


async def test_other_requests_pass_untouched(lib: Any) -> None:
    limits = limits_of(requests="1/h")
    async with client_of(lib, limits, lambda _: lib.Response(200, json=WHOLE)) as client:
        for _ in range(3):
            await client.get("https://api.example/v1/models")
            await client.get(PATH)
            await client.post("https://api.example/v1/files", content=b"x")
    assert await charged(limits, "") == (0, 0)


async def test_a_body_that_is_generated_is_estimated_by_its_length(lib: Any) -> None:
    limits, during = limits_of(key=None), list[Any]()

    async def handler(request: Any) -> Any:
        await request.aread()
        during.append(await charged(limits, ""))
        return lib.Response(200, json=WHOLE)

    async with client_of(lib, limits, handler) as client:
        await client.post(PATH, content=parts([b"x" * 400]), headers={"content-length": "400"})
        await client.post(PATH, content=parts([b"x" * 400]))
        await client.post(PATH, content=b"x" * 400)
    assert during == [(1, 1100), (2, 1100), (3, 1300)]


async def test_requests_wait_in_line(lib: Any) -> None:
    limits = LLMLimits(ANTHROPIC, requests="1/50ms", max_wait=10, margin=0, key=lambda call: call.headers["x-tenant"])
    order = list[str]()

    def handler(request: Any) -> Any:
        order.append(request.content.decode())
        return lib.Response(200, json={})

    async with client_of(lib, limits, handler) as client:
        began = anyio.current_time()
        async with anyio.create_task_group() as group:
            for turn in range(5):
                group.start_soon(_ask, client, str(turn))
                await anyio.sleep(0.002)
    assert order == list("01234")
    assert anyio.current_time() - began > 0.19


async def _ask(client: Any, content: str) -> None:
    await client.post("https://api.example/v1/messages", content=content, headers={"x-tenant": "a"})


async def test_the_library_sends_by_itself(lib: Any, server: MisbehavingServer) -> None:
    limits = limits_of()
    url = server.answer("/v1/chat/completions", Answer(body=json.dumps(WHOLE).encode()))
    for _ in range(2):
        async with lib.AsyncClient(transport=LimitedTransport(limits)) as client:
            assert (await client.post(url, json=ASKED)).json() == WHOLE
    transport: Any = LimitedTransport(limits, lib.AsyncHTTPTransport())
    async with transport:
        request = lib.Request("POST", url, json=ASKED)
        response = await transport.handle_async_request(request)
        assert json.loads(b"".join([each async for each in response.stream])) == WHOLE
        await response.aclose()
        assert "trace" not in request.extensions
    await transport.aclose()
    assert await charged(limits) == (3, 300)


def test_bad_options_are_refused() -> None:
    with pytest.raises(TypeError, match="limits must be LLMLimits"):
        LimitedTransport("60/min")  # type: ignore[arg-type] # on purpose
    with pytest.raises(TypeError, match="transport must be an async transport"):
        LimitedTransport(limits_of(), "http")  # type: ignore[arg-type] # on purpose
