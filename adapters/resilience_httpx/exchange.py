"""One request on its way through the policies: every attempt it makes, and what became of the answers.

exchange = Exchange(request, transport)
await policy.run(Call(operation, exchange.send))
"""

from __future__ import annotations

from asyncio import CancelledError
from dataclasses import dataclass
from typing import Any

from resilience import clock
from resilience.call import Call
from resilience.errors import RejectedError

from .closing import undisturbed
from .host import Host
from .overrides import EXTENSION
from .replay import Bookmark, shareable
from .sending import Sending
from .stranded import close_stranded
from .stream_timeout import Watch, with_first_byte


class BodyInUseError(RejectedError):
    """A hedge was not sent: its body is a file, which the first attempt is still reading."""


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


class Single(Report):
    """The report on a request that was sent once and never waited: only `elapsed` differs between two of them."""

    __slots__ = ()
    __qualname__ = "Report"  # what it is to a reader
    attempts = 1
    waited = 0.0


class Exchange:
    """The attempts of one request. Who makes one sets `call`, and the rest if it is not as usual."""

    __slots__ = (
        "_alive",
        "_attempts",
        "_host",
        "_in_attempts",
        "_sending",
        "_started",
        "_transport",
        "bookmark",
        "call",
        "request",
        "sending",
        "unsent",
        "watch",
    )

    def __init__(self, request: Any, transport: Any, host: Host, sending: Sending) -> None:
        self.request = request
        self.call: Call | None = None
        self.sending = sending
        self.bookmark: Bookmark | None = None
        self.unsent: tuple[type[Exception], ...] = ()
        """Errors after which a request may be sent again that may not be otherwise."""
        self.watch: Watch | None = None
        self._transport = transport
        self._host = host
        self._alive: list[Any] = []
        self._attempts = 0
        self._sending = 0
        self._in_attempts = 0.0
        self._started = clock.now()

    def began(self, moment: float, response: Any, error: BaseException | None) -> None:
        """Take over after a first attempt that began at `moment` and returned `response`, or raised `error`."""
        self._started = moment
        self._attempts = 1
        self._in_attempts = clock.now() - moment
        self._may_repeat(error)
        if response is not None:
            self._alive.append(response)

    async def send(self) -> Any:
        """Make one attempt, with a request of its own.

        Raises BodyInUseError if another attempt is under way whose body this one would read from.
        """
        if self._sending and not shareable(self.request.stream, self._host):
            raise BodyInUseError("another attempt is sending the only copy of the body", policy="ResilientTransport")
        if self.unsent and self.call is not None:
            self.call.repeatable = False  # it is being sent: nothing may be sent beside it
        started = clock.now()
        self._attempts += 1
        self._sending += 1
        failure: BaseException | None = None
        try:
            response = await self._first_part(await self._copy())
        except BaseException as error:
            failure = error
            raise
        finally:
            self._sending -= 1
            self._in_attempts += clock.now() - started
            self._may_repeat(failure)
            failure = None  # a frame and a traceback that hold each other would wait for the collector
        response.request = self.request
        return response

    async def _first_part(self, request: Any) -> Any:
        """The response; with its first byte, if there is a limit on that."""
        watch = self.watch
        if watch is None or watch.limits.first is None:
            return await self._received(request)

        async def received() -> Any:
            response = await self._received(request)
            await with_first_byte(response, self._host)
            return response

        return await watch.within(watch.limits.first, received)

    async def _received(self, request: Any) -> Any:
        try:
            response = await self._transport.handle_async_request(request)
        except CancelledError:
            await close_stranded(self._transport)
            raise
        self._alive.append(response)
        return response

    async def _copy(self) -> Any:
        """The request as it is sent this time."""
        if self.bookmark is not None and self._attempts > 1:
            await self.bookmark.rewind()
        request = fresh(self.request)
        if self.call is not None:
            self.sending.announce(request.headers, self._attempts, self.call)
        return request

    def _may_repeat(self, error: BaseException | None) -> None:
        if self.unsent and self.call is not None:
            self.call.repeatable = isinstance(error, self.unsent)

    async def close_others(self, chosen: Any = None) -> None:
        """Close every response that was received and is neither closed nor `chosen`."""
        if chosen is None:
            await close_stranded(self._transport)
        for response in self._alive:
            if response is not chosen and not response.is_closed:
                await undisturbed(response.aclose())

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
