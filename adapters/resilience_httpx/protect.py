"""Policies under a client that exists already, with its proxies and mounts.

    client = protect(httpx2.AsyncClient(http2=True), payments, key="origin")

A client that is given a `transport` no longer looks for proxies in the environment. This one has looked.
"""

from __future__ import annotations

from typing import Any, TypeVar, Unpack

from resilience.policy import Policy

from .host import HOSTS
from .options import ResilienceOptions
from .transport import ResilientTransport

Client = TypeVar("Client")


def protect(client: Client, policy: Policy, **options: Unpack[ResilienceOptions]) -> Client:
    """Put `policy` under the transports of an `httpx.AsyncClient` or `httpx2.AsyncClient`; returns the client.

    The transport that it has, those of its proxies and all that are mounted go on as they were, inside of one
    `ResilientTransport` each, made with `options`; they share the policy and its state. To be done before the client
    is used. Raises TypeError for anything but such a client.
    """
    transports: Any = client
    if not any(_is_client(base) for base in type(client).__mro__):
        raise TypeError(f"client must be an httpx or httpx2 AsyncClient, got {client!r}")
    around: dict[int, ResilientTransport | None] = {id(None): None}
    for inner in (transports._transport, *transports._mounts.values()):
        if id(inner) not in around:
            around[id(inner)] = ResilientTransport(policy, inner, **options)
    transports._transport = around[id(transports._transport)]
    transports._mounts = {pattern: around[id(inner)] for pattern, inner in transports._mounts.items()}
    return client


def _is_client(kind: type[Any]) -> bool:
    return kind.__name__ == "AsyncClient" and kind.__module__.partition(".")[0] in HOSTS
