"""The circuit of one process among many: it decides by itself, and follows what the fleet has decided.

    fleet says       a call
    ---------------  -------------------------------------------------------------------------------
    nothing, closed  by the rules of `CircuitBreakerMachine`: its own window, its own open time and probes
    open             is refused; once the time has come only the store can tell: a probe, or wait
    half-open        only the store can tell, unless all probes are taken
    isolated         is refused

Closed and open circuits need no store. What it has to say goes to its `Owner`, at most once until somebody asks for
it: the totals of its window soon when calls fail, at once when it has opened by itself, later if all is well.

Before the first view has come (`informed` is False) only the store can tell. While the store is away, `alone` makes
of the fleet's state one of its own, and `recover` goes back to the fleet's.

Times are in seconds of the process, in views, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from resilience.machines.breaker_records import (
    Admission,
    BreakerMetrics,
    BreakerRule,
    BreakerState,
    Pending,
    Reason,
    Rejection,
    Transition,
)
from resilience.machines.breaker_states import Closed, FleetHalfOpen, FleetOpen, HalfOpen, Isolated, Open, State
from resilience.machines.circuit_breaker import CircuitBreakerMachine
from resilience.machines.fleet_breaker import FleetView
from resilience.machines.windows import CountWindow
from resilience.verdict import FAILURE, IGNORED, Verdict

LATER, SOON, AT_ONCE = 1, 2, 3
"""How urgent a report is."""

UNHEARD = FleetView(BreakerState.CLOSED, 0.0, 0.0)
"""What is known of a circuit of which the fleet has never said anything."""

_PENDING = Pending(BreakerState.HALF_OPEN, None)


class Report(NamedTuple):
    """What a process tells of its window, and as of which version it has known the circuit to be closed."""

    since: float
    calls: int
    failures: int
    slow: int


@dataclass(slots=True, eq=False)
class Probe(Admission):
    """Leave for one of the probes of the whole fleet."""

    name: str = ""


class Owner(Protocol):
    """Who passes on what a circuit has to say."""

    def report(self, circuit: SharedCircuit, urgency: int) -> None:
        """`take_report` has something to tell."""
        ...

    def conclude(self, circuit: SharedCircuit, probe: Probe, failure: bool, slow: bool) -> None:
        """A probe has an outcome."""
        ...

    def release(self, circuit: SharedCircuit, probe: Probe) -> None:
        """A probe ended without one."""
        ...

    def order(self, circuit: SharedCircuit, state: BreakerState) -> None:
        """The circuit was isolated or closed by hand."""
        ...


class SharedCircuit(CircuitBreakerMachine):
    """`lifetime` is how many seconds a report counts; `since` the version as of which the circuit is closed."""

    __slots__ = ("_hand", "_lifetime", "_told", "_told_at", "_urgency", "informed", "key", "owner", "since", "view")

    admission: Admission | None
    calm: Admission | None
    generation: int
    open_until: float

    def __init__(self, rule: BreakerRule, owner: Owner, lifetime: float, since: float, informed: bool) -> None:
        super().__init__(rule)
        self.key: str = ""
        self.view: FleetView = UNHEARD
        self.since: float = since
        self.informed: bool = informed
        self.owner: Owner = owner
        self._lifetime = lifetime
        self._told: tuple[int, int, int] = (0, 0, 0)
        self._told_at = 0.0
        self._urgency = 0
        self._hand = 0
        if not informed:
            self.admission = None

    def admit(self, now: float) -> Admission | Rejection:
        """Ask for leave to make a call; `Pending` if only the store can tell."""
        if self.admission is not None:
            return self.admission
        if not self.informed:
            return _PENDING
        state = self._state
        if isinstance(state, FleetOpen):
            return Rejection(BreakerState.OPEN, state.until - now) if now < state.until else _PENDING
        if isinstance(state, FleetHalfOpen):
            wait = state.wait(now)
            return Rejection(BreakerState.HALF_OPEN, wait) if wait else _PENDING
        return super().admit(now)

    def record(
        self, now: float, admission: Admission, verdict: Verdict, duration: float, draw: float
    ) -> tuple[Transition, ...]:
        """Report how an admitted call ended; of a probe of the fleet, to the fleet."""
        slow_call = self.rule.slow_call
        slow = slow_call is not None and duration > slow_call
        if isinstance(admission, Probe):
            if verdict is IGNORED:
                return self.release(now, admission)
            self.owner.conclude(self, admission, verdict is FAILURE, slow)
            return ()
        caused = CircuitBreakerMachine.record(self, now, admission, verdict, duration, draw)  # cheaper than super()
        # Every success is to be told some time, so none may be skipped.
        self.calm = None
        if caused:
            self._report(AT_ONCE)
        elif verdict is FAILURE or slow:
            self._report(SOON)
        elif not self._urgency:
            self._report(SOON if self.window.calls >= 2 * self._told[0] else LATER)
        return caused

    def release(self, now: float, admission: Admission) -> tuple[Transition, ...]:
        """The call ended without a verdict."""
        if isinstance(admission, Probe):
            self.owner.release(self, admission)
            return ()
        return super().release(now, admission)

    def isolate(self, now: float) -> tuple[Transition, ...]:
        """Admit nothing until `reset`, here at once and soon in the whole fleet."""
        caused = super().isolate(now)
        if caused:
            self.owner.order(self, BreakerState.ISOLATED)
        return caused

    def reset(self, now: float) -> tuple[Transition, ...]:
        """Close the circuit and forget all outcomes, here at once and soon in the whole fleet."""
        caused = super().reset(now)
        self.owner.order(self, BreakerState.CLOSED)
        return caused

    def metrics(self, now: float) -> BreakerMetrics:
        """A picture of the circuit at `now`, as this process knows it."""
        state = self._state
        if isinstance(state, FleetHalfOpen):
            return BreakerMetrics(
                BreakerState.HALF_OPEN, self.generation, 0, 0, 0, state.wait(now), state.opens, state.probes
            )
        return super().metrics(now)

    # What the process tells.

    def take_report(self, now: float) -> Report | None:
        """What is to be told now, if it is anything new."""
        self._urgency = 0
        if self._follows:
            return None
        totals = self.window.totals(now)
        if totals == self._told and (not totals[0] or now - self._told_at < self._lifetime / 3):
            return None
        self._told, self._told_at = totals, now
        return Report(self.since, *totals)

    def glance(self) -> None:
        """Notice successes that were counted past `record`, which engines may do while they change no total."""
        hand = self.window._next if isinstance(self.window, CountWindow) else 0
        if hand != self._hand and not self._urgency:
            self._report(LATER)
        self._hand = hand

    def untold(self) -> None:
        """What `take_report` gave has not arrived, or nobody will ask for it."""
        self._told = (0, 0, 0)
        self._urgency = 0

    def _report(self, urgency: int) -> None:
        if urgency > self._urgency:
            self._urgency = urgency
            self.owner.report(self, urgency)

    # What the fleet tells.

    @property
    def _follows(self) -> bool:
        return isinstance(self._state, FleetOpen | FleetHalfOpen | Isolated)

    def learn(self, now: float, view: FleetView) -> tuple[Transition, ...]:
        """Take over what the fleet has decided, unless something newer is known."""
        if view.version <= self.view.version:
            return ()
        self.view = view
        return self._follow(now)

    def missed(self, now: float, generation: float) -> tuple[Transition, ...]:
        """A report was stale: since it was last known to be closed, the circuit was not, up to that generation."""
        return () if self._follows or self.since >= generation else self._close_with_fleet(now, generation, generation)

    def closed(self, now: float, version: float) -> tuple[Transition, ...]:
        """Who asked for a probe has heard that there is no need of any."""
        return self._close_with_fleet(now, version, version) if self._follows else ()

    @property
    def lease_ends(self) -> float:
        """When a probe of the fleet is to be counted as failed if it has not answered."""
        state = self._state
        return state.until if isinstance(state, FleetHalfOpen) and state.probes else math.inf

    def granted(self, asked_at: float, name: str) -> Probe:
        """The admission of a probe that the fleet has leased."""
        return Probe(self.generation, asked_at + self.rule.probe_lease, name=name)

    def refused(self, now: float, wait: float) -> Rejection:
        """No probe for so many seconds, unless the fleet says something new."""
        state = self._state
        if isinstance(state, FleetOpen):
            self._state = replace(state, until=max(state.until, now + wait))
            self.open_until = self._state.until
        elif isinstance(state, FleetHalfOpen):
            self._state = replace(state, free=0, until=now + wait)
        return Rejection(state.name, wait)

    def disconnect(self) -> None:
        """Nobody tells what the fleet decides any more: only the store can."""
        self.informed = False
        self.admission = None

    def alone(self, now: float) -> Admission | Rejection:
        """Ask for leave although the store does not answer: what the fleet has decided is now this circuit's own."""
        self.informed = True
        state = self._state
        if isinstance(state, FleetOpen):
            self._state = Open(state.until, state.nominal, state.opens, state.draw)
        elif isinstance(state, FleetHalfOpen):
            self._state = HalfOpen(self.rule.open_for, state.opens, 0.0)
        return self.admit(now)

    def recover(self, now: float) -> tuple[Transition, ...]:
        """The store answers again: the fleet has the last word."""
        self.informed = True
        return () if self._follows or self.view.state is BreakerState.CLOSED else self._follow(now)

    def _follow(self, now: float) -> tuple[Transition, ...]:
        view = self.view
        if view.state is BreakerState.CLOSED:
            missed = self._follows or self.since < view.generation
            return self._close_with_fleet(now, view.generation, view.version, view.until) if missed else ()
        known, state, open_for = self._state, self._imposed(view), None
        if isinstance(known, Isolated) and isinstance(state, Isolated):
            return ()
        if isinstance(known, FleetHalfOpen) and isinstance(state, FleetHalfOpen) and known.episode == state.episode:
            self._state = state  # probes have come and gone
            return ()
        if isinstance(state, FleetOpen):
            open_for = max(0.0, state.until - now)
        self._count_on(view.generation)
        return (self._enter(state, "fleet", now, open_for),)

    def _imposed(self, view: FleetView) -> State:
        if view.state is BreakerState.OPEN:
            return FleetOpen(view.until, self.rule.open_for, view.opens, 0.0)
        if view.state is BreakerState.HALF_OPEN:
            return FleetHalfOpen(view.generation, view.until, view.opens, view.free, view.probes)
        return Isolated()

    def _close_with_fleet(
        self, now: float, generation: float, version: float, ramp_since: float = -math.inf
    ) -> tuple[Transition, ...]:
        was_closed = isinstance(self._state, Closed)
        self._count_on(generation)
        transition = self._close("fleet", now, ramp_since)
        self.since = max(self.since, version)
        self._told = (0, 0, 0)
        return () if was_closed else (transition,)

    def _count_on(self, generation: float) -> None:
        """The next generation is that of the fleet, unless it was overtaken here."""
        self.generation = max(self.generation, int(generation) - 1)

    def _close(self, reason: Reason, at: float, ramp_since: float = -math.inf) -> Transition:
        transition = super()._close(reason, at, ramp_since)
        if not self.informed:
            self.admission = None
        return transition
