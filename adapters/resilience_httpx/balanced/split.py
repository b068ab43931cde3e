"""Split: traffic divided between versions or systems, and moved from one to another while the program runs.

split = Split(
    {"stable": Balanced([...]), "canary": Balanced([...])},
    weights={"stable": 95, "canary": 5},
    key=lambda request: request.headers.get("x-user"),   # a user stays with a version
    header="x-version",                                  # unless the request asks for one
)
split.shift({"stable": 50, "canary": 50})
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Literal

from resilience._validate import check_number
from resilience.machines.balancing import rank

from .base import Announcer, SharedTransport
from .shadow import Shadow, Shadows

ROUTE = "resilience_route"
"""The name in a response's extensions under which the name of its route is."""


class Split(Announcer, SharedTransport):
    """A transport that sends every request to one of several named transports.

    For each request the first of these that names a route decides: `choose`, a function of the request that returns a
    name or None; the header named `header`; the weights. With a `key`, a function of the request, equal keys go the
    same way: a larger weight takes keys from the others and moves none between them (rendezvous hashing). A request
    whose key is None, or all of them without `key`, are divided at random.

    `weights` (default: 1 each) may be changed by `shift`; a route of weight 0, or left out, is reached only by name.
    `shadow` sends copies to one of the routes. The response's `extensions["resilience_route"]` names the route.

    Raises TypeError or ValueError at construction for bad options; a request raises ValueError if `choose` returns a
    name that there is not. A header that names no route is ignored: it may come from anywhere.
    """

    def __init__(
        self,
        routes: Mapping[str, Any],
        *,
        weights: Mapping[str, float] | None = None,
        key: Callable[[Any], str | None] | None = None,
        choose: Callable[[Any], str | None] | None = None,
        header: str | None = None,
        shadow: Shadow | None = None,
        name: str = "split",
        random: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(name)
        if not routes:
            raise ValueError("routes must not be empty")
        for route, transport in routes.items():
            if not callable(getattr(transport, "handle_async_request", None)):
                raise TypeError(f"routes must be async transports, got {transport!r} for {route!r}")
        for field, function in (("key", key), ("choose", choose)):
            if function is not None and not callable(function):
                raise TypeError(f"{field} must be a function of the request, got {function!r}")
        if header is not None and (not isinstance(header, str) or not header):
            raise ValueError(f"header must be a non-empty string, got {header!r}")
        if shadow is not None and not isinstance(shadow, Shadow):
            raise TypeError(f"shadow must be a Shadow, got {shadow!r}")
        self._routes = dict(routes)
        self._weights: dict[str, float] = {}
        self.shift(dict.fromkeys(routes, 1.0) if weights is None else weights)
        self._key = key
        self._choose = choose
        self._header = header
        self._random = random
        self._shadow = shadow
        self._shadows: Shadows | None = None
        if shadow is not None:
            self._shadows = Shadows(shadow, self._routes[self._known("shadow", shadow.to)], random, self)

    @property
    def weights(self) -> dict[str, float]:
        """The weights in force."""
        return dict(self._weights)

    def shift(self, weights: Mapping[str, float]) -> None:
        """Replace all weights. Raises TypeError or ValueError, and changes nothing, unless all are numbers, 0 or above,
        of routes there are, and one is above 0.
        """
        for route, weight in weights.items():
            self._known("weights", route)
            check_number(f"weights[{route!r}]", weight, least=0)
        if not any(weights.values()):
            raise ValueError("weights must have one above 0")
        self._weights = dict(weights)

    async def _send(self, request: Any) -> Any:
        route = self._route(request)
        if self._shadows is not None and self._shadow is not None and self._shadow.to != route:
            self._shadows.cast(request)
        response = await self._routes[route].handle_async_request(request)
        response.extensions[ROUTE] = route
        return response

    async def aclose(self) -> None:
        """End the shadow copies under way and close all routes."""
        if self._shadows is not None:
            await self._shadows.aclose()
        for transport in self._routes.values():
            await transport.aclose()

    def _route(self, request: Any) -> str:
        if self._choose is not None and (route := self._choose(request)) is not None:
            return self._known("choose", route)
        if self._header is not None and (route := request.headers.get(self._header)) in self._routes:
            return str(route)
        key = None if self._key is None else self._key(request)
        return self._drawn() if key is None else rank(key, self._weights)[0]

    def _drawn(self) -> str:
        left = self._random() * sum(self._weights.values())
        open_routes = [route for route, weight in self._weights.items() if weight > 0]
        for route in open_routes:
            left -= self._weights[route]
            if left < 0:
                return route
        return open_routes[-1]  # what rounding left over

    def _known(self, field: Literal["weights", "choose", "shadow"], route: str) -> str:
        if route not in self._routes:
            raise ValueError(f"{field} must name one of {', '.join(self._routes)}, got {route!r}")
        return route
