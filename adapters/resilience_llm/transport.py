"""LimitedTransport: a provider's limits under the client you have.

client = httpx2.AsyncClient(transport=LimitedTransport(LLMLimits(OPENAI, requests=60, tokens=20_000)))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from resilience.errors import ResilienceError
from resilience_httpx.closing import undisturbed
from resilience_httpx.errors import in_tree
from resilience_httpx.host import Host, host_of
from resilience_httpx.inner import OuterTransport
from resilience_httpx.stranded import close_stranded

from .body import metered_body
from .estimate import Estimate
from .journey import Journey
from .limits import Booked, LLMLimits
from .model_call import model_call
from .tally import Tally

if TYPE_CHECKING:
    import httpx
    import httpx2


_NOTHING = Estimate(0, 0)


class LimitedTransport(OuterTransport):
    """A transport for `httpx.AsyncClient` and `httpx2.AsyncClient` that keeps the limits of a provider of models.

    `transport` does the sending; by default the library's own. Every request to one of the profile's paths is charged
    its estimate before it is sent, waiting for that if it must; all others pass untouched. When its answer has been
    read, closed or broken it is charged what was used, as reported, or as far as it came. Nothing is charged for a
    request that was not sent or was answered 429 (529), no tokens for one that was answered with any other status
    from 300. What the headers of a response say of the limits is taken over.

    Raises RateLimitedError, which is also the library's `TransportError`, for a request that would wait too long;
    TypeError at construction for bad options.
    """

    def __init__(
        self, limits: LLMLimits, transport: httpx.AsyncBaseTransport | httpx2.AsyncBaseTransport | None = None
    ) -> None:
        if not isinstance(limits, LLMLimits):
            raise TypeError(f"limits must be LLMLimits, got {limits!r}")
        if transport is not None and not callable(getattr(transport, "handle_async_request", None)):
            raise TypeError(f"transport must be an async transport, got {transport!r}")
        self.limits: LLMLimits = limits
        super().__init__(transport)

    @overload
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response: ...
    @overload
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response: ...
    async def handle_async_request(self, request: Any) -> Any:
        """Send a request within the limits; clients call it."""
        host = host_of(request)
        call = model_call(request, self.limits.profile.paths)
        if call is None:
            return await self._inner(host).handle_async_request(request)
        try:
            booked = await self.limits.reserve(call)
        except ResilienceError as error:
            raise in_tree(error, host, request) or error from None
        response = await self._send(host, request, booked)
        try:
            return await self._judged(host, response, booked)
        except BaseException:  # a cancellation: nobody will see this response
            await undisturbed(response.aclose())
            raise

    async def _send(self, host: Host, request: Any, booked: Booked) -> Any:
        """Send, and give back what a request was charged that did not leave or was not let in."""
        inner, extensions = self._inner(host), request.extensions
        journey = Journey(extensions.get("trace"), isinstance(inner, host.AsyncHTTPTransport))
        request.extensions = {**extensions, "trace": journey.trace}
        try:
            response = await inner.handle_async_request(request)
        except BaseException as error:
            if not isinstance(error, Exception):
                await close_stranded(inner)
            if journey.never_began(error):
                await self.limits.refund(booked)
            raise
        finally:
            request.extensions = extensions
        return response

    async def _judged(self, host: Host, response: Any, booked: Booked) -> Any:
        """Learn from a response; settle it now if it did no work, else when its body has been read."""
        status: int = response.status_code
        # Before the limits are drained: what is given back must not be there afterwards.
        if status in self.limits.profile.throttled:
            await self.limits.refund(booked)
        elif status >= 300:
            await self.limits.settle(booked, _NOTHING)
        await self.limits.learn(booked, status, response.headers)
        tally = Tally(self.limits.profile, host, response)

        async def finish() -> None:
            if status < 300 and (used := tally.used(booked.estimate)) is not None:
                await self.limits.settle(booked, used)

        if response.is_closed:  # all of it is in memory: nobody will read or close it
            tally.whole(response.content)
            await finish()
        else:
            response.stream = metered_body(response.stream, host, tally.take, finish)
        return response
