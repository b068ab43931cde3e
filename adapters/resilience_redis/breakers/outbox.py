"""What the circuits of one event loop have to say to the server, until somebody carries it there.

outbox.report(circuit)                          # what it has to say is asked when the time has come
outbox.insist(circuit, "r 4f1c", until)         # again and again, until it was heard
answer = outbox.ask(circuit, "a 4f1c")          # once; somebody waits
by_circuit = outbox.take(now)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resilience import clock
from resilience.machines.rate_limiter.rule import text
from resilience_redis.breakers.circuits import owner_of

if TYPE_CHECKING:
    from resilience.machines.shared_circuit import Report, SharedCircuit
    from resilience_redis.breakers.fleet import Fleet


@dataclass(slots=True, eq=False)
class Request:
    """One request about one circuit, and what to do with the answer, or without one."""

    circuit: SharedCircuit
    text: str
    answered: Callable[[str], None]
    failed: Callable[[Exception], None]


@dataclass(slots=True, eq=False)
class Insistence:
    """What is said until it was heard or no longer has a meaning. Hearing it twice does no harm."""

    circuit: SharedCircuit
    text: str
    until: float


class Outbox:
    """Requests by circuit, in the order in which they have to be carried out."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._requests: list[Request] = []
        self._reports: dict[SharedCircuit, None] = {}
        self._insistences: list[Insistence] = []

    def report(self, circuit: SharedCircuit) -> None:
        """Have a circuit asked for its report."""
        self._reports[circuit] = None

    def insist(self, circuit: SharedCircuit, request: str, until: float) -> None:
        """Say something, until it was heard or that time has come."""
        self._insistences.append(Insistence(circuit, request, until))

    def look(self, circuit: SharedCircuit) -> None:
        """Have the server notice that a lease has ended."""
        self._requests.append(Request(circuit, "t", ignore, ignore))

    def ask(self, circuit: SharedCircuit, request: str, unheard: Callable[[], None]) -> asyncio.Future[str]:
        """Return the answer, once it is there. `unheard` is called if it was `probe` or unknown and nobody waits."""
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def answered(answer: str) -> None:
            if not future.done():
                future.set_result(answer)
            elif answer.startswith("probe"):
                unheard()

        def failed(error: Exception) -> None:
            unheard()
            fail(future, error)

        self._requests.append(Request(circuit, request, answered, failed))
        return future

    def take(self, now: float) -> dict[SharedCircuit, list[Request]]:
        """Take out all that there is to say now."""
        self._insistences = [each for each in self._insistences if each.until > now]
        found = [self._order(circuit, request) for circuit, request in self._fleet.orders.items()]
        found += [self._insisted(each) for each in self._insistences]
        requests, self._requests = self._requests, []
        found += requests
        if not self._fleet.away:
            found += self._take_reports(now)
        by_circuit: dict[SharedCircuit, list[Request]] = {}
        for request in found:
            by_circuit.setdefault(request.circuit, []).append(request)
        return by_circuit

    def forget(self, error: Exception) -> None:
        """Nobody will carry anything: who waits hears why, and circuits have to announce their reports again."""
        requests, self._requests = self._requests, []
        for request in requests:
            request.failed(error)
        for circuit in self._reports:
            circuit.untold()

    def _take_reports(self, now: float) -> list[Request]:
        reports, self._reports = self._reports, {}
        taken = [(circuit, circuit.take_report(now)) for circuit in reports]
        return [self._reported(circuit, report) for circuit, report in taken if report is not None]

    def _order(self, circuit: SharedCircuit, request: str) -> Request:
        def heard(answer: str) -> None:
            if self._fleet.orders.get(circuit) == request:
                del self._fleet.orders[circuit]

        return Request(circuit, request, heard, ignore)

    def _insisted(self, insistence: Insistence) -> Request:
        def heard(answer: str) -> None:
            if insistence in self._insistences:
                self._insistences.remove(insistence)

        return Request(insistence.circuit, insistence.text, heard, ignore)

    def _reported(self, circuit: SharedCircuit, report: Report) -> Request:
        def heard(answer: str) -> None:
            if answer:
                owner_of(circuit).tell(circuit, circuit.missed(clock.now(), float(answer)))

        def failed(error: Exception) -> None:
            circuit.untold()
            self.report(circuit)

        return Request(circuit, f"w {text(*report)}", heard, failed)


def fail(future: asyncio.Future[Any], error: Exception) -> None:
    """Tell whoever waits, if anybody does."""
    if not future.done():
        future.set_exception(error)
        future.exception()  # perhaps nobody waits any more


def ignore(answer: object) -> None:
    """Nobody waits for it."""
