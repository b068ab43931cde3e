"""The permits of a bulkhead as the policy sees them when they are held in a store elsewhere.

answer = await permits.acquire("tenant-7", weight=1, max_wait=2.0)
if isinstance(answer, Grant):
    ...                          # the call runs; answer.token, answer.on_lost
    permits.release(answer)      # nobody waits for the store
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias

OnLost: TypeAlias = Literal["ignore", "cancel"]
"""What becomes of a call whose permit is lost while it runs: it goes on, or it is cancelled."""


@dataclass(frozen=True, slots=True)
class BulkheadSpec:
    """What a store has to know of a bulkhead. `lease`, in seconds, and `on_lost` are of meaning in a shared store."""

    name: str
    limit: int
    queue: int = 0
    max_keys: int = 10_000
    lease: float = 10.0
    on_lost: OnLost = "ignore"


class Occupancy(NamedTuple):
    """How many permits of a key are in use, and how many calls wait for one, in all processes together."""

    in_use: int
    waiting: int


class Grant:
    """Permits that a store has lent to one call; it renews them until they are released."""

    __slots__ = ("_on_lost", "key", "lost", "queued", "token", "weight")

    def __init__(self, key: str, weight: int) -> None:
        self.key: str = key
        self.weight: int = weight
        self.token: int | None = None
        """The fencing token, larger than those of all grants before; None if the store was away."""
        self.queued: bool = False
        """Whether it had to wait in the queue."""
        self.lost: bool = False
        """The store may by now have given the permits to somebody else."""
        self._on_lost: Callable[[], None] | None = None

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call `callback`, which must not raise, when the permits are lost; at once if they are."""
        self._on_lost = callback
        if self.lost:
            callback()

    def lose(self) -> None:
        """Say that the permits are lost, for stores."""
        if not self.lost:
            self.lost = True
            if self._on_lost is not None:
                self._on_lost()


class RemotePermits(Protocol):
    """The permits of a bulkhead in another process."""

    async def acquire(self, key: str, weight: int, max_wait: float | None) -> Grant | Occupancy:
        """Take permits, or wait in the queue for at most `max_wait` seconds (None: no end); or what is in use.

        A caller that is cancelled meanwhile leaves nothing behind. Raises StoreUnavailableError, also out of the queue.
        """
        ...

    def adopt(self, key: str, weight: int) -> Grant:
        """Count a call that was admitted without the store, as soon as the store can be told."""
        ...

    def release(self, grant: Grant) -> None:
        """Give permits back. Nobody waits; what cannot be told is free when the lease ends."""
        ...

    def resize(self, limit: int) -> None:
        """Ask with another limit from now on, and hand out what it makes room for."""
        ...

    def share(self) -> int:
        """What each live process may have of the limit, at least 1."""
        ...

    async def peek(self, key: str) -> Occupancy:
        """What is in use and waiting now. Raises StoreUnavailableError."""
        ...
