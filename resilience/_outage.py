"""What a policy does while its shared store does not answer, and the record of it.

outage = Outage(policy, "local")
outage.began("charge", error)       # tells listeners once
outage.admitted += 1
outage.ended("charge")
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from . import clock
from ._validate import one_of
from .events import StoreDegraded, StoreRecovered
from .policy import Policy

OnOutage: TypeAlias = Literal["local", "open", "closed"]
"""Without the shared store: state in this process, no limit, or no calls."""


class Outage:
    """Whether a policy works without its store, since when, and what it let through meanwhile."""

    def __init__(self, policy: Policy, behaviour: OnOutage) -> None:
        one_of("on_outage", behaviour, ("local", "open", "closed"))
        self.behaviour: OnOutage = behaviour
        self.admitted: int = 0
        """Calls admitted without the store so far."""
        self.policy = policy
        self._since: float | None = None
        self._before = 0.0

    @property
    def degraded(self) -> bool:
        """Whether the store did not answer last time."""
        return self._since is not None

    @property
    def seconds(self) -> float:
        """How long the policy has worked without its store, in all."""
        return self._before + (0.0 if self._since is None else clock.now() - self._since)

    def began(self, operation: str, error: Exception) -> None:
        """The store did not answer."""
        if self._since is None:
            self._since = clock.now()
            if self.policy.listeners:
                self.policy.emit(StoreDegraded(operation, self.policy.name, self.behaviour, error))

    def ended(self, operation: str) -> None:
        """The store answered."""
        if self._since is not None:
            lasted, self._since = clock.now() - self._since, None
            self._before += lasted
            if self.policy.listeners:
                self.policy.emit(StoreRecovered(operation, self.policy.name, lasted))
