"""The matrix: method, body, fault, streamed or not, redirected or not, HTTP/1.1 and HTTP/2, against a real server.

Each case has to be sent as often as the rules say, with the same bytes every time, and to end as they say; in the end
no connection is in use and no permit missing. A part of the matrix by default, all of it in the long run.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import anyio
import pytest

from resilience import Bulkhead, CircuitBreaker, Pipeline, Timeout
from resilience_httpx import ResilientTransport
from tests.support.http_server import Answer, MisbehavingServer
from tests.support.rules import LONG

from .matrix import ATTEMPTS, CONTENT, PATIENCE, Case, cases
from .support import assert_unused, retry

# Both libraries leave generators of their own to the garbage collector when sending breaks off, and trio says so.
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2?\\.:ResourceWarning"),
]

STEP = 13
"""Every how many-th case is run by default; has no factor in common with the sizes of the matrix."""


class Run:
    """One case under way, with all that can be counted afterwards."""

    def __init__(self, case: Case, number: int, server: MisbehavingServer, lib: Any, inner: Any) -> None:
        self.case = case
        self._lib = lib
        self._server = server
        self._path = f"/{number}"
        self._outside, self._inside = Bulkhead(1, name="outside"), Bulkhead(1, name="inside")
        self._breaker = CircuitBreaker(minimum_calls=100)
        seconds = PATIENCE if case.hangs else 20
        guards = (self._outside, Timeout(30), retry(ATTEMPTS, budget=None), self._breaker, self._inside)
        self._client = lib.AsyncClient(transport=ResilientTransport(Pipeline(*guards, Timeout(seconds)), inner))

    async def problems(self) -> list[str]:
        """What is not as it should be."""
        self._server.answer(self._path, *self.case.answers)
        url = self._server.url + self._path
        if self.case.redirect:
            url = self._server.answer(f"{self._path}/old", Answer(self.case.redirect, b"", {"Location": self._path}))
        outcome = await self._outcome(url)
        expected, metrics = self.case.expected(), self._breaker.metrics()
        received = self._server.received(self._path)
        checks = {
            "sends": (len(received), expected.sends),
            "outcome": (outcome, (expected.status, b"" if expected.errors else expected.body, expected.errors)),
            "method and body": ({self._sent(one.method, one.body) for one in received}, {self.case.arriving}),
            "same bytes": (len({one.body for one in received}), 1),
            "verdicts": ((metrics.calls, metrics.failures), (expected.calls, expected.failures)),
            "permits": ((self._outside.in_use(), self._inside.in_use()), (0, 0)),
        }
        return [
            f"{self.case}: {what} {found}, not {right}" for what, (found, right) in checks.items() if found != right
        ]

    def _sent(self, method: str, body: bytes) -> tuple[str, bytes]:
        """A body as the case names it; a form is known by what it has around the file."""
        form = self.case.body == "multipart" and body.startswith(b"--") and body.endswith(b"--\r\n")
        return method, CONTENT if form and CONTENT in body else body

    async def _outcome(self, url: str) -> tuple[int, bytes, tuple[str, ...]]:
        request: dict[str, Any] = {"url": url, "follow_redirects": True, **self.case.request()}
        try:
            if not self.case.stream:
                response = await self._client.request(**request)
                return response.status_code, response.content, ()
            async with self._client.stream(**request) as response:
                body = b"".join([chunk async for chunk in response.aiter_bytes()])
            return response.status_code, body, ()
        except self._lib.TransportError as error:
            bases = {kind.__name__ for kind in type(error).__mro__}
            if self.case.http2 and "NetworkError" in bases:  # what the client sends last may meet a closed socket
                bases.add("RemoteProtocolError")
            expected = self.case.expected().errors
            return 0, b"", tuple(name for name in expected if name in bases) or (repr(error),)


async def run_all(chosen: list[Case], server: MisbehavingServer, lib: Any, http2: bool) -> list[str]:
    """The problems of many cases.

    Eight are under way at any time: over the same connections in HTTP/1.1; in HTTP/2 each over one of its own, or a
    connection that is cut for one would be cut for all.
    """
    problems: list[str] = []
    waiting = iter(enumerate(chosen))
    inners = [lib.AsyncHTTPTransport(verify=False, http1=not http2, http2=http2) for _ in range(8 if http2 else 1)]

    async def work(inner: Any) -> None:
        for number, case in waiting:
            problems.extend(await Run(case, number, server, lib, inner).problems())
            if http2:
                assert_unused(inner)

    async with anyio.create_task_group() as group:
        for n in range(8):
            group.start_soon(work, inners[n % len(inners)])
    for inner in inners:
        assert_unused(inner)
        await inner.aclose()
    return problems


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
async def test_a_part_of_the_matrix(lib: Any, server: MisbehavingServer, http2: bool) -> None:
    chosen = list(islice(cases(http2), 3, None, STEP))
    assert len(chosen) >= 120
    assert {(case.method, case.body) for case in chosen} == {(case.method, case.body) for case in cases(http2)}
    assert {case.fault for case in chosen} == {case.fault for case in cases(http2)}
    problems = await run_all(chosen, server, lib, http2)
    assert not problems, "\n".join(problems)


@pytest.mark.long
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
async def test_the_whole_matrix(lib: Any, server: MisbehavingServer, http2: bool) -> None:
    chosen = list(islice(cases(http2), 0, None, 1 if LONG else 5))
    problems = await run_all(chosen, server, lib, http2)
    assert not problems, "\n".join(problems)
