"""The states of a circuit breaker's machine: each carries only what has a meaning in it, and all are immutable.

    state = HalfOpen(nominal=5.0, opens=1, draw=0.3).counted(probe, failure=True, slow=False)

What leads from one to another is in `circuit_breaker.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from resilience.machines.breaker_records import Admission, BreakerState


@dataclass(frozen=True, slots=True)
class State:
    """Base of all states."""

    name: ClassVar[BreakerState]


@dataclass(frozen=True, slots=True)
class Closed(State):
    """Calls pass."""

    name: ClassVar[BreakerState] = BreakerState.CLOSED
    admission: Admission
    """The one that all calls share."""
    since: float = -math.inf
    """When the ramp began; in the infinite past if there is none."""


@dataclass(frozen=True, slots=True)
class Open(State):
    """No call passes."""

    name: ClassVar[BreakerState] = BreakerState.OPEN
    until: float
    nominal: float
    """The open time before jitter, from which the next one grows."""
    opens: int
    """How often it has opened since it was last closed."""
    draw: float
    """The jitter in use, from which the next one is derived if nobody brings a fresh one."""


@dataclass(frozen=True, slots=True)
class HalfOpen(State):
    """Probes pass."""

    name: ClassVar[BreakerState] = BreakerState.HALF_OPEN
    nominal: float
    opens: int
    draw: float
    # Invariant: len(leases) + calls <= rule.probes, and the outcomes so far leave the verdict uncertain.
    leases: tuple[Admission, ...] = ()
    calls: int = 0
    failures: int = 0
    slow: int = 0

    def without(self, probe: Admission) -> HalfOpen:
        """The state when a probe is no longer on its way."""
        return replace(self, leases=tuple(lease for lease in self.leases if lease is not probe))

    def counted(self, probe: Admission, failure: bool, slow: bool) -> HalfOpen:
        """The state when a probe has told its outcome."""
        return replace(
            self.without(probe),
            calls=self.calls + 1,
            failures=self.failures + failure,
            slow=self.slow + slow,
        )


@dataclass(frozen=True, slots=True)
class Isolated(State):
    """No call passes until somebody says otherwise."""

    name: ClassVar[BreakerState] = BreakerState.ISOLATED


# Decided by the fleet that a circuit is shared with: only the store can tell what a call is then.


@dataclass(frozen=True, slots=True)
class FleetOpen(Open):
    """No call passes; once the time has come, those that the store makes probes."""


@dataclass(frozen=True, slots=True)
class FleetHalfOpen(State):
    """Calls pass that the store makes probes."""

    name: ClassVar[BreakerState] = BreakerState.HALF_OPEN
    episode: float
    """The fleet's generation."""
    until: float
    """When the next lease ends."""
    opens: int
    free: int
    probes: int

    def wait(self, now: float) -> float:
        """How long until asking for a probe is worth while: 0.0 if it is now."""
        return max(0.0, self.until - now) if self.free <= 0 else 0.0
