"""Shadow copies: what another system would have answered, without anybody waiting for it.

Shadow("new", part=0.1, limit=10)
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import anyio

from resilience import clock
from resilience._validate import check_integer, check_number
from resilience.events import ShadowAnswered, ShadowDropped
from resilience.running._jobs import Job, begin, home

from ..exchange import fresh
from ..host import host_of
from .base import Announcer

SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "QUERY"})
"""Methods that change nothing (RFC 9110, section 9.2.1)."""


@dataclass(frozen=True, slots=True)
class Shadow:
    """Copies of requests for the route `to`, unless that is where the request itself goes.

    Of the requests with a method in `methods` (default: those that change nothing) and a body of bytes, the part
    `part` (1.0) is copied, at most `limit` (10) copies at a time; one beyond is dropped. A copy that takes longer than
    `timeout` (10 s) is ended. Its answer is read and thrown away, its errors too: both are only seen in events.

    Other idempotent methods (PUT, DELETE) are for systems that share no data with those that answer.
    Raises TypeError or ValueError for values out of range.
    """

    to: str
    part: float = 1.0
    methods: Collection[str] = SAFE
    limit: int = 10
    timeout: float = 10.0

    def __post_init__(self) -> None:
        check_number("part", self.part, above=0, most=1)
        check_integer("limit", self.limit, 1)
        check_number("timeout", self.timeout, above=0)
        if isinstance(self.methods, str) or not all(isinstance(method, str) for method in self.methods):
            raise TypeError(f"methods must be a collection of method names, got {self.methods!r}")


class Shadows:
    """Sends copies in the background."""

    def __init__(self, shadow: Shadow, transport: Any, random: Callable[[], float], announcer: Announcer) -> None:
        self._shadow = shadow
        self._methods = frozenset(method.upper() for method in shadow.methods)
        self._transport = transport
        self._random = random
        self._announcer = announcer
        self._jobs: set[Job] = set()

    def cast(self, request: Any) -> None:
        """Begin to send a copy, if `request` is one to copy and there is room. Never fails, never waits."""
        # A file is read from one place only: the body that is sent must not have its copy reading it too.
        if request.method not in self._methods or not isinstance(request.stream, host_of(request).ByteStream):
            return
        if self._shadow.part < 1 and self._random() >= self._shadow.part:
            return
        here = home()
        self._jobs = {job for job in self._jobs if job.home is here}
        if len(self._jobs) >= self._shadow.limit:
            self._announcer.emit(ShadowDropped, self._shadow.to)
            return
        copy = fresh(request)
        copy.extensions.pop("trace", None)
        self._begin(copy)

    async def aclose(self) -> None:
        """End all copies under way."""
        here, jobs = home(), self._jobs
        self._jobs = set()
        for job in jobs:
            if job.home is here:
                await job.stop()

    def _begin(self, copy: Any) -> None:
        async def work() -> None:
            try:
                await self._send(copy)
            finally:
                self._jobs.discard(job)

        # Not in the caller's context: its deadline is none of the copy's.
        job = contextvars.Context().run(begin, work)
        self._jobs.add(job)

    async def _send(self, copy: Any) -> None:
        started = clock.now()
        status: int | None = None
        problem: Exception | None = TimeoutError(f"longer than {self._shadow.timeout:g} s")
        with anyio.move_on_after(self._shadow.timeout):
            try:
                response = await self._transport.handle_async_request(copy)
                status = response.status_code
                try:
                    async for _ in response.stream:
                        pass
                finally:
                    await response.aclose()
                problem = None
            except Exception as error:
                problem = error
        self._announcer.emit(ShadowAnswered, self._shadow.to, status, clock.now() - started, problem)
