"""The state of rate limiters as policies see it: in this process, or somewhere else.

A store hands out one or the other. Both book costs in one step and leave the waiting to the caller; a local
one answers at once, a remote one is awaited and may be unavailable.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from .machines.rate_limiter import Decision, Rule


@dataclass(frozen=True, slots=True)
class LimiterSpec:
    """What a store has to know of a rate limiter. All rules are of one algorithm, with periods in seconds."""

    name: str
    rules: tuple[Rule[Any], ...]
    max_keys: int = 1_000_000
    leased: float | None = None
    """How far slices debited ahead may take the admissions beyond the limit, as a share of it; None: strict."""


class Booking(NamedTuple):
    """A decision, and the stamp by which exactly this booking can be given back. Times are in seconds."""

    decision: Decision
    stamp: object = None


class RemoteLimiter(Protocol):
    """A rate limiter's state in another process. Methods raise StoreUnavailableError on an outage."""

    async def acquire(self, key: str, costs: Sequence[float], max_wait: float) -> Booking:
        """Book the costs if they may go within `max_wait` seconds, in one step; the wait is left to the caller.

        When the caller is cancelled meanwhile, what was booked is given back.
        """
        ...

    async def peek(self, key: str, costs: Sequence[float]) -> Decision:
        """What `acquire` would answer for any wait; changes nothing."""
        ...

    async def refund(self, key: str, costs: Sequence[float], stamp: object = None) -> None:
        """Give units back; with a stamp only if nothing was booked after that booking."""
        ...

    async def reset(self, key: str) -> None:
        """Forget the key."""
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
        """Give units back; with a stamp only if nothing was booked after that booking."""

    @abstractmethod
    def reset(self, key: str) -> None:
        """Forget the key."""
