"""The inner transports of endpoints: one for each, so that the connections of one can be closed without the others'."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, cast

import anyio

from resilience.machines.balancing import EndpointState

from ..host import Host
from ..options import TransportOptions
from .endpoint import Endpoint

TransportFactory = Callable[[Endpoint], Any]


class Connections:
    """Makes inner transports, with the options of the client library's own or by a function.

    All of them share one TLS context: reading the certificates takes longer than many a request.
    """

    def __init__(self, factory: TransportFactory | None, options: TransportOptions) -> None:
        unknown = ", ".join(sorted(set(options) - set(TransportOptions.__annotations__)))
        if unknown:
            raise TypeError(f"Balanced has no option {unknown}")
        if factory is not None and not callable(factory):
            raise TypeError(f"transport must be a function of an endpoint, got {factory!r}")
        if factory is not None and options:
            raise TypeError(f"{', '.join(sorted(options))} must be left out: the transport given has its own options")
        self._factory = factory
        self._options = options
        self._contexts: dict[str, Any] = {}

    def make(self, endpoint: Endpoint, host: Host) -> Any:
        """A transport for requests of `host` to `endpoint`."""
        if self._factory is not None:
            return self._factory(endpoint)
        options = cast("dict[str, Any]", dict(self._options))
        tls: dict[str, Any] = {name: options.pop(name) for name in ("verify", "cert") if name in options}
        if host.name not in self._contexts:
            if "trust_env" in options:
                tls["trust_env"] = options["trust_env"]
            self._contexts[host.name] = importlib.import_module(host.name).create_ssl_context(**tls)
        return host.AsyncHTTPTransport(verify=self._contexts[host.name], **options)


class Member:
    """An endpoint in use: what it is, what is known of it, how it is reached."""

    __slots__ = ("_connections", "_made", "endpoint", "state")

    def __init__(self, endpoint: Endpoint, state: EndpointState, connections: Connections) -> None:
        self.endpoint = endpoint
        self.state = state
        self._connections = connections
        self._made: dict[str, Any] = {}

    def transport(self, host: Host) -> Any:
        """Its transport for requests of `host`."""
        made = self._made.get(host.name)
        if made is None:
            made = self._made[host.name] = self._connections.make(self.endpoint, host)
        return made

    @property
    def closed(self) -> bool:
        """Whether it has no transport now."""
        return not self._made

    @property
    def over(self) -> bool:
        """Removed, and nothing is under way: its connections may be closed."""
        return self.state.retired and not self.state.in_flight

    async def aclose(self) -> None:
        """Close its connections, also if the caller is being cancelled."""
        made, self._made = self._made, {}
        with anyio.CancelScope(shield=True):
            for transport in made.values():
                await transport.aclose()
