"""State in Redis: limits that hold for all processes together.

    store = RedisStore.from_url("redis://localhost")
    search = RateLimiter("100/s", name="search", store=store)

Works with one server, Sentinel and Cluster, Redis 6.2 and later and Valkey, on asyncio. Made at import time
or anywhere else: connections belong to the event loop in which they are first needed.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any

from redis.asyncio import RedisCluster

from resilience._validate import positive
from resilience.caching.cache_state import CacheSpec
from resilience.limits.limiter_state import LimiterSpec
from resilience.machines.circuit_breaker import BreakerRule
from resilience.machines.retry_budget import RetryBudgetMachine, TokenBudget
from resilience.permits.permits_state import BulkheadSpec
from resilience.store import Store
from resilience_redis.breakers.circuits import SharedCircuits
from resilience_redis.breakers.fleet import Fleet
from resilience_redis.budget import RedisBudget
from resilience_redis.bulkheads.permits import RedisPermits
from resilience_redis.cache import RedisCache
from resilience_redis.catalogue import Catalogue
from resilience_redis.connection.client import check_client, client_from_url, retries_of, twin_of
from resilience_redis.connection.cluster_lane import ClusterLane
from resilience_redis.connection.lane import Lane
from resilience_redis.limits.leased import LeasedLimiter
from resilience_redis.limits.ledger import RedisLedger
from resilience_redis.link import Link

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_BRACES = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D"})


class RedisStore(Store):
    """A store on the client you already have: `redis.asyncio.Redis`, a Sentinel master, or `RedisCluster`.

    `prefix` namespaces the keys. `timeout` (seconds, default 0.04) is the longest any call waits for Redis
    before StoreUnavailableError; `connect_timeout` (seconds, default 1.0) is how long a new connection may
    take, behind the back of the calls. A retry could charge twice: a plain client that retries is used
    through a twin with the same settings and no retries; any other client that retries is refused with
    ValueError. Your client is never closed by the store; a plain one lends it a connection while there is traffic.

    Requests of one turn of the event loop travel together, acquires on one key in one script call; each is answered
    as if it had come alone, in order of arrival.
    """

    def __init__(
        self,
        client: Any,
        *,
        prefix: str = "resilience",
        timeout: float = 0.04,
        connect_timeout: float = 1.0,
    ) -> None:
        check_client(client)
        self._client: Any = client
        self._make: Callable[[], Any] = lambda: twin_of(client) if retries_of(client) else client
        self._configure(prefix, timeout, connect_timeout)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        prefix: str = "resilience",
        timeout: float = 0.04,
        connect_timeout: float = 1.0,
        **options: Any,
    ) -> RedisStore:
        """Return a store with a client of its own: `redis://`, `rediss://` or `unix://`.

        `options` go to the connections of redis-py (`password=`, `ssl_ca_certs=`, `max_connections=`, ...).
        """
        self = cls.__new__(cls)
        self._client = None
        self._make = lambda: client_from_url(url, connect_timeout, options)
        self._configure(prefix, timeout, connect_timeout)
        return self

    def _configure(self, prefix: str, timeout: float, connect_timeout: float) -> None:
        if not prefix:
            raise ValueError("prefix must not be empty")
        self._prefix = prefix.translate(_BRACES)
        self._timeout = positive("timeout", timeout)
        self._connect_timeout = positive("connect_timeout", connect_timeout)
        self._lanes: dict[asyncio.AbstractEventLoop | None, Lane] = {}
        self._links: dict[Lane, Link] = {}
        self._catalogue = Catalogue(self._prefix)
        self._fleet = Fleet(self.link, self._prefix)
        self._budgets: dict[str, RedisBudget] = {}
        self._leased: weakref.WeakSet[LeasedLimiter] = weakref.WeakSet()

    def limiter(self, spec: LimiterSpec) -> RedisLedger | LeasedLimiter:
        """The state of a rate limiter, shared by all processes that use its name."""
        strict = RedisLedger(spec, self._prefix, self._lanes, self._lane, lambda: self.link().members)
        self._catalogue.add(spec, self._lanes.get(asyncio._get_running_loop()))
        if spec.leased is None:
            return strict
        leased = LeasedLimiter(spec, strict, self.link)
        self._leased.add(leased)
        return leased

    def bulkheads(self, spec: BulkheadSpec) -> RedisPermits:
        """The permits of a bulkhead, shared by all processes that use its name."""
        return RedisPermits(spec, self._prefix, self.link)

    def budget(self, name: str, make: Callable[[], RetryBudgetMachine]) -> RedisBudget:
        """The retry budget called `name`, shared by all processes. Raises TypeError unless it is a TokenBudget."""
        known = self._budgets.get(name)
        if known is None:
            rule = make()
            if not isinstance(rule, TokenBudget):
                raise TypeError(f"budget must be a TokenBudget to be shared in Redis, got {type(rule).__name__}")
            known = self._budgets[name] = RedisBudget(name, rule, self._prefix, self.link)
        return known

    def breakers(self, name: str, rule: BreakerRule, max_keys: int) -> SharedCircuits:
        """The circuits of a breaker, shared by all processes that use its name."""
        return self._fleet.circuits(name, rule, max_keys)

    def cache(self, spec: CacheSpec) -> RedisCache:
        """The entries of a cache, shared by all processes that use its name."""
        return RedisCache(spec, self._prefix, self.link)

    def link(self) -> Link:
        """What policies with shared state use of this store in the running event loop."""
        lane = self._lane()
        known = self._links.get(lane)
        if known is None:
            known = self._links[lane] = Link(lane, self._prefix)
        return known

    async def aclose(self) -> None:
        """Wait for what is under way in this event loop and close the connections the store made there."""
        self._fleet.farewell()
        for leased in tuple(self._leased):
            leased.give_back()
        for budget in self._budgets.values():
            await budget.aclose()
        lane = self._lanes.pop(asyncio.get_running_loop(), None)
        if lane is not None:
            link = self._links.pop(lane, None)
            if link is not None:
                await link.aclose()
            await lane.aclose()
            if lane.wire.client is not self._client:
                await lane.wire.client.aclose()

    async def __aenter__(self) -> RedisStore:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _lane(self) -> Lane:
        """Return the lane of the running loop."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError("RedisStore needs a running asyncio event loop: redis-py has no trio support") from None
        known = self._lanes.get(loop)
        if known is None:
            for gone in [each for each in self._lanes if each and each.is_closed()]:
                self._links.pop(self._lanes.pop(gone), None)
            client = self._make()
            kind = ClusterLane if isinstance(client, RedisCluster) else Lane
            known = self._lanes[loop] = kind(client, self._timeout, self._connect_timeout)
            self._catalogue.tell(known)
        return known
