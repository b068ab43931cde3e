"""Lists of endpoints that change while the program runs."""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from resilience import Event
from resilience.events import EndpointsChanged, EndpointsUnresolved
from resilience.testing import run
from resilience_httpx import Balanced, DnsResolver, Endpoint, FileResolver, FunctionResolver, NoEndpointError
from tests.support.http_server import Answer, MisbehavingServer

from .fake_fleet import URLS, FakeFleet, body


@pytest.fixture(params=["asyncio", "trio"])
def go(request: pytest.FixtureRequest) -> Any:
    """Runs a function in virtual time."""
    return partial(run, backend=request.param)


@pytest.fixture
def lib() -> Any:
    return importlib.import_module("httpx2")


def urls(balanced: Balanced) -> list[str]:
    return [status.endpoint.url for status in balanced.status()]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_function_is_asked_before_the_first_request_and_then_now_and_then(
    lib: Any, go: Any, asynchronous: bool
) -> None:
    fleet = FakeFleet(lib)
    events: list[Event] = []
    calls: list[int] = []
    lists: list[Any] = [URLS[:2], [URLS[1], Endpoint(URLS[2], weight=3)], OSError("no answer"), [], URLS[:1]]

    def plain() -> Iterable[str | Endpoint]:
        found = lists[len(calls)]
        calls.append(1)
        if isinstance(found, Exception):
            raise found
        return found  # type: ignore[no-any-return]  # one of the lists above

    async def waiting() -> Iterable[str | Endpoint]:
        await anyio.sleep(1)
        return plain()

    async def main() -> None:
        resolver = FunctionResolver(waiting if asynchronous else plain, interval=10)
        balanced = fleet.balanced(resolver, strategy="weighted")
        balanced.listen(events.append)
        assert urls(balanced) == []
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(fleet.get, balanced)
        assert len(calls) == 1  # once for all who wait for it
        assert urls(balanced) == URLS[:2]
        await anyio.sleep(12)
        assert urls(balanced) == URLS[1:3]
        assert [status.endpoint.weight for status in balanced.status()] == [1, 3]
        await anyio.sleep(23)
        assert urls(balanced) == URLS[1:3]  # an error, an empty list: what there was stays
        await anyio.sleep(12)
        assert urls(balanced) == URLS[:1]
        await balanced.aclose()

    go(main)
    assert [event for event in events if isinstance(event, EndpointsChanged)] == [
        EndpointsChanged("", "balanced", (URLS[2],), (URLS[0],)),
        EndpointsChanged("", "balanced", (URLS[0],), (URLS[1], URLS[2])),
    ]
    errors = [event.error for event in events if isinstance(event, EndpointsUnresolved)]
    assert [str(error) for error in errors] == ["no answer", "endpoints must not be empty"]


def test_without_a_first_list_all_who_wait_get_the_same_error_and_the_next_asks_again(lib: Any, go: Any) -> None:
    fleet = FakeFleet(lib)
    calls: list[int] = []

    async def slow() -> list[str]:
        calls.append(1)
        await anyio.sleep(5)
        if len(calls) == 1:
            raise OSError("no answer")
        return URLS

    async def main() -> None:
        balanced = fleet.balanced(slow)
        errors: list[NoEndpointError] = []

        async def get() -> None:
            try:
                await fleet.get(balanced)
            except lib.TransportError as error:
                errors.append(error)

        with anyio.fail_after(5.1):
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(get)
        assert [str(error) for error in errors] == ["balanced has no endpoints yet"] * 5
        assert {str(error.__cause__) for error in errors} == {"no answer"}
        await fleet.get(balanced)
        assert len(calls) == 2
        await balanced.aclose()

    go(main)


def test_who_waits_for_the_first_list_may_be_cancelled(lib: Any, go: Any) -> None:
    fleet = FakeFleet(lib)

    async def slow() -> list[str]:
        await anyio.sleep(5)
        return URLS

    async def main() -> None:
        balanced = fleet.balanced(slow)
        with anyio.move_on_after(1) as scope:
            await fleet.get(balanced)
        assert scope.cancelled_caught
        assert (await fleet.get(balanced)).status_code == 200
        await balanced.aclose()

    go(main)


