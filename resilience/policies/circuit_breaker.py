"""CircuitBreaker: stop calling what fails, and find out carefully when it is back.

    breaker = CircuitBreaker(failure_rate=0.5, minimum_calls=20, open_for=5)

    @breaker
    async def charge(order): ...

The rules are in `resilience.machines.circuit_breaker`; this is the shell that times calls and reports verdicts.
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .. import clock
from .._outage import OnOutage, Outage
from .._rejecting import Mode, RejectingGuard
from ..call import Call
from ..circuit_state import RemoteCircuits
from ..errors import CircuitOpenError, StoreUnavailableError, circuit_refusal
from ..events import CircuitClosed, CircuitHalfOpened, CircuitIsolated, CircuitOpened, Event, Listener
from ..machines.breaker_records import Agreement, Pending
from ..machines.circuit_breaker import (
    Admission,
    BreakerMetrics,
    BreakerRule,
    BreakerState,
    CircuitBreakerMachine,
    Rejection,
    Transition,
)
from ..store import MemoryStore, Store, named
from ..verdict import SUCCESS, Classifier, On, Verdict, classifier


class Passage:
    """One admitted call; without a machine it passed in shadow mode and is not counted."""

    __slots__ = ("admission", "machine", "since")

    def __init__(self, machine: CircuitBreakerMachine | None, admission: Admission | None, since: float) -> None:
        self.machine: CircuitBreakerMachine | None = machine
        self.admission: Admission | None = admission
        self.since: float = since


class CircuitBreaker(RejectingGuard[Passage]):
    """Open when too many recent calls failed or were slow; half-open after a while; close when probes succeed.

    Opens when, of at least `minimum_calls` (20) in the window, the share of failures reaches `failure_rate`
    (0.5; None: never) or that of calls longer than `slow_call` seconds reaches `slow_rate` (None: never). The
    window is the last `count` calls (100 when neither is given) or the last `period` seconds in `buckets` (10).
    Stays open `open_for` seconds (5), times `open_growth` (2) each time it opens again without having closed,
    up to `open_max` (300), plus up to `jitter` (0.2) of that. Then `probes` calls (3) may pass, each with a
    lease of `probe_lease` seconds (30): a probe that hangs or dies counts as a failure when its lease ends, a
    cancelled one frees its place at once and has no verdict. Answers to calls admitted before the last change
    of state are dropped. For `ramp` seconds (0) after its probes have closed it only a share of the calls is
    admitted, which grows from a tenth to all.

    `on` and `on_result` say what a failure is; by default every exception except rejections. Cancellation is
    never an outcome. With `keyed` (default) calls with a key have a circuit per key, for about `max_keys` keys;
    open circuits are never forgotten.

    With a shared `store`, processes decide by themselves and at once; what they see is pooled, and what the fleet has
    decided is pushed to all. It opens for all of them by `shared`: `any`, if the rate of all their calls together is
    reached; `quorum` (default), if besides it is reached in at least `quorum` of them by themselves (None: in a
    majority of those that made calls); `local`: never. One that reaches a rate by itself opens in any case, alone.
    When half-open, exactly `probes` calls pass in the whole fleet. While the store does not answer, `on_outage` says
    what takes its place: `local`, each process decides for itself; `open`, calls that it would have to be asked for
    pass; `closed`, all are refused.

    Raises CircuitOpenError with `retry_after` while it is open. Bad options raise ValueError or TypeError.
    """

    def __init__(
        self,
        *,
        failure_rate: float | None = 0.5,
        slow_rate: float | None = None,
        slow_call: float | None = None,
        minimum_calls: int = 20,
        count: int | None = None,
        period: float | None = None,
        buckets: int = 10,
        open_for: float = 5.0,
        open_max: float = 300.0,
        open_growth: float = 2.0,
        jitter: float = 0.2,
        probes: int = 3,
        probe_lease: float = 30.0,
        ramp: float = 0.0,
        on: On | None = None,
        on_result: Callable[[Any], bool] | None = None,
        mode: Mode = "enforce",
        keyed: bool = True,
        max_keys: int = 10_000,
        store: Store | None = None,
        shared: Agreement = "quorum",
        quorum: int | None = None,
        on_outage: OnOutage = "local",
        random: Callable[[], float] = _random.random,
        name: str | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        super().__init__(name, listeners, mode, keyed)
        self.rule: BreakerRule = BreakerRule(
            failure_rate=failure_rate,
            slow_rate=slow_rate,
            slow_call=slow_call,
            minimum_calls=minimum_calls,
            count=count,
            period=period,
            buckets=buckets,
            open_for=open_for,
            open_max=open_max,
            open_growth=open_growth,
            jitter=jitter,
            probes=probes,
            probe_lease=probe_lease,
            ramp=ramp,
            shared=shared,
            quorum=quorum,
        )
        self.classifier: Classifier | None = classifier(on, on_result)
        self.random: Callable[[], float] = random
        name = named(name, self.name, store)
        self.outage: Outage = Outage(self, on_outage)
        self._machines = (store or MemoryStore()).breakers(name, self.rule, max_keys)
        self._remote = self._machines if isinstance(self._machines, RemoteCircuits) else None
        if self._remote is not None:
            self._remote.followers.add(self)

    @property
    def degraded(self) -> bool:
        """Whether the shared store did not answer last time."""
        return self.outage.degraded

    def state(self, key: str = "") -> BreakerState:
        """The state of a circuit now, as this process knows it. Reading changes nothing."""
        machine = self._machines.find(self.partition(key))
        return BreakerState.CLOSED if machine is None else machine.state_at(clock.now())

    def metrics(self, key: str = "") -> BreakerMetrics:
        """State, counts in the window, generation and time to the next probe. Reading changes nothing."""
        machine = self._machines.find(self.partition(key)) or CircuitBreakerMachine(self.rule)
        return machine.metrics(clock.now())

    def keys(self) -> list[str]:
        """The keys that have a circuit in memory."""
        return [key for key, _ in self._machines.items()]

    def isolate(self, key: str = "") -> None:
        """Open a circuit by hand, until `reset`; a shared one soon in all processes."""
        key = self.partition(key)
        self._report("", key, self._machines.get(key).isolate(clock.now()))

    def reset(self, key: str = "") -> None:
        """Close a circuit and forget its counts; a shared one soon in all processes.

        Calls under way are not counted any more.
        """
        key = self.partition(key)
        self._report("", key, self._machines.get(key).reset(clock.now()))

    def enter(self, call: Call) -> Passage | None:
        """Admit the call if its circuit is closed or a probe's place is free. Raises CircuitOpenError."""
        if self._mode == "off":
            return _NOT_COUNTED
        now = clock.now()
        machine = self._machines.get(self.key_of(call))
        admission = machine.admission or machine.admit(now)
        if isinstance(admission, Pending):
            return None
        return self._pass(call, machine, admission, now)

    async def wait(self, call: Call) -> Passage:
        """Ask the shared store. Raises CircuitOpenError."""
        key, remote = self.key_of(call), self._remote
        assert remote is not None, "circuits of this process are never pending"
        try:
            admission = await remote.admit(key)
        except StoreUnavailableError as error:
            answer = self._without_store(call, remote, error)
            if answer is None:
                return _NOT_COUNTED
            admission = answer
        return self._pass(call, remote.get(key), admission, clock.now())

    def leave(self, call: Call, token: Passage, result: Any, error: BaseException | None) -> None:
        """Report the verdict; a cancelled call frees its place without one."""
        machine, admission = token.machine, token.admission
        if machine is None or admission is None:
            return
        now = clock.now()
        if error is not None and not isinstance(error, Exception):
            transitions = machine.release(now, admission)
        else:
            try:
                verdict = self._judge(call, result, error)
            except BaseException:  # a broken predicate is its author's to see, and costs no probe its place
                machine.release(now, admission)
                raise
            transitions = machine.record(now, admission, verdict, now - token.since, self.random())
        if transitions:
            self.report(call, transitions)

    def changed(self, key: str, transitions: Iterable[Transition]) -> None:
        """Tell the listeners what the fleet has decided."""
        self._report("", key, transitions)

    def machine(self, key: str) -> CircuitBreakerMachine:
        """The circuit of a key."""
        return self._machines.get(key)

    def recent(self, key: str) -> CircuitBreakerMachine | None:
        """The circuit of a key that was used of late."""
        return self._machines.recent(key)

    def report(self, call: Call, transitions: Iterable[Transition]) -> None:
        """Tell the listeners what a call brought about."""
        self._report(call.operation.name, self.key_of(call), transitions)

    def _pass(self, call: Call, machine: CircuitBreakerMachine, answer: Admission | Rejection, now: float) -> Passage:
        if answer.transitions:
            self.report(call, answer.transitions)
        if isinstance(answer, Rejection):
            self.reject(call, self._error(call, answer))
            return _NOT_COUNTED
        return Passage(machine, answer, now)

    def _without_store(
        self, call: Call, remote: RemoteCircuits, error: StoreUnavailableError
    ) -> Admission | Rejection | None:
        """What takes the place of the store's answer; None: the call passes and is not counted."""
        outage = self.outage
        outage.began(call.operation.name, error)
        key = self.key_of(call)
        if outage.behaviour == "closed":
            message = f"{self.name}: the shared store does not answer"
            self.reject(call, CircuitOpenError(message, policy=self.name, key=key, state="unknown"))
            return None
        answer = remote.alone(key) if outage.behaviour == "local" else None
        outage.admitted += not isinstance(answer, Rejection)
        return answer

    def _judge(self, call: Call, result: Any, error: Exception | None) -> Verdict:
        judge = self.classifier or call.operation.classifier
        if error is not None:
            return judge.error(error)
        return SUCCESS if judge.result is None else judge.result(result)

    def _error(self, call: Call, rejection: Rejection) -> CircuitOpenError:
        # A closed circuit that refuses is on its way to be closed for all.
        closed = rejection.state is BreakerState.CLOSED
        state = "closing" if closed else rejection.state.value.replace("_", "-")
        return circuit_refusal(self.name, rejection.retry_after, self.key_of(call), state)

    def _report(self, operation: str, key: str, transitions: Iterable[Transition]) -> None:
        if self.listeners:
            for transition in transitions:
                self.emit(self._event(operation, key, transition))

    def _event(self, operation: str, key: str, transition: Transition) -> Event:
        generation = transition.generation
        if transition.new is BreakerState.OPEN:
            return CircuitOpened(operation, self.name, key, generation, transition.open_for or 0.0)
        kinds = {
            BreakerState.CLOSED: CircuitClosed,
            BreakerState.HALF_OPEN: CircuitHalfOpened,
            BreakerState.ISOLATED: CircuitIsolated,
        }
        return kinds[transition.new](operation, self.name, key, generation)


_NOT_COUNTED = Passage(None, None, 0.0)
