"""What goes into the circuit breaker's machine and what comes out of it; see `circuit_breaker.py`."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Literal

from resilience._validate import check_integer, check_number, one_of
from resilience.machines.windows import CountWindow, TimeWindow, Window

Reason = Literal["failure_rate", "slow_rate", "open_elapsed", "probes_passed", "isolated", "reset", "fleet"]
"""`fleet`: the processes that share the circuit have decided it."""

Agreement = Literal["any", "quorum", "local"]
"""Who opens a circuit that processes share; see `BreakerRule.shared`."""

FIRST_SHARE = 0.1
"""The share of calls with which a ramp begins."""


class BreakerState(enum.Enum):
    """The four states of a circuit."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    ISOLATED = "isolated"
    """Opened by hand, until reset by hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRule:
    """When a circuit opens, for how long, and how it is tried again. Times are in seconds.

    Raises TypeError or ValueError when made with a value outside the bounds given below.
    """

    failure_rate: float | None = 0.5
    """Share of failures in the window at which the circuit opens, in (0, 1]; None: failures never open it."""
    slow_rate: float | None = None
    """The same for slow calls, failed ones included. At least one of the two rates is needed."""
    slow_call: float | None = None
    """A call is slow if it takes longer than this. Needed by, and only allowed with, `slow_rate`."""
    minimum_calls: int = 20
    """The window is not judged before it holds so many calls. At most `count`."""
    count: int | None = None
    """Window of the last so many calls: 100, if neither `count` nor `period` is given."""
    period: float | None = None
    """Window of the last so many seconds. Only one of `count` and `period` can be given."""
    buckets: int = 10
    """Into how many buckets `period` is divided."""
    open_for: float = 5.0
    """How long the circuit stays open the first time."""
    open_max: float = 300.0
    """How long at most, before jitter. At least `open_for`."""
    open_growth: float = 2.0
    """Factor on the open time each time the probes fail, at least 1; closing begins anew with `open_for`."""
    jitter: float = 0.2
    """The open time t becomes a random one in [t, t * (1 + jitter)), never shorter. In [0, 1]."""
    probes: int = 3
    """How many calls are let through, at once or in turn, to judge by when half-open."""
    probe_lease: float = 30.0
    """A probe that has not answered after this counts as failed. Longer than the call's own timeout."""
    ramp: float = 0.0
    """For so long after closing only a share of the calls is admitted, which grows from a tenth to all of them."""
    shared: Agreement = "quorum"
    """When a circuit that processes share opens for all of them: `any`: the rate of all their calls together is
    reached; `quorum`: besides, it is reached in enough processes by themselves; `local`: never. In any case it opens
    in a process that reaches a rate by itself."""
    quorum: int | None = None
    """In how many processes; None: in a majority of those that made calls. Only with `shared="quorum"`."""

    def __post_init__(self) -> None:
        self._check_rates()
        self._check_window()
        check_number("open_for", self.open_for, above=0)
        check_number("open_max", self.open_max, least=self.open_for)
        check_number("open_growth", self.open_growth, least=1)
        check_number("jitter", self.jitter, least=0, most=1)
        check_integer("probes", self.probes, 1)
        check_number("probe_lease", self.probe_lease, above=0)
        check_number("ramp", self.ramp, least=0)
        one_of("shared", self.shared, ("any", "quorum", "local"))
        if self.quorum is not None:
            check_integer("quorum", self.quorum, 1)
            if self.shared != "quorum":
                raise ValueError(f"quorum can only be given with shared='quorum', got shared={self.shared!r}")

    def share(self, elapsed: float) -> float:
        """The share of calls that a circuit admits `elapsed` seconds after it closed: from 0.1 to 1 along the ramp."""
        if elapsed >= self.ramp:
            return 1.0
        return FIRST_SHARE + (1.0 - FIRST_SHARE) * max(0.0, elapsed) / self.ramp

    def window(self) -> Window:
        """A new, empty window."""
        if self.period is not None:
            return TimeWindow(self.period, self.buckets)
        return CountWindow(self.count or 100)

    def exceeded(self, calls: int, failures: int, slow: int) -> Literal["failure_rate", "slow_rate"] | None:
        """Which rate is reached by these numbers, if any."""
        # A quotient, not `failures >= rate * calls`: 7 / 100 is the double 0.07, while 0.07 * 100 is above 7.
        if self.failure_rate is not None and failures / calls >= self.failure_rate:
            return "failure_rate"
        if self.slow_rate is not None and slow / calls >= self.slow_rate:
            return "slow_rate"
        return None

    def _check_rates(self) -> None:
        if self.failure_rate is None and self.slow_rate is None:
            raise ValueError("failure_rate or slow_rate must be given, got None for both")
        if (self.slow_rate is None) != (self.slow_call is None):
            raise ValueError(
                "slow_rate and slow_call must be given together, "
                f"got slow_rate={self.slow_rate!r} and slow_call={self.slow_call!r}"
            )
        if self.failure_rate is not None:
            check_number("failure_rate", self.failure_rate, above=0, most=1)
        if self.slow_rate is not None:
            check_number("slow_rate", self.slow_rate, above=0, most=1)
            check_number("slow_call", self.slow_call, above=0)

    def _check_window(self) -> None:
        check_integer("minimum_calls", self.minimum_calls, 1)
        check_integer("buckets", self.buckets, 1)
        if self.period is not None:
            if self.count is not None:
                raise ValueError(
                    f"only one of count and period can be given, got count={self.count!r} and period={self.period!r}"
                )
            check_number("period", self.period, above=0)
            return
        if self.count is None:
            object.__setattr__(self, "count", 100)
        check_integer("count", self.count, 1)
        if self.minimum_calls > (self.count or 0):
            raise ValueError(
                f"minimum_calls must be at most count ({self.count}), or the circuit could never open, "
                f"got {self.minimum_calls!r}"
            )


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state, as listeners should hear of it."""

    old: BreakerState
    new: BreakerState
    generation: int
    """That of the new state."""
    reason: Reason
    at: float
    """When it happened; for an expired probe that may be before the call that noticed it."""
    open_for: float | None = None
    """Seconds, jitter included, if the new state is open."""


@dataclass(slots=True, eq=False)
class Admission:
    """Leave to make one call. While closed, all calls share one; when half-open, each probe has its own."""

    generation: int
    expires: float = math.inf
    """When the lease of a probe ends."""
    transitions: tuple[Transition, ...] = ()
    """What giving it brought about."""


@dataclass(slots=True, eq=False)
class Rejection:
    """No leave."""

    state: BreakerState
    """OPEN, ISOLATED, HALF_OPEN with all probes taken, or CLOSED and this call is not in the ramp's share."""
    retry_after: float | None
    """Seconds after which asking again is worth while; None if nobody can know (isolated).

    When half-open: the earliest end of a lease, or `open_for` if that is sooner. A probe may answer before. When
    closed: a tenth of the ramp, or what is left of it.
    """
    transitions: tuple[Transition, ...] = ()
    """What asking brought about."""


@dataclass(slots=True, eq=False)
class Pending(Rejection):
    """No leave yet: only the store that the circuit is shared through can tell."""


@dataclass(frozen=True, slots=True)
class BreakerMetrics:
    """A picture of a circuit at one moment."""

    state: BreakerState
    generation: int
    calls: int
    """Outcomes in the window when closed, of probes when half-open, otherwise 0; likewise the next two."""
    failures: int
    slow: int
    retry_after: float | None
    """0.0 if a call would be admitted, else as in `Rejection`."""
    opens: int
    """How often it has opened since it was last closed."""
    probes: int
    """Probes on the way."""
    share: float = 1.0
    """The share of calls that a closed circuit admits: below 1 while it ramps up."""
