"""Balanced: several servers behind one transport.

transport = ResilientTransport(orders, Balanced(["http://10.0.0.7", "http://10.0.0.8"]))
client = httpx2.AsyncClient(transport=transport)
response = await client.get("http://orders/17")
response.extensions["resilience_endpoint"]    # "http://10.0.0.8"
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Unpack

from resilience import clock
from resilience._validate import one_of
from resilience.events import EndpointsPanicked
from resilience.machines.balancing import OutlierRule, Pool, Strategy, chooser
from resilience.verdict import Classifier

from ..classify import HTTP_CLASSIFIER
from ..errors import in_tree
from ..host import host_of
from ..options import TransportOptions
from .base import Announcer, SharedTransport
from .endpoint import Endpoint, NoEndpointError, addressed
from .fleet import Fleet
from .flight import counted_body
from .health import HealthCheck
from .members import Connections, TransportFactory
from .passage import Passage, Tried
from .resolvers import Resolver, resolver_of

ENDPOINT = "resilience_endpoint"
"""The name in a response's extensions under which the URL of its endpoint is."""

_OUTLIERS = OutlierRule()


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """What a `Balanced` knows of one endpoint; `latency` in seconds, None before the first answer."""

    endpoint: Endpoint
    in_flight: int
    latency: float | None
    healthy: bool
    ejected: bool


class Balanced(Announcer, SharedTransport):
    """A transport that sends every request to one of several endpoints, for httpx and httpx2.

    `endpoints` is a list of URLs or `Endpoint`s, a function that returns one, or a `Resolver`. The scheme, host and
    port of a request are replaced by the endpoint's, whose path goes in front; `host` says what the Host header (and
    the name for TLS) is: the "endpoint"'s (default), the "request"'s, or a name.

    `strategy`: "two_choices" (default: the cheaper of two at random, by latency and load), "least_in_flight",
    "round_robin", "weighted", or "consistent_hash" by `key`, a function of the request (with `bound`, at most that many
    times its fair part of the load at any endpoint). Load lasts until the body has been read or closed, and so
    does the `latency` that is measured, unless it is "headers". `decay` (10 s) is the memory of latencies.

    `outliers` (default `OutlierRule()`; None: never) ejects endpoints that fail again and again, `health` (None) asks
    them in the background; below the part `panic` (0.5) of fit ones, health is ignored. For `slow_start` seconds (0)
    one that joins or recovers gets a growing part. `classifier` says what fails (default: as in ResilientTransport).
    Another attempt at the same request prefers an endpoint that has not failed it.

    `transport` makes the inner transport of an endpoint; by default each gets the library's own, with `options`, and so
    connection limits of its own. Removed endpoints finish what is under way, then their connections are closed.

    Raises TypeError or ValueError at construction for bad options; a request raises NoEndpointError, also a
    `TransportError` of the library, if there is none.
    """

    def __init__(
        self,
        endpoints: Iterable[str | Endpoint] | Callable[[], Any] | Resolver,
        *,
        strategy: Strategy = "two_choices",
        key: Callable[[Any], str | None] | None = None,
        bound: float | None = None,
        host: str = "endpoint",
        latency: Literal["body", "headers"] = "body",
        decay: float = 10.0,
        outliers: OutlierRule | None = _OUTLIERS,
        health: HealthCheck | None = None,
        panic: float = 0.5,
        slow_start: float = 0.0,
        classifier: Classifier = HTTP_CLASSIFIER,
        transport: TransportFactory | None = None,
        name: str = "balanced",
        random: Callable[[], float] = random.random,
        **options: Unpack[TransportOptions],
    ) -> None:
        if key is not None and not callable(key):
            raise TypeError(f"key must be a function of the request, got {key!r}")
        if (key is None) != (strategy != "consistent_hash"):
            raise ValueError("key must be given for consistent_hash, and for no other strategy")
        if not isinstance(host, str) or not host:
            raise ValueError(f"host must be a non-empty string, got {host!r}")
        if not isinstance(classifier, Classifier):
            raise TypeError(f"classifier must be a Classifier, got {classifier!r}")
        if outliers is not None and not isinstance(outliers, OutlierRule):
            raise TypeError(f"outliers must be an OutlierRule, got {outliers!r}")
        super().__init__(name)
        self._key = key
        self._host = host
        self._whole = one_of("latency", latency, ("body", "headers")) == "body"
        self._decay = decay
        self._classifier = classifier
        self._random = random
        self._pool = Pool(
            chooser(strategy, decay=decay, bound=bound),
            outliers=outliers,
            panic=panic,
            slow_start=slow_start,
            decay=decay,
        )
        connections = Connections(transport, options)
        self._fleet = Fleet(self._pool, resolver_of(endpoints), connections, health, host, random, self)
        self._tried = Tried()
        self._panicking = False

    def status(self) -> list[EndpointStatus]:
        """All endpoints there are now."""
        now = clock.now()
        return [
            EndpointStatus(
                member.endpoint,
                member.state.in_flight,
                member.state.latency(now, self._decay) if member.state.known else None,
                member.state.healthy,
                member.state.ejected_until is not None,
            )
            for member in self._fleet.members()
        ]

    async def refresh(self) -> None:
        """Ask for the list of endpoints now. Raises what the resolver raises; then the old list stays in use."""
        await self._fleet.refresh()

    async def _send(self, request: Any) -> Any:
        host = host_of(request)
        try:
            await self._fleet.ready(request.__class__)
            passage = self._begin(request)
        except NoEndpointError as error:
            raise (in_tree(error, host, request) or error) from error.__cause__
        member = passage.member
        response: Any = None
        try:
            copy = addressed(request, member.endpoint, self._host)
            response = await member.transport(host).handle_async_request(copy)
            passage.answered(response, whole=self._whole)
        except BaseException as error:
            passage.end(error)
            if response is not None:
                await response.aclose()
            await passage.settle()
            if isinstance(error, Exception):
                error.add_note(f"endpoint: {member.endpoint.url}")
            raise
        response.extensions[ENDPOINT] = member.endpoint.url
        if response.is_closed:  # all of it is in memory: nobody will read or close it
            passage.end()
            await passage.settle()
        else:
            response.stream = counted_body(response.stream, passage, host)
        return response

    async def aclose(self) -> None:
        """End the work in the background and close the connections to all endpoints; another request reopens them."""
        await self._fleet.aclose()

    def _begin(self, request: Any) -> Passage:
        """Choose an endpoint and count the request."""
        pool, now = self._pool, clock.now()
        tried = self._tried.of(request)
        key = None if self._key is None else self._key(request)
        state = pool.pick(now, (self._random(), self._random()), key, tried)
        if pool.panicking is not self._panicking:
            self._panicking = pool.panicking
            if self._panicking:
                self.emit(EndpointsPanicked, len(pool.fit(now)), len(pool.endpoints))
        if state is None:
            raise NoEndpointError(f"{self.name} has no endpoint for a request", policy=self.name)
        return Passage(self._fleet.member(state), pool.begin(state, now), pool, tried, self._classifier, self)