def test_removed_endpoints_finish_and_are_closed(lib: Any, go: Any) -> None:
    fleet = FakeFleet(lib)
    found = URLS[:2]

    async def main() -> None:
        balanced = fleet.balanced(lambda: found, strategy="round_robin")
        responses: list[Any] = [
            await balanced.handle_async_request(lib.Request("GET", "http://orders/", content=body(lib, b"x")))
            for _ in range(4)
        ]
        found[:] = URLS[2:3]
        await balanced.refresh()
        assert fleet.closed == []
        for response in responses[:3]:
            assert await response.aread() == b"ok"
        assert fleet.closed == [URLS[0]]
        await fleet.get(balanced)
        await balanced.aclose()  # also the one that still drains
        assert sorted(fleet.closed) == URLS[:3]
        await responses[3].aclose()
        found[:] = URLS[:1]
        await balanced.refresh()  # back again, as a new one
        await fleet.get(balanced)
        found[:] = URLS[1:2]
        await balanced.refresh()
        assert fleet.closed.count(URLS[0]) == 2  # nothing was under way: closed at once
        await balanced.aclose()

    go(main)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_names_are_looked_up(backend: str) -> None:
    async def main() -> None:
        with MisbehavingServer() as server:
            port = int(server.url.rpartition(":")[2])
            resolver = DnsResolver("localhost", port=port, scheme="http", path="/v1", family="ipv4")
            balanced = Balanced(resolver)
            lib = importlib.import_module("httpx2")
            async with lib.AsyncClient(transport=balanced) as client:
                response = await client.get("http://orders/x")
            assert response.extensions["resilience_endpoint"] == f"http://127.0.0.1:{port}/v1"
            assert server.received("/v1/x")[0].headers["host"] == f"localhost:{port}"

    anyio.run(main, backend=backend)


def test_names_may_have_many_addresses_of_both_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with several addresses cannot be had from every machine's resolver."""
    addresses = ["10.0.0.2", "fd00::1", "10.0.0.1", "10.0.0.2"]

    async def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        assert (host, port, options["family"]) == ("api.example", 443, socket.AF_UNSPEC)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(anyio, "getaddrinfo", getaddrinfo)
    found = anyio.run(DnsResolver("api.example").resolve)
    assert [endpoint.url for endpoint in found] == [
        "https://10.0.0.1:443", "https://10.0.0.2:443", "https://[fd00::1]:443",
    ]  # fmt: skip
    assert {endpoint.host for endpoint in found} == {"api.example"}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_file_is_watched(backend: str, tmp_path: Path) -> None:
    file = tmp_path / "endpoints"
    resolver = FileResolver(file)

    async def main() -> None:
        with pytest.raises(OSError, match="endpoints"):
            await resolver.resolve()
        file.write_text("# ours\n\nhttp://a:81/v1 2.5\n  https://b\n")
        assert await resolver.resolve() == [Endpoint("http://a:81/v1", weight=2.5), Endpoint("https://b")]
        assert await resolver.resolve() is None
        file.write_text("http://c\n")
        assert await resolver.resolve() == [Endpoint("http://c")]
        for text, message in (
            ("http://a\nhttp://b x\n", "line 2: could not convert"),
            ("http://a 1 2\n", "line 1: a line has a URL and a weight"),
        ):
            file.write_text(text)
            for _ in range(2):  # it stays wrong until it is changed
                with pytest.raises(ValueError, match=message):
                    await resolver.resolve()
        os.utime(file, ns=(1, 1))
        with pytest.raises(ValueError, match="line 1"):
            await resolver.resolve()

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_changed_file_changes_the_endpoints(lib: Any, backend: str, tmp_path: Path) -> None:
    file = tmp_path / "endpoints"

    async def main() -> None:
        with MisbehavingServer() as one, MisbehavingServer() as two:
            for server, text in ((one, b"one"), (two, b"two")):
                server.answer("/", Answer(body=text))
            file.write_text(one.url)
            balanced = Balanced(FileResolver(file, interval=0.01))
            async with lib.AsyncClient(transport=balanced) as client:
                assert (await client.get("http://orders/")).text == "one"
                file.write_text(f"{two.url}\n")
                with anyio.fail_after(5):
                    while (await client.get("http://orders/")).text != "two":
                        await anyio.sleep(0.01)
                with anyio.fail_after(5):
                    while one.connections:
                        await anyio.sleep(0.01)

    anyio.run(main, backend=backend)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: FunctionResolver(7), TypeError, "function must be callable"),  # type: ignore[arg-type]  # the point
        (lambda: FunctionResolver(list, interval=0), ValueError, "interval must be greater than 0"),
        (lambda: FileResolver("x", interval=0), ValueError, "interval must be greater than 0"),
        (lambda: DnsResolver(""), ValueError, "name must be a non-empty string"),
        (lambda: DnsResolver("a", port=0), ValueError, "port must be at least 1"),
        (lambda: DnsResolver("a", port=70000), ValueError, "port must be at most 65535"),
        (lambda: DnsResolver("a", scheme="ftp"), ValueError, "url must be http or https"),
        (lambda: DnsResolver("a", family="inet"), ValueError, "family must be one of 'any'"),
        (lambda: DnsResolver("a", interval=0), ValueError, "interval must be greater than 0"),
    ],
)
def test_wrong_options_are_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
