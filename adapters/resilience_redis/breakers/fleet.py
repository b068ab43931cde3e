"""All breakers of one store in this process, and whether anybody tells them what the fleet decides.

    fleet = Fleet(store.link, prefix)
    circuits = fleet.circuits("db", BreakerRule(), max_keys=10_000)

One `Reporter` per event loop talks with the server for all of them. With the last loop ends what circuits know: in
the next one, only the store can tell, once.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from resilience import clock
from resilience.machines.circuit_breaker import BreakerRule
from resilience.machines.fleet_breaker import FleetView
from resilience_redis.breakers.circuit_wire import name_and_key
from resilience_redis.breakers.circuits import SharedCircuits, owner_of
from resilience_redis.breakers.reporter import Reporter

if TYPE_CHECKING:
    from resilience.machines.shared_circuit import SharedCircuit
    from resilience_redis.link import Link


class Fleet:
    """What the reporters of all event loops have in common."""

    def __init__(self, link: Callable[[], Link], prefix: str) -> None:
        tag = f"{{{prefix}:breakers}}:v1"
        self.channel: str = tag
        self.keys: tuple[str, str] = (f"{tag}:views", f"{tag}:index")
        """Of what all circuits have in common."""
        self._circuit_key = f"{tag}:circuit:"
        self.version: float = 0.0
        """All views up to this one are known."""
        self.informed: bool = False
        """Whether a reporter is at work and has heard of the views."""
        self.away: bool = False
        """Whether the store did not answer last time."""
        self.orders: dict[SharedCircuit, str] = {}
        """What was done by hand and the server has not heard of."""
        self.half_open: set[SharedCircuit] = set()
        """Circuits with probes on their way, somewhere in the fleet."""
        self.process: str = secrets.token_hex(8)
        """What this process is called in the server: random, another one after a fork."""
        self._link = link
        self._named: dict[str, SharedCircuits] = {}
        self._unclaimed: dict[str, dict[str, FleetView]] = {}
        self._reporters: dict[asyncio.AbstractEventLoop | None, Reporter] = {}
        self._left: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
        _fleets.add(self)

    def circuits(self, name: str, rule: BreakerRule, max_keys: int) -> SharedCircuits:
        """Return the circuits of that name. Raises ValueError if they were made here with other settings."""
        known = self._named.get(name)
        if known is None:
            known = self._named[name] = SharedCircuits(self, name, rule, max_keys)
            for key, view in self._unclaimed.pop(name, {}).items():
                known.learn(key, clock.now(), view)
        if known.settings != (rule, max_keys):
            raise ValueError(f"name {name!r} is taken by a circuit breaker with other settings: {known.settings!r}")
        return known

    def key_of(self, circuit: SharedCircuit) -> str:
        """Return the key of a circuit's record."""
        return self._circuit_key + owner_of(circuit).identity(circuit)

    def reporter(self) -> Reporter:
        """Return the reporter of the running loop. Raises RuntimeError outside of asyncio."""
        loop = asyncio._get_running_loop()
        known = self._reporters.get(loop)
        if known is None:
            known = Reporter(self, self._link())
            self._reporters = {each: other for each, other in self._reporters.items() if each and not each.is_closed()}
            self._reporters[loop] = known
        return known

    def reporter_at_hand(self) -> Reporter | None:
        """Return the reporter of the running loop; None outside of asyncio, and where the store was closed.

        Calls that end after that have nobody to tell; those that begin make a new one.
        """
        loop = asyncio._get_running_loop()
        return None if loop is None or (loop in self._left and loop not in self._reporters) else self.reporter()

    def order(self, circuit: SharedCircuit, request: str) -> None:
        """Have the server told what was done by hand, now or once there is a running loop."""
        self.orders[circuit] = request
        reporter = self.reporter_at_hand()
        if reporter is not None:
            reporter.hurry()

    def farewell(self) -> None:
        """The store is being closed in this loop: say what there is to say."""
        reporter = self._reporters.get(asyncio._get_running_loop())
        if reporter is not None:
            reporter.farewell()

    def learn(self, identity: str, now: float, view: FleetView) -> None:
        """Take over one view, with times of this process."""
        name, key = name_and_key(identity)
        if name in self._named:
            self._named[name].learn(key, now, view)
        else:  # a breaker of that name may be made later
            self._unclaimed.setdefault(name, {})[key] = view

    def watch(self, circuit: SharedCircuit) -> None:
        """Have somebody look when a lease ends."""
        if circuit.view.probes:
            self.half_open.add(circuit)
            for reporter in self._reporters.values():
                reporter.wake_at(circuit.lease_ends)
        else:
            self.half_open.discard(circuit)

    def glance(self) -> None:
        """Notice calls that were counted past `record`: those without a key, in generated frames."""
        for circuits in self._named.values():
            circuit = circuits.find("")
            if circuit is not None:
                cast("SharedCircuit", circuit).glance()

    def answered(self) -> None:
        """The server has answered, and what it said has been read."""
        if self._reporters and (self.away or not self.informed):
            self.away, self.informed = False, True
            for circuits in self._named.values():
                circuits.recover()

    def went_away(self, error: Exception) -> None:
        """The server does not answer."""
        if not self.away:
            self.away = True
            for circuits in self._named.values():
                circuits.went_away(error)

    def disconnect(self) -> None:
        """Nobody tells what the fleet decides: only the store can."""
        self.informed = False
        for circuits in self._named.values():
            circuits.disconnect()

    def leave(self, reporter: Reporter) -> None:
        """A reporter ends with its loop."""
        for loop, known in tuple(self._reporters.items()):
            if known is reporter and loop is not None:
                del self._reporters[loop]
                self._left.add(loop)
        if not self._reporters:
            self.disconnect()

    def forked(self) -> None:
        """This is another process now, in which nobody listens yet."""
        self.process = secrets.token_hex(8)
        self._reporters.clear()
        self.disconnect()


_fleets: weakref.WeakSet[Fleet] = weakref.WeakSet()


def _forked() -> None:
    for fleet in _fleets:
        fleet.forked()


if hasattr(os, "register_at_fork"):  # not everywhere can a process be forked
    os.register_at_fork(after_in_child=_forked)
