"""Endpoints, and how a request is addressed to one of them.

Endpoint("https://10.0.0.7:8443/v2", weight=2, host="api.example")
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from resilience._validate import check_number
from resilience.errors import RejectedError

from ..exchange import fresh


class NoEndpointError(RejectedError):
    """There is no endpoint for a request: the list is empty or cannot be had, or none is healthy and panic is off."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One of several servers with the same service.

    `url` has a scheme, a host, and optionally a port and a path, which goes in front of that of every request.
    `weight` (1) says how much it takes in comparison with others. `host` (default: that of the URL) is the name for
    the Host header and for TLS, for endpoints whose URL has an address.

    Raises TypeError or ValueError for anything else.
    """

    url: str
    weight: float = 1.0
    host: str | None = None
    parts: SplitResult = field(init=False, repr=False, compare=False)
    """The parts of the URL."""

    def __post_init__(self) -> None:
        if not isinstance(self.url, str):
            raise TypeError(f"url must be a string, got {self.url!r}")
        parts = urlsplit(self.url.rstrip("/"))
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url must be http or https with a host, got {self.url!r}")
        if parts.query or parts.fragment or parts.username is not None:
            raise ValueError(f"url must have no query, fragment or user, got {self.url!r}")
        if parts.port == 0:  # and the look-up of one that is no number raises
            raise ValueError(f"url must have a port from 1 to 65535, got {self.url!r}")
        check_number("weight", self.weight, above=0)
        if self.host is not None and (not isinstance(self.host, str) or not self.host):
            raise ValueError(f"host must be a non-empty string, got {self.host!r}")
        object.__setattr__(self, "url", parts.geturl())
        object.__setattr__(self, "parts", parts)


def endpoint_of(value: Any) -> Endpoint:
    """An endpoint from itself or from a URL."""
    return value if isinstance(value, Endpoint) else Endpoint(value)


def addressed(request: Any, endpoint: Endpoint, host: str) -> Any:
    """A copy of `request` for `endpoint`. `host` is "endpoint", "request" (its Host header stays), or a name."""
    parts = endpoint.parts
    copy = fresh(request)
    path = parts.path.encode("ascii") + request.url.raw_path
    copy.url = request.url.copy_with(scheme=parts.scheme, host=parts.hostname, port=parts.port, raw_path=path)
    if host == "request":
        name, tls = None, request.url.host
    else:
        name = (endpoint.host or parts.netloc) if host == "endpoint" else host
        tls = urlsplit(f"//{name}").hostname
    if name is not None:
        copy.headers["Host"] = name
    if parts.scheme == "https" and tls != parts.hostname:
        copy.extensions.setdefault("sni_hostname", tls)
    return copy
