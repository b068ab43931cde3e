"""respx, which mocks httpx, under our transport; and the types of a client of either library.

respx has to stay at its default of mocking httpcore: `using="httpx"` takes the whole transport away, ours included.
"""

from __future__ import annotations

from typing import Any

import httpx
import httpx2
import pytest
import respx

from resilience import CircuitBreaker, Pipeline
from resilience_httpx import ResilientTransport

from .support import retry

pytestmark = pytest.mark.anyio


async def test_a_mocked_route_is_tried_until_it_answers() -> None:
    breaker = CircuitBreaker()
    with respx.mock(base_url="https://api.example") as router:
        route = router.get("/orders").mock(
            side_effect=[httpx.ConnectError("refused"), httpx.Response(503), httpx.Response(200, json=["order"])]
        )
        transport = ResilientTransport(Pipeline(retry(3), breaker))
        async with httpx.AsyncClient(transport=transport, base_url="https://api.example") as client:
            response = await client.get("/orders")
        assert route.call_count == response.extensions["resilience"].attempts == 3
    assert response.json() == ["order"]
    assert (breaker.metrics().calls, breaker.metrics().failures) == (3, 2)


async def test_a_router_as_inner_transport() -> None:
    with respx.mock(assert_all_called=False) as router:
        router.put("https://api.example/orders/1").mock(return_value=httpx.Response(503, content=b"busy"))
        transport = ResilientTransport(retry(2), httpx.MockTransport(router.async_handler))
        async with httpx.AsyncClient(transport=transport) as client:
            response = await client.put("https://api.example/orders/1", content=b"order")
        calls: Any = router.calls
        assert [call.request.content for call in calls] == [b"order"] * 2
    assert response.content == b"busy"


async def test_it_is_a_transport_for_type_checkers_too() -> None:
    transport = ResilientTransport(retry(2))
    old: httpx.AsyncBaseTransport = transport
    new: httpx2.AsyncBaseTransport = transport
    stacked = ResilientTransport(retry(2), transport)
    async with httpx.AsyncClient(transport=stacked), httpx2.AsyncClient(transport=stacked, mounts={"all://": new}):
        assert old is transport
