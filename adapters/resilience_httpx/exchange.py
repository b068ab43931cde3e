"""One request on its way through the policies: every attempt it makes, and what became of the answers.

exchange = Exchange(request, transport)
await policy.run(Call(operation, exchange.send))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import anyio

from resilience import clock

from .overrides import EXTENSION


@dataclass(slots=True, init=False)
class Report:
    """How a response came about, in `response.extensions["resilience"]`. Times are in seconds.

    Whoever makes one fills it in: of all kinds of records that is the cheapest, and every response gets one.
    """

    attempts: int
    """How often the request was sent; 0 if a fallback answered without sending it."""
    elapsed: float
    """From the start to the headers of this response, everything included."""
    waited: float
    """The part of `elapsed` in which no attempt was under way: queues, rate limits, back-off."""


class Exchange:
    """The attempts of one request."""

    __slots__ = ("_alive", "_attempts", "_in_attempts", "_started", "_transport", "request")

    def __init__(self, request: Any, transport: Any) -> None:
        self.request = request
        self._transport = transport
        self._alive: list[Any] = []
        self._attempts = 0
        self._in_attempts = 0.0
        self._started = clock.now()

    def began(self, moment: float, response: Any) -> None:
        """Take over after a first attempt that began at `moment` and returned `response`, if it returned."""
        self._started = moment
        self._attempts = 1
        self._in_attempts = clock.now() - moment
        if response is not None:
            self._alive.append(response)

    async def send(self) -> Any:
        """Make one attempt, with a request of its own."""
        started = clock.now()
        self._attempts += 1
        try:
            response = await self._transport.handle_async_request(fresh(self.request))
        finally:
            self._in_attempts += clock.now() - started
        self._alive.append(response)
        response.request = self.request
        return response

    async def close_others(self, chosen: Any = None) -> None:
        """Close every response that was received and is neither closed nor `chosen`."""
        for response in self._alive:
            if response is not chosen and not response.is_closed:
                with anyio.CancelScope(shield=True):
                    await response.aclose()

    def report(self) -> Report:
        """What has happened so far."""
        report = Report()
        report.attempts = self._attempts
        report.elapsed = elapsed = clock.now() - self._started
        report.waited = max(0.0, elapsed - self._in_attempts)
        return report


def fresh(request: Any) -> Any:
    """A copy of `request` for one transport to work on; the body is shared.

    Transports and their hooks write into headers, extensions and timeouts; the next attempt must not see it.
    """
    kind: Any = request.__class__
    copy: Any = object.__new__(kind)
    copy.__dict__.update(request.__dict__)
    copy.headers = request.headers.copy()
    copy.extensions = {
        name: dict(value) if name == "timeout" else value
        for name, value in request.extensions.items()
        if name != EXTENSION
    }
    return copy
