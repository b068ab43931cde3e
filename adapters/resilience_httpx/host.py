"""The client library a request belongs to: httpx, or httpx2, its continuation.

    host_of(request).name  # "httpx2"

Both have the same API in separate classes, and a client of one refuses responses, streams and exceptions of the
other. What differs is here; nothing else in this package names either of them. They are imported when a request of
theirs arrives: importing httpx earlier would break `httpx2.alias_httpx()`.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib.util import find_spec
from typing import Any

HOSTS = ("httpx", "httpx2")


class Host:
    """One client library: the classes that our answers must be made of."""

    def __init__(self, name: str) -> None:
        module: Any = importlib.import_module(name)
        self.name = name
        self.Response: type[Any] = module.Response
        self.ByteStream: type[Any] = module.ByteStream
        self.AsyncByteStream: type[Any] = module.AsyncByteStream
        self.AsyncHTTPTransport: type[Any] = module.AsyncHTTPTransport
        self.TransportError: type[Exception] = module.TransportError
        self.TimeoutException: type[Exception] = module.TimeoutException
        self.unsent: tuple[type[Exception], ...] = (module.ConnectError, module.ConnectTimeout, module.PoolTimeout)
        """Errors after which not a byte of the request has left."""


def require_host() -> None:
    """Raise ImportError, naming the extras, if neither library is installed."""
    if not any(find_spec(name) for name in HOSTS):
        raise ImportError(
            "resilience_httpx needs httpx2 or httpx: install anyresilience[httpx2] or anyresilience[httpx]",
            name="httpx2",
        )


def host_of(request: Any) -> Host:
    """The library of a request. Raises TypeError for anything that is a request of neither."""
    kind: Any = request.__class__
    return _host_of_class(kind)


@cache
def host_named(name: str) -> Host:
    """The library of that name, imported."""
    return Host(name)


@cache
def _host_of_class(kind: Any) -> Host:
    for base in kind.__mro__:
        name = base.__module__.partition(".")[0]
        if base.__name__ == "Request" and name in HOSTS:
            return host_named(name)
    raise TypeError(f"request must be an httpx or httpx2 Request, got {kind.__module__}.{kind.__qualname__}")
