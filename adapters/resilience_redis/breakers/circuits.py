"""The circuits of one breaker whose state is shared through Redis.

    circuits = store.breakers("db", BreakerRule(), max_keys=10_000)
    admission = circuits.get("eu").admission or await circuits.admit("eu")

They decide by themselves; what they have to say and to ask goes through the `Fleet` of their store.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from resilience import clock
from resilience.circuit_state import RemoteCircuits
from resilience.machines.breaker_records import Pending
from resilience.machines.circuit_breaker import (
    Admission,
    BreakerRule,
    BreakerState,
    CircuitBreakerMachine,
    Rejection,
    Transition,
)
from resilience.machines.fleet_breaker import FleetView
from resilience.machines.shared_circuit import AT_ONCE, LATER, SOON, Probe, SharedCircuit
from resilience_redis.breakers.circuit_wire import identity_of, rule_line

if TYPE_CHECKING:
    from resilience_redis.breakers.fleet import Fleet

LIFETIME = 30.0
"""Seconds that the report of a process counts whose window is one of calls; else it is the period of the window."""

DELAYS = {LATER: 1.0, SOON: 0.02, AT_ONCE: 0.0}
"""Seconds that a report may wait for others to travel with."""

_ORDERS = {BreakerState.ISOLATED: "i", BreakerState.CLOSED: "z"}


class SharedCircuits(RemoteCircuits):
    """The circuits of one breaker, by key."""

    def __init__(self, fleet: Fleet, name: str, rule: BreakerRule, max_keys: int) -> None:
        lifetime = rule.period or LIFETIME
        super().__init__(
            lambda: SharedCircuit(rule, self, lifetime, fleet.version, self.informed),
            droppable=lambda machine: machine.state_at(clock.now()) is BreakerState.CLOSED,
            max_keys=max_keys,
        )
        self.settings: tuple[BreakerRule, int] = (rule, max_keys)
        self.line: str = rule_line(rule, lifetime)
        self._fleet = fleet
        self._name = name

    def circuit(self, key: str) -> SharedCircuit:
        """The circuit of `key`, made if there is none."""
        return cast(SharedCircuit, self.get(key))

    def circuits(self) -> list[SharedCircuit]:
        """All circuits in memory."""
        return cast("list[SharedCircuit]", self.values())

    def identity(self, circuit: SharedCircuit) -> str:
        """What a circuit is called in the server."""
        return identity_of(self._name, circuit.key)

    async def admit(self, key: str) -> Admission | Rejection:
        """Ask the store for leave to make a call. Raises StoreUnavailableError."""
        reporter = self._fleet.reporter()
        if not self.circuit(key).informed:
            await reporter.views()
        circuit = self.circuit(key)
        answer = circuit.admit(clock.now())
        if not isinstance(answer, Pending):
            return answer
        return await reporter.probe(circuit)

    def alone(self, key: str) -> Admission | Rejection:
        """Ask for leave although the store does not answer."""
        return self.circuit(key).alone(clock.now())

    @property
    def informed(self) -> bool:
        """Whether circuits may decide without asking."""
        return self._fleet.informed and not (self._fleet.away and self._waits_for_store)

    @property
    def _waits_for_store(self) -> bool:
        return any(follower.outage.behaviour != "local" for follower in self.followers)

    def went_away(self, error: Exception) -> None:
        """The store does not answer."""
        for follower in tuple(self.followers):
            follower.outage.began("", error)
        if self._waits_for_store:
            self.disconnect()

    def disconnect(self) -> None:
        """From now on only the store can tell."""
        for circuit in self.circuits():
            circuit.disconnect()

    def recover(self) -> None:
        """The store answers again, or for the first time."""
        now = clock.now()
        for circuit in self.circuits():
            self.tell(circuit, circuit.recover(now))
        for follower in tuple(self.followers):
            follower.outage.ended("")

    def tell(self, circuit: SharedCircuit, transitions: Iterable[Transition]) -> None:
        """Tell the policies."""
        if transitions:
            for follower in tuple(self.followers):
                follower.changed(circuit.key, transitions)

    def learn(self, key: str, now: float, view: FleetView) -> None:
        """Take over what the fleet has decided. Of circuits that are closed only those in memory need to know."""
        if view.state is not BreakerState.CLOSED or self.find(key) is not None:
            circuit = self.circuit(key)
            self.tell(circuit, circuit.learn(now, view))
            self._fleet.watch(circuit)

    # What circuits have to say.

    def report(self, circuit: SharedCircuit, urgency: int) -> None:
        """Pass on that a circuit has something to report."""
        reporter = self._fleet.reporter_at_hand()
        if reporter is None:
            circuit.untold()
        else:
            reporter.report(circuit, DELAYS[urgency])

    def conclude(self, circuit: SharedCircuit, probe: Probe, failure: bool, slow: bool) -> None:
        """Pass on the outcome of a probe."""
        self._insist(circuit, f"v {probe.name} {int(failure)} {int(slow)}", probe)

    def release(self, circuit: SharedCircuit, probe: Probe) -> None:
        """Pass on that a probe ended without an outcome."""
        self._insist(circuit, f"r {probe.name}", probe)

    def order(self, circuit: SharedCircuit, state: BreakerState) -> None:
        """Pass on what was done by hand, as soon as there is an event loop and a server to tell."""
        self._fleet.order(circuit, _ORDERS[state])

    def _insist(self, circuit: SharedCircuit, request: str, probe: Probe) -> None:
        reporter = self._fleet.reporter_at_hand()
        if reporter is not None:  # else its lease ends by itself
            reporter.insist(circuit, request, probe.expires)

    def _revive(self, key: str) -> CircuitBreakerMachine:
        circuit = cast(SharedCircuit, super()._revive(key))
        circuit.key = key
        return circuit


def owner_of(circuit: SharedCircuit) -> SharedCircuits:
    """Return the breaker that a circuit belongs to."""
    return cast(SharedCircuits, circuit.owner)
