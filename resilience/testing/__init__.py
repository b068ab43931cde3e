"""Tools for testing code that uses this library: virtual time, scripted faults, recorded events, store checks.

    clock = VirtualClock()
    script = FaultScript(ConnectionError("down"), "up")
    with clock.installed():
        assert clock.run(lambda: Retry().call(script)) == "up"

Importing it needs neither trio nor pytest; the pytest fixtures are in `resilience.testing.fixtures`.
"""

from __future__ import annotations

from .faults import HANG, Delay, FaultScript
from .ledgers import LEDGER_CHECKS
from .recorder import EventRecorder
from .stores import LIMITER_CHECKS, LimiterCheck, check_limiter
from .virtual_time import DeadlockError, VirtualClock, run

__all__ = [
    "HANG",
    "LEDGER_CHECKS",
    "LIMITER_CHECKS",
    "DeadlockError",
    "Delay",
    "EventRecorder",
    "FaultScript",
    "LimiterCheck",
    "VirtualClock",
    "check_limiter",
    "run",
]
