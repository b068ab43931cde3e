"""All endpoints of a balancer while the program runs: the list is renewed, their health is watched.

fleet = Fleet(pool, resolver, connections, health, host, random, announcer)
await fleet.ready(httpx2.Request)      # there is a list, and the background works
fleet.member(pool.pick(...))
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

import anyio

from resilience import clock
from resilience.events import EndpointHealthChanged, EndpointsChanged, EndpointsUnresolved
from resilience.machines.balancing import EndpointState, Pool
from resilience.running._jobs import home

from .base import Announcer
from .endpoint import Endpoint, NoEndpointError, endpoint_of
from .health import HealthCheck
from .keeper import Keeper
from .members import Connections, Member
from .resolvers import Resolver, StaticResolver


class Fleet:
    """The members of a pool."""

    def __init__(
        self,
        pool: Pool,
        resolver: Resolver,
        connections: Connections,
        health: HealthCheck | None,
        host: str,
        random: Callable[[], float],
        announcer: Announcer,
    ) -> None:
        if health is not None and not isinstance(health, HealthCheck):
            raise TypeError(f"health must be a HealthCheck, got {health!r}")
        self._pool = pool
        self._resolver = resolver
        self._connections = connections
        self._host = host
        self._random = random
        self._announcer = announcer
        self._members: dict[EndpointState, Member] = {}
        self._draining: set[Member] = set()
        self._kind: Any = None  # the class of the latest request: checks are made of it
        self._resolved = False
        self._lock: tuple[object, anyio.Lock] | None = None
        self._failure: Exception | None = None  # of the latest attempt at a first list
        self._attempts = 0
        works: list[Callable[[], Coroutine[Any, Any, None]]] = []
        if health is not None:
            works.append(partial(self._watch, health))
        if isinstance(resolver, StaticResolver):
            self._adopt(resolver.endpoints)
            if len(self._members) < len(resolver.endpoints):
                raise ValueError("endpoints must all be different")
        else:
            works.append(self._renew)
        self._keeper = Keeper(works)

    def members(self) -> list[Member]:
        """All endpoints in use."""
        return [self._members[state] for state in self._pool.endpoints.values()]

    def member(self, state: EndpointState) -> Member:
        """The one of which `state` is known."""
        return self._members[state]

    async def ready(self, kind: type[Any]) -> None:
        """Make sure, for a request of class `kind`, that there is a list and that the background is at work.

        Raises NoEndpointError, from the cause, if the list cannot be had; everybody who waits for it gets the same.
        """
        self._kind = kind
        if not self._resolved:
            seen = self._attempts
            async with self._lock_here():
                if not self._resolved:
                    await self._first(seen)
        self._keeper.keep()

    async def refresh(self) -> None:
        """Renew the list. Raises what the resolver raises, ValueError for an empty list; the old one then stays."""
        found = await self._resolver.resolve()
        if found is not None:
            retired = self._adopt(found)
            for member in retired:
                if member.over:
                    await self._close(member)

    async def aclose(self) -> None:
        """Stop working in the background and close all connections."""
        await self._keeper.stop()
        for member in [*self._members.values(), *self._draining]:
            await self._close(member)

    async def _close(self, member: Member) -> None:
        self._draining.discard(member)
        await member.aclose()

    def _lock_here(self) -> anyio.Lock:
        """The lock of this event loop."""
        here = home()
        if self._lock is None or self._lock[0] is not here:
            self._lock = (here, anyio.Lock())
        return self._lock[1]

    async def _first(self, seen: int) -> None:
        """Get a first list, unless an attempt at it has failed since the number of them was `seen`."""
        if self._attempts == seen:
            try:
                await self.refresh()
                return
            except Exception as error:
                self._attempts += 1
                self._failure = error
                self._announcer.emit(EndpointsUnresolved, error)
        name = self._announcer.name
        raise NoEndpointError(f"{name} has no endpoints yet", policy=name) from self._failure

    def _adopt(self, found: Iterable[str | Endpoint]) -> list[Member]:
        """Let `found` be all endpoints; returns those that are no longer among them."""
        endpoints = {each.url: each for each in map(endpoint_of, found)}
        if not endpoints:
            raise ValueError("endpoints must not be empty")
        weights = {url: each.weight for url, each in endpoints.items()}
        added, removed = self._pool.replace(weights, clock.now())
        for state in added:
            self._members[state] = Member(endpoints[state.name], state, self._connections)
        for member in self.members():
            member.endpoint = endpoints[member.state.name]
        retired = [self._members.pop(state) for state in removed]
        self._draining.update(retired)
        self._draining = {member for member in self._draining if not member.closed}
        if self._resolved and (added or removed):
            names = [tuple(state.name for state in states) for states in (added, removed)]
            self._announcer.emit(EndpointsChanged, *names)
        self._resolved = True
        return retired

    async def _renew(self) -> None:
        while True:
            await anyio.sleep(self._resolver.interval)
            try:
                await self.refresh()
            except Exception as error:
                self._announcer.emit(EndpointsUnresolved, error)

    async def _watch(self, health: HealthCheck) -> None:
        while True:
            async with anyio.create_task_group() as tasks:
                for member in self.members():
                    tasks.start_soon(self._check, health, member)
            await anyio.sleep(health.pause(self._random()))

    async def _check(self, health: HealthCheck, member: Member) -> None:
        passed = await health.check(member, self._kind, self._host)
        if passed is None or member.state.retired:
            return
        change = health.rule.checked(member.state, passed, clock.now())
        if change is not None:
            self._announcer.emit(EndpointHealthChanged, member.state.name, change == "healthy")
