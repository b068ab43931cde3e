"""A fleet in one process: stores that share their circuits through the machine that is the twin of the script.

    server = FleetServer()
    one, other = FleetStore(server), FleetStore(server)
    server.deliver()                    # what circuits have said reaches the server, and its news all of them

Questions take `server.delay` seconds, or fail while `server.away`. Works in virtual time, on asyncio and trio.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import anyio

from resilience import BreakerState, clock
from resilience.circuit_state import RemoteCircuits
from resilience.errors import StoreUnavailableError
from resilience.machines.breaker_records import Admission, BreakerRule, Pending, Rejection
from resilience.machines.fleet_breaker import FleetBreaker, Versions
from resilience.machines.shared_circuit import Probe, SharedCircuit
from resilience.store import Store

LIFETIME = 30.0


class FleetServer:
    """The records of all circuits."""

    def __init__(self) -> None:
        self.delay = 0.01
        self.away = False
        self.versions = Versions()
        self.breakers: dict[str, FleetBreaker] = {}
        self.fleets: list[FleetCircuits] = []
        self.said: list[Callable[[], None]] = []
        self.asked = self.probes = 0

    def breaker(self, key: str, rule: BreakerRule) -> FleetBreaker:
        return self.breakers.setdefault(key, FleetBreaker(rule, self.versions, LIFETIME))

    def deliver(self) -> None:
        """Carry what was said, and tell everybody what came of it."""
        while self.said:
            self.said.pop(0)()
        for fleet in self.fleets:
            fleet.learn()


class FleetStore(Store):
    """One process."""

    def __init__(self, server: FleetServer) -> None:
        self.server = server

    def breakers(self, name: str, rule: BreakerRule, max_keys: int) -> FleetCircuits:
        return FleetCircuits(self.server, rule, max_keys)


class FleetCircuits(RemoteCircuits):
    """The circuits of one process."""

    def __init__(self, server: FleetServer, rule: BreakerRule, max_keys: int) -> None:
        super().__init__(
            lambda: SharedCircuit(rule, self, LIFETIME, server.versions.last, self.informed),
            droppable=lambda machine: machine.state_at(clock.now()) is BreakerState.CLOSED,
            max_keys=max_keys,
        )
        self.server, self.rule, self.informed = server, rule, False
        self.name = f"process{len(server.fleets)}"
        server.fleets.append(self)

    def circuit(self, key: str) -> SharedCircuit:
        return cast(SharedCircuit, self.get(key))

    async def admit(self, key: str) -> Admission | Rejection:
        self.server.asked += 1
        await anyio.sleep(self.server.delay)
        if self.server.away:
            raise StoreUnavailableError("the store is away")
        self.informed = True
        self.learn()
        for circuit in cast("list[SharedCircuit]", self.values()):
            circuit.recover(clock.now())
        circuit = self.circuit(key)
        answer = circuit.admit(clock.now())
        return self._probe(circuit, key) if isinstance(answer, Pending) else answer

    def alone(self, key: str) -> Admission | Rejection:
        return self.circuit(key).alone(clock.now())

    def learn(self) -> None:
        now = clock.now()
        for key, breaker in self.server.breakers.items():
            caused = self.circuit(key).learn(now, breaker.view)
            for follower in tuple(self.followers) if caused else ():
                follower.changed(key, caused)

    def _probe(self, circuit: SharedCircuit, key: str) -> Admission | Rejection:
        self.server.probes += 1
        now, name = clock.now(), str(self.server.probes)
        answer = self.server.breaker(key, self.rule).ask(now, name, 0.0)
        self.server.deliver()
        if answer.kind == "probe":
            return circuit.granted(now, name)
        return circuit.refused(now, answer.value) if answer.kind == "wait" else circuit.admit(now)

    def report(self, circuit: SharedCircuit, urgency: int) -> None:
        self.server.said.append(lambda: self._report(circuit))

    def _report(self, circuit: SharedCircuit) -> None:
        now = clock.now()
        report = circuit.take_report(now)
        if report is not None:
            generation = self.server.breaker(circuit.key, self.rule).report(now, self.name, *report, draw=0.0)
            if generation is not None:
                circuit.missed(now, generation)

    def conclude(self, circuit: SharedCircuit, probe: Probe, failure: bool, slow: bool) -> None:
        breaker = self.server.breaker(circuit.key, self.rule)
        self.server.said.append(lambda: breaker.conclude(clock.now(), probe.name, failure, slow, 0.0))

    def release(self, circuit: SharedCircuit, probe: Probe) -> None:
        breaker = self.server.breaker(circuit.key, self.rule)
        self.server.said.append(lambda: breaker.release(clock.now(), probe.name, 0.0))

    def order(self, circuit: SharedCircuit, state: BreakerState) -> None:
        breaker = self.server.breaker(circuit.key, self.rule)
        order = breaker.isolate if state is BreakerState.ISOLATED else breaker.reset
        self.server.said.append(lambda: order(clock.now()))

    def _revive(self, key: str) -> SharedCircuit:
        circuit = cast(SharedCircuit, super()._revive(key))
        circuit.key = key
        return circuit
