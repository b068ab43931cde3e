"""Scopes: which requests share a circuit, a limit and a bulkhead.

    ResilientTransport(orders, key="origin")
    ResilientTransport(orders, key="route", routes=["/orders/{id}", "GET /files/{path:path}"])

Policies keep state per key, forget the idle keys when there are too many, and never an open circuit or an unpaid
debt. Routes keep their number small where paths carry identifiers. A policy with `keyed=False` has one state for all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, TypeAlias

Scope: TypeAlias = "Literal['client', 'origin', 'route'] | Callable[[Any], str]"

_TEMPLATE = re.compile(r"(?:(?P<method>[A-Z]+) )?(?P<path>/\S*)")
_PARAMETER = re.compile(r"\{(?P<name>[A-Za-z_]\w*)(?P<rest>:path)?\}")


def scope(key: Scope | None, routes: Sequence[str]) -> Callable[[Any], str] | None:
    """The function of a request that names its partition; None if all share one.

    Raises TypeError or ValueError for a scope or a route that is none.
    """
    if isinstance(routes, str) or not all(isinstance(route, str) for route in routes):
        raise TypeError(f"routes must be a collection of templates, got {routes!r}")
    if bool(routes) != (key == "route"):
        raise ValueError("routes must be given with key='route', and only with it")
    if key is None or key == "client":
        return None
    if key == "origin":
        return origin
    if key == "route":
        return _router(routes)
    if not callable(key):
        raise ValueError(f"key must be 'client', 'origin', 'route' or a function of the request, got {key!r}")
    return _named(key)


def origin(request: Any) -> str:
    """Scheme, host and port of a request; the port only if it is not that of the scheme."""
    return f"{request.url.scheme}://{request.url.netloc.decode('ascii')}"


def _named(key: Callable[[Any], str]) -> Callable[[Any], str]:
    def checked(request: Any) -> str:
        name: Any = key(request)
        if not isinstance(name, str):
            raise TypeError(f"key must return a str, got {name!r}")
        return name

    return checked


def _router(routes: Collection[str]) -> Callable[[Any], str]:
    """The origin and the first template that fits; the origin alone if none does."""
    compiled = [(route, *_compiled(route)) for route in dict.fromkeys(routes)]

    def route_of(request: Any) -> str:
        path = request.url.raw_path.partition(b"?")[0].decode("ascii", "replace")
        for route, method, pattern in compiled:
            if method in (None, request.method) and pattern.fullmatch(path):
                return f"{origin(request)} {route}"
        return origin(request)

    return route_of


def _compiled(route: str) -> tuple[str | None, re.Pattern[str]]:
    found = _TEMPLATE.fullmatch(route)
    if found is None:
        raise ValueError(f"routes must be paths from '/', with or without a method before them, got {route!r}")
    pattern, end, path = "", 0, found["path"]
    for parameter in _PARAMETER.finditer(path):
        pattern += _literal(route, path[end : parameter.start()]) + (".*" if parameter["rest"] else "[^/]+")
        end = parameter.end()
    return found["method"], re.compile(pattern + _literal(route, path[end:]))


def _literal(route: str, text: str) -> str:
    if "{" in text or "}" in text:
        raise ValueError(f"routes must have parameters like {{id}} or {{rest:path}}, got {route!r}")
    return re.escape(text)
