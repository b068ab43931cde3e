"""The upstream: a real HTTP server that goes through the phases of the plan, and counts what it receives.

Its capacity is real in the sense that matters: few requests at a time, a short queue, and work that is done to
its end even if the caller has left. Dead means dead: connections are cut, new ones refused, the queue is lost.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from .child import Job, Link, run_child
from .plan import CONCURRENCY, DUE_HEADER, QUEUE

REPORT_EVERY = 0.25

_BACKLOG = 512


class Upstream:
    """One life of the server, from its start to its death."""

    def __init__(self, job: Job, link: Link, port: int, arrivals: list[tuple[float, float | None]]) -> None:
        self._plan, self._link, self._arrivals = job.plan, link, arrivals
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._waiting = 0
        self._socket = bound(port)
        app = Starlette(routes=[Route("/", self._answer)])
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none", server_header=False)
        self._server = uvicorn.Server(config)
        self._serving: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen: connections are taken at once, and answered as soon as the server has started."""
        self._socket.listen(_BACKLOG)
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def die(self) -> None:
        """Stop listening and cut every connection, whatever it carries."""
        assert self._serving is not None
        self._server.should_exit = self._server.force_exit = True
        while not self._serving.done():
            for connection in list(self._server.server_state.connections):
                connection.transport.abort()
            await asyncio.sleep(0.01)

    async def _answer(self, request: Request) -> Response:
        at = self._link.elapsed()
        due = request.headers.get(DUE_HEADER)
        self._arrivals.append((at, float(due) if due else None))
        if self._plan.phase_at(at).fails or self._waiting >= QUEUE:
            return PlainTextResponse("try again later", 503)
        self._waiting += 1
        async with self._slots:
            self._waiting -= 1
            await asyncio.sleep(self._plan.service_at(self._link.elapsed()))
        return PlainTextResponse("here you are")


async def serve(job: Job, link: Link) -> None:
    """Live, die and live again as the plan says; report what arrived until the parent ends us."""
    arrivals: list[tuple[float, float | None]] = []
    with bound(0) as reserved:  # keeps the port ours while nobody listens on it
        port = reserved.getsockname()[1]
        life = Upstream(job, link, port, arrivals)
        life.start()
        await link.begin(url=f"http://127.0.0.1:{port}")
        reporting = asyncio.create_task(_report(link, arrivals))
        try:
            died, revived = job.plan.span("dead")
            await link.until(died)
            await life.die()
            await link.until(revived)
            life = Upstream(job, link, port, arrivals)
            life.start()
            await asyncio.Event().wait()
        finally:
            reporting.cancel()
            _flush(link, arrivals)


def bound(port: int) -> socket.socket:
    """A socket on a loopback port that others of ours may share."""
    each = socket.socket()
    each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    each.bind(("127.0.0.1", port))
    return each


async def _report(link: Link, arrivals: list[Any]) -> None:
    while True:
        await asyncio.sleep(REPORT_EVERY)
        _flush(link, arrivals)


def _flush(link: Link, arrivals: list[Any]) -> None:
    link.tell(arrivals=arrivals)
    arrivals.clear()


if __name__ == "__main__":
    run_child(serve)
