"""The state of caches as policies see it: in this process, or somewhere else.

A store hands out a `CacheMachine`, which answers at once, or a `RemoteCache`, which is awaited, may be unavailable, and
by leases sees to it that one process fetches for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..machines.cache import CacheRule
from ..machines.cache_lease import Look

if TYPE_CHECKING:
    from .codecs import Codec


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """What a store has to know of a cache. `max_weight` and `weigh` bound what is in memory."""

    name: str
    rule: CacheRule
    max_entries: int
    max_weight: float | None
    weigh: Callable[[Any], float] | None
    codec: Codec


class Life(NamedTuple):
    """How long an entry is good for, and how long it took to fetch, in seconds."""

    life: float
    stale_for: float = 0.0
    spare_for: float = 0.0
    duration: float = 0.0


class Watch(Protocol):
    """Hears of the end of somebody's fetch."""

    async def wait(self, seconds: float) -> None:
        """Return when something has happened to the entry since this was last called, or after so many seconds."""
        ...

    def close(self) -> None:
        """Hear no more."""
        ...


class RemoteCache(Protocol):
    """A cache's entries in another process; see `resilience.machines.cache_lease` for what the operations mean.

    Awaited operations raise StoreUnavailableError on an outage. All times are seconds on the store's clock.
    """

    async def look(self, key: str, token: str, lease: float, draw: float) -> Look:
        """What there is, and whether to serve it, to fetch with the lease that was taken, or to wait."""
        ...

    async def store(self, key: str, token: str, kind: str, payload: str, life: Life) -> bool:
        """Keep a value and end the lease; False if the lease is no more. Without a token: in any case."""
        ...

    async def drop(self, key: str) -> bool:
        """Forget an entry; whether there was one."""
        ...

    async def clear(self) -> None:
        """Forget all entries of this cache."""
        ...

    async def release(self, key: str, token: str, pause: float) -> None:
        """End a lease without a value; what is kept is not refreshed for so long."""
        ...

    def renewing(self, key: str, token: str, lease: float, lost: Callable[[], None]) -> Callable[[], None]:
        """Renew a lease every third of it until what is returned is called; call `lost` if it is no more."""
        ...

    def watch(self, key: str) -> Watch:
        """Hear what happens to an entry."""
        ...
