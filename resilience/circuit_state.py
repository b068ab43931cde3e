"""Circuits that are shared through a store elsewhere: what a breaker needs of it.

Circuits of this process are plain `Partitions` of machines. Those of a store elsewhere are that, too, since each
process decides by itself while nothing has to be asked; where only the store can tell, they are awaited.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Protocol
from weakref import WeakSet

from ._outage import Outage
from .machines.circuit_breaker import Admission, CircuitBreakerMachine, Rejection, Transition
from .partitions import Partitions


class Follower(Protocol):
    """A policy that uses the circuits."""

    outage: Outage

    def changed(self, key: str, transitions: Iterable[Transition]) -> None:
        """The fleet has changed the state of a circuit."""
        ...


class RemoteCircuits(Partitions[CircuitBreakerMachine], ABC):
    """Circuits of which a store elsewhere has the last word."""

    def __init__(
        self,
        make: Callable[[], CircuitBreakerMachine],
        droppable: Callable[[CircuitBreakerMachine], bool],
        max_keys: int,
    ) -> None:
        super().__init__(make, droppable, max_keys)
        self.followers: WeakSet[Follower] = WeakSet()
        """Who is told what happens, and says what to do while the store is away."""

    @abstractmethod
    async def admit(self, key: str) -> Admission | Rejection:
        """Ask the store for leave to make a call.

        Raises StoreUnavailableError if it does not answer.
        """

    @abstractmethod
    def alone(self, key: str) -> Admission | Rejection:
        """Ask for leave although the store does not answer."""
