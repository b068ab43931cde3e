"""The state of rate limiters as policies see it: in this process, or somewhere else.

A store hands out one or the other. Both book costs in one step and leave the waiting to the caller; a local
one answers at once, a remote one is awaited and may be unavailable. Those that also keep account, of reservations
and of what others have counted, are ledgers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from ..machines.rate_limiter import Decision, Rule


@dataclass(frozen=True, slots=True)
class LimiterSpec:
    """What a store has to know of a rate limiter. All rules are of one algorithm, with periods in seconds."""

    name: str
    rules: tuple[Rule[Any], ...]
    max_keys: int = 1_000_000
    leased: float | None = None
    """How far slices debited ahead may take the admissions beyond the limit, as a share of it; None: strict."""
    common: tuple[int, ...] = ()
    """The indexes of the rules that hold for all keys together; the others hold for each."""


class Booking(NamedTuple):
    """A decision, and the stamp by which exactly this booking can be given back. Times are in seconds."""

    decision: Decision
    stamp: object = None


class Reserved(NamedTuple):
    """The decision on a reservation, what each limit was charged for its id, and whether it is settled already."""

    decision: Decision
    costs: tuple[float, ...] = ()
    settled: bool = False


Observation: TypeAlias = "tuple[float, float] | None"
"""What somebody else says of one limit: the units that remain there, and the seconds until there are more."""


class Fleet(Protocol):
    """The processes that share a store, as this one last heard."""

    @property
    def count(self) -> int:
        """Live processes, ourselves included; while the store is away, as it was before."""
        ...

    def join(self, returned: Callable[[bool | None], None]) -> None:
        """Be counted from now on, and call `returned` when the store is back after an outage.

        At once with None, and with True or False when it is known whether the store has lost its memory.
        """
        ...


class RemoteLimiter(Protocol):
    """A rate limiter's state in another process. Methods raise StoreUnavailableError on an outage.

    There is a cost for every rule; 0 is a limit that takes no part, one at least must be above.
    """

    def fleet(self) -> Fleet | None:
        """The processes that share the limit; None if nobody knows."""
        ...

    async def acquire(self, key: str, costs: Sequence[float], max_wait: float) -> Booking:
        """Book the costs if they may go within `max_wait` seconds, in one step; the wait is left to the caller.

        When the caller is cancelled meanwhile, what was booked is given back.
        """
        ...

    async def peek(self, key: str, costs: Sequence[float]) -> Decision:
        """What `acquire` would answer for any wait; changes nothing."""
        ...

    async def refund(self, key: str, costs: Sequence[float], stamp: object = None) -> None:
        """Give units back; with a stamp only to limits where nothing was booked after that booking."""
        ...

    async def reset(self, key: str) -> None:
        """Forget the key; without one, also what holds for all keys together."""
        ...


@runtime_checkable
class RemoteLedger(RemoteLimiter, Protocol):
    """A remote limiter that keeps account. Of the sequences, None is a limit that takes no part."""

    async def observe(self, key: str, said: Sequence[Observation]) -> None:
        """Lower what remains to what somebody else says; if that is nothing, until there is more."""
        ...

    async def drain(self, key: str, seconds: Sequence[float | None]) -> None:
        """Leave nothing, and let nothing go for so many seconds."""
        ...

    async def reserve(self, key: str, id: str, costs: Sequence[float], max_wait: float, ttl: float) -> Reserved:
        """Book like `acquire`, and remember the id for `ttl` seconds: repeated, it is answered and not charged again.

        When the caller is cancelled meanwhile, what was booked is given back and the id is settled.
        """
        ...

    async def settle(self, key: str, id: str, actual: Sequence[float | None], ttl: float, known: bool = False) -> bool:
        """Charge the difference to what was reserved, or give it back; returns whether this settled it.

        An actual cost of None is what was reserved. An id of which nothing is known is charged in full, and the
        reservation nothing if it comes later; with `known` there has been a reservation, so it was forgotten, and
        nothing is charged.
        """
        ...

    def charge(self, key: str, costs: Sequence[float]) -> None:
        """Charge what was admitted elsewhere, as soon as it can be done; nobody hears of its failure."""
        ...

    def void(self, key: str, id: str, ttl: float) -> None:
        """Settle an id with nothing, as soon as it can be done; nobody waits for it or hears of its failure."""
        ...


class LocalLimiter(ABC):
    """A rate limiter's state in this process; the same operations, answered at once."""

    @abstractmethod
    def acquire(self, key: str, costs: Sequence[float], max_wait: float, at: float | None = None) -> Booking:
        """Book the costs if they may go within `max_wait` seconds, in one step.

        `at` is the moment of the request on `resilience.clock`, now by default; waits count from it. A waiting
        line asks for a call's booking later than the call came, and loses nothing by that.
        """

    def take(self, key: str, costs: Sequence[float]) -> bool:
        """Book the costs if they may go at once. The same as `acquire` without patience, for those in a hurry."""
        return self.acquire(key, costs, 0.0).decision.allowed

    @abstractmethod
    def peek(self, key: str, costs: Sequence[float]) -> Decision:
        """What `acquire` would answer for any wait; changes nothing."""

    @abstractmethod
    def refund(self, key: str, costs: Sequence[float], stamp: object = None) -> None:
        """Give units back; with a stamp only to limits where nothing was booked after that booking."""

    @abstractmethod
    def reset(self, key: str) -> None:
        """Forget the key; without one, also what holds for all keys together."""


class LocalLedger(LocalLimiter):
    """A local limiter that keeps account; see `RemoteLedger` for what the operations mean."""

    @abstractmethod
    def observe(self, key: str, said: Sequence[Observation]) -> None:
        """Lower what remains to what somebody else says."""

    @abstractmethod
    def drain(self, key: str, seconds: Sequence[float | None]) -> None:
        """Leave nothing, and let nothing go for so many seconds."""

    @abstractmethod
    def recall(self, key: str, id: str) -> Reserved | None:
        """What `reserve` would answer for an id that is known."""

    @abstractmethod
    def enter(self, key: str, id: str, costs: Sequence[float], ttl: float) -> None:
        """Remember a reservation whose units have been taken by other means, and whose permit is valid."""

    @abstractmethod
    def reserve(self, key: str, id: str, costs: Sequence[float], max_wait: float, ttl: float) -> Reserved:
        """Book like `acquire`, and remember the id."""

    @abstractmethod
    def settle(self, key: str, id: str, actual: Sequence[float | None], ttl: float, known: bool = False) -> bool:
        """Charge the difference to what was reserved, or give it back; returns whether this settled it."""
