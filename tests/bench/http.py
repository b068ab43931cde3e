"""Under httpx: our five policies, those of others, httpx-retries and nothing, on a stub and against a real server.

The others are put around the inner transport as around any function: they see exceptions, and no statuses.

Bar: on the stub our five policies cost less than httpx-retries alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx

from resilience_httpx import ResilientTransport
from tests.bench import checks
from tests.bench.contest import OURS, Contestant, Field, Setup, Wrap
from tests.bench.guards import stacks
from tests.bench.peers import MissingError, installed, module
from tests.bench.report import Bar, Report, Table
from tests.bench.timing import Times, Work, interleave
from tests.support.http_server import MisbehavingServer

BARE = "httpx alone"
FIVE = f"{OURS}, five policies"
BY_ORIGIN = f"{OURS}, five policies by origin"
RETRIES = "httpx-retries, retry alone"
SETUPS = 10


class Stub(httpx.AsyncBaseTransport):
    """Answers 200 at once, and fails as often as it is told."""

    def __init__(self, failures: int = 0) -> None:
        self.requests = 0
        self._failures = failures

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        if self.requests <= self._failures:
            return httpx.Response(503)
        return httpx.Response(200)


class Wrapped(httpx.AsyncBaseTransport):
    """A transport whose sending is guarded like any function."""

    def __init__(self, inner: httpx.AsyncBaseTransport, wrap: Wrap) -> None:
        send: Any = inner.handle_async_request
        self._send: Any = wrap(send)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response: httpx.Response = await self._send(request)
        return response


Make = Callable[[httpx.AsyncBaseTransport], httpx.AsyncBaseTransport]


def run(size: float = 1.0) -> Report:
    """Run the benchmark: 300 samples on the stub, 100 against the server at size 1."""
    report = Report("http")
    asyncio.run(_run(report, max(3, round(300 * size)), max(3, round(100 * size))))
    return report


async def _run(report: Report, rounds: int, on_wire: int) -> None:
    makes: dict[str, Make] = {BARE: lambda inner: inner, FIVE: _ours, BY_ORIGIN: _ours_by_origin}
    try:
        makes[RETRIES] = _retries()
        report.peers["httpx-retries"] = installed("httpx-retries") or ""
    except MissingError as reason:
        report.missing["httpx-retries"] = str(reason)
    for name, make in makes.items():
        if name != BARE:
            await _must_retry(name, make)
    others = await Field(report).admit([*stacks.PEERS, stacks.POPULAR], checks.all_five)
    makes |= {f"{name}, five policies": _wrapped(each) for name, each in others.items()}
    times = await _on_stub(makes, rounds)
    report.tables.append(_table("a request through the transport, stub behind it", times))
    if RETRIES in times:
        ours, theirs = times[FIVE].over(times[BARE]), times[RETRIES].over(times[BARE])
        report.bars.append(Bar("stub: overhead of our five policies / of httpx-retries alone", ours / theirs, 1.0))
    async with AsyncExitStack() as stack:
        clients = {name: httpx.AsyncClient(transport=make(Stub())) for name, make in makes.items()}
        works = {
            name: _got(await stack.enter_async_context(client), "http://stub/") for name, client in clients.items()
        }
        report.tables.append(_table("client.get, stub behind the transport", await interleave(works, rounds)))
    with MisbehavingServer() as server:
        async with AsyncExitStack() as stack:
            clients = {
                name: httpx.AsyncClient(transport=make(httpx.AsyncHTTPTransport())) for name, make in makes.items()
            }
            works = {name: _got(await stack.enter_async_context(each), server.url) for name, each in clients.items()}
            times = await interleave(works, on_wire)
    report.tables.append(_table("client.get from a server on this machine", times))


async def _on_stub(makes: dict[str, Make], rounds: int) -> dict[str, Times]:
    """Time the transports alone, several of each: where objects lie in memory counts for a tenth of the overhead."""
    samples: dict[str, list[float]] = {name: [] for name in makes}
    for _ in range(SETUPS):
        works = {name: _transported(make(Stub())) for name, make in makes.items()}
        for name, times in (await interleave(works, max(3, rounds // SETUPS))).items():
            samples[name] += times.samples
    return {name: Times(found) for name, found in samples.items()}


def _ours(inner: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
    return ResilientTransport(stacks.ours(Setup()), transport=inner)


def _ours_by_origin(inner: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
    return ResilientTransport(stacks.ours(Setup()), transport=inner, key="origin")


def _wrapped(contestant: Contestant) -> Make:
    return lambda inner: Wrapped(inner, contestant.make(Setup()))


def _retries() -> Make:
    library: Any = module("httpx-retries")
    retry = library.Retry(total=2, backoff_factor=0.001)
    make: Make = lambda inner: library.RetryTransport(transport=inner, retry=retry)  # noqa: E731
    return make


async def _must_retry(name: str, make: Make) -> None:
    """Two answers of 503 are tried again."""
    stub = Stub(failures=2)
    response = await make(stub).handle_async_request(httpx.Request("GET", "http://stub/"))
    assert (response.status_code, stub.requests) == (200, 3), f"{name} does not retry"


def _transported(transport: httpx.AsyncBaseTransport) -> Work:
    request = httpx.Request("GET", "http://stub/")

    async def send(order: int) -> object:
        response = await transport.handle_async_request(request)
        await response.aclose()
        return response

    # The interpreter adapts a place in the code to the type that it meets there. A program has one transport where
    # it sends; here several would take turns at one place, and whoever comes after another would pay for it.
    send.__code__ = send.__code__.replace()
    return send


def _got(client: httpx.AsyncClient, url: str) -> Work:
    async def get(order: int) -> object:
        response = await client.get(url)
        assert response.status_code == 200
        return response

    return get


def _table(title: str, times: dict[str, Times]) -> Table:
    table = Table(title, ("", "median us", "least us", "over httpx alone us", "share"), chart="over httpx alone us")
    for name, found in times.items():
        over = found.over(times[BARE])
        table.add(name, found.median / 1000, found.least / 1000, over / 1000, over / times[BARE].median)
    return table
