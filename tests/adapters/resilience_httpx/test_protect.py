"""A client that exists keeps its proxies and mounts, and policies come under all of them."""

from __future__ import annotations

from typing import Any

import pytest

from resilience import Bulkhead, Pipeline
from resilience_httpx import ResilientTransport, protect
from tests.support.http_server import Answer, MisbehavingServer

from .support import always, retry

pytestmark = pytest.mark.anyio


async def test_every_transport_of_a_client_is_protected_and_mounts_stay(lib: Any) -> None:
    shared = lib.MockTransport(always(lib, 503))
    mounts = {"http://plain.example": None, "http://a.example": shared, "all://*b.example": shared}
    bulkhead = Bulkhead(1)
    client = lib.AsyncClient(transport=lib.MockTransport(always(lib, 200)), mounts=mounts)
    assert protect(client, Pipeline(bulkhead, retry(2)), key="origin") is client
    async with client:
        attempts = {
            host: (await client.get(f"http://{host}.example/")).extensions["resilience"].attempts
            for host in ("a", "b", "plain", "other")
        }
    assert attempts == {"a": 2, "b": 2, "plain": 1, "other": 1}
    made = [transport for transport in client._mounts.values() if transport is not None]
    assert len(set(map(id, made))) == 1
    assert isinstance(made[0], ResilientTransport)
    assert None in client._mounts.values()


async def test_proxies_of_the_environment_are_used(
    lib: Any, server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    target = "http://upstream.example/orders"
    server.answer(target, Answer(503), Answer(200, b"by proxy"))
    async with protect(lib.AsyncClient(), retry(2)) as client:
        assert (await client.get(target)).content == b"by proxy"
        assert (await client.get(server.answer("/", Answer(200, b"direct")))).content == b"direct"
    assert len(server.received(target)) == 2
    assert len(server.received("/")) == 1


async def test_a_proxy_given_to_the_transport_is_used(lib: Any, server: MisbehavingServer) -> None:
    target = "http://upstream.example/orders"
    server.answer(target, Answer(503), Answer(200, b"by proxy"))
    async with lib.AsyncClient(transport=ResilientTransport(retry(2), proxy=server.url)) as client:
        assert (await client.get(target)).content == b"by proxy"
    assert len(server.received(target)) == 2


async def test_options_go_to_the_transport(lib: Any) -> None:
    client = protect(lib.AsyncClient(transport=lib.MockTransport(always(lib, 404))), retry(2), statuses={404})
    async with client:
        assert (await client.get("http://a/")).extensions["resilience"].attempts == 2


@pytest.mark.parametrize("kind", ["Client", "str"])
def test_anything_else_is_refused(lib: Any, kind: str) -> None:
    client = lib.Client() if kind == "Client" else "client"
    with pytest.raises(TypeError, match="client must be an httpx or httpx2 AsyncClient, got"):
        protect(client, retry())
