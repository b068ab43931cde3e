"""What happens when, and with which numbers: the script of the demonstration.

    plan = Plan(16.0)
    plan.phase_at(6.0).name         # "slow"

The upstream works on `CONCURRENCY` requests at a time and lets `QUEUE` wait. It does not notice callers that
have given up, as most servers do not: overloaded, it spends its time on answers that nobody waits for. After
the outage it comes back cold. That is how retries turn a dip into an outage that does not end (a metastable
failure: Bronson et al., HotOS 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

# The load, calls per second of all callers of one kind together.
LOAD = 50.0

# The upstream: at full speed CONCURRENCY / SERVICE = 100 answers a second. Times in seconds.
CONCURRENCY = 5
SERVICE = 0.05
QUEUE = 100

# What its operator allows: calls per second, and how many at once after a rest. Well below the rush and what the
# upstream could do, so that only the limit can keep the callers to it.
RATE = 65
BURST = 10

# The callers, seconds. Both kinds give an attempt the same time and may try just as often.
ATTEMPT_TIMEOUT = 0.6
TIMEOUT = 1.5
NAIVE_RETRIES = 3

# Calls that all protected processes together may have under way.
PERMITS = 8

DUE_HEADER = "x-permit-due"
"""In which a protected request says when its permit became valid."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One part of the plan: `weight` is its share of the time, `load` and `service` are multiples of the normal."""

    name: str
    weight: float
    load: float = 1.0
    service: float = 1.0
    fails: bool = False
    """Every request is answered with a 503, at once."""
    dead: bool = False
    """Nobody listens: connections are cut and refused."""
    cold: bool = False
    """Starts at a tenth of full speed and warms up over the first three quarters of the phase."""


PHASES = (
    Phase("healthy", 3),
    Phase("rush", 3, load=2.4),
    Phase("slow", 3, service=4.0),
    Phase("failing", 3, fails=True),
    Phase("dead", 2, dead=True),
    Phase("recovering", 6, load=1.2, cold=True),
)
_COLD, _WARM_AFTER = 0.1, 0.75
_TOTAL = sum(phase.weight for phase in PHASES)


@dataclass(frozen=True, slots=True)
class Plan:
    """The phases, stretched over `seconds`. All times are seconds since the beginning."""

    seconds: float

    def spans(self) -> list[tuple[Phase, float, float]]:
        """Every phase with its begin and end, in order."""
        spans: list[tuple[Phase, float, float]] = []
        begin = 0.0
        for phase in PHASES:
            end = begin + phase.weight / _TOTAL * self.seconds
            spans.append((phase, begin, end))
            begin = end
        return spans

    def span(self, name: str) -> tuple[float, float]:
        """Begin and end of the phase called `name`."""
        return next((begin, end) for phase, begin, end in self.spans() if phase.name == name)

    def phase_at(self, at: float) -> Phase:
        """The phase at that time: the first before the beginning, the last after the end."""
        return next((phase for phase, _, end in self.spans() if at < end), PHASES[-1])

    def load_at(self, at: float) -> float:
        """Calls per second that the callers of one kind begin."""
        return LOAD * self.phase_at(at).load

    def service_at(self, at: float) -> float:
        """Seconds the upstream works on a request that it begins at that time."""
        phase = self.phase_at(at)
        if not phase.cold:
            return SERVICE * phase.service
        begin, end = self.span(phase.name)
        warmth = min(1.0, max(0.0, (at - begin) / ((end - begin) * _WARM_AFTER)))
        return SERVICE / (_COLD + (1.0 - _COLD) * warmth)
