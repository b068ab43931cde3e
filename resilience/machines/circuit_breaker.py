"""A circuit breaker: stop calling what keeps failing, and find out carefully when it is well again.

    state      on                                              next         reason
    ---------  ----------------------------------------------  -----------  --------------------------------
    closed     outcome; a rate of the window is reached        open         failure_rate, slow_rate
    open       admit, once `until` has come                    half-open    open_elapsed
    half-open  outcome or expired probe; a rate is certain     open         failure_rate, slow_rate
    half-open  outcome; no rate can be reached any more        closed       probes_passed
    any        isolate                                         isolated     isolated
    any        reset                                           closed       reset

Rules:

- Every admission carries the generation in which it was given; every transition begins a new one. What an
  admission of an earlier generation reports is dropped.
- Half-open admits `probes` calls in all, each on a lease. A probe that hangs past its lease counts as a
  failure at the moment the lease ends, and whatever it says later is dropped. A cancelled or ignored probe
  gives its place back at once and counts neither way. So half-open always ends.
- With a `ramp`, a circuit that its probes have closed admits only a share of the calls at first, evenly spread,
  which grows from a tenth to all of them.
- Time passes only through `now`. What it has brought about is noticed by the next call of a changing method;
  `state_at` and `metrics` see it too, but change nothing.

Example:

    machine = CircuitBreakerMachine(BreakerRule(failure_rate=0.5, count=100))
    answer = machine.admission or machine.admit(now)
    if isinstance(answer, Admission):
        ...                                              # the call
        machine.record(now, answer, Verdict.FAILURE, duration, draw)

The pattern is Michael Nygard's ("Release It!", 2007), generations are sony/gobreaker's, rates over a sliding
window Hystrix' and resilience4j's.
"""

from __future__ import annotations

import math
from dataclasses import replace

from resilience.machines.breaker_records import (
    Admission,
    BreakerMetrics,
    BreakerRule,
    BreakerState,
    Reason,
    Rejection,
    Transition,
)
from resilience.machines.breaker_states import Closed, HalfOpen, Isolated, Open, State
from resilience.machines.windows import Window
from resilience.verdict import FAILURE, IGNORED, Verdict

__all__ = [
    "Admission",
    "BreakerMetrics",
    "BreakerRule",
    "BreakerState",
    "CircuitBreakerMachine",
    "Reason",
    "Rejection",
    "Transition",
]


class CircuitBreakerMachine:
    """The rules of the header, in memory. Methods that change it return the transitions they caused.

    For hot paths plain attributes say what `admit` and `record` need: `admission` is the shared one while closed
    and None otherwise, `calm` is the same one while recording one more success for it would change nothing,
    `window` holds the outcomes of the current or latest closed generation, and before `open_until` every `admit` is
    refused and changes nothing.
    """

    __slots__ = ("_credit", "_state", "admission", "calm", "generation", "open_until", "rule", "window")

    def __init__(self, rule: BreakerRule) -> None:
        self.rule: BreakerRule = rule
        self.generation: int = 0
        self.window: Window = rule.window()
        self.admission: Admission | None = Admission(0)
        self.calm: Admission | None = None
        self.open_until: float = -math.inf
        self._state: State = Closed(self.admission)
        self._credit = 0.0

    def admit(self, now: float) -> Admission | Rejection:
        """Ask for leave to make a call. Every admission must end in one `record` or `release`."""
        if self.admission is not None:
            return self.admission
        caused = self._catch_up(now)
        state = self._state
        if isinstance(state, Open):
            if now < state.until:
                return Rejection(BreakerState.OPEN, state.until - now, caused)
            state = HalfOpen(state.nominal, state.opens, state.draw)
            caused += (self._enter(state, "open_elapsed", now),)
        if isinstance(state, HalfOpen):
            return self._admit_probe(state, now, caused)
        if isinstance(state, Closed):
            return self._admit_share(state, now)
        return Rejection(BreakerState.ISOLATED, None)

    def record(
        self, now: float, admission: Admission, verdict: Verdict, duration: float, draw: float
    ) -> tuple[Transition, ...]:
        """Report how an admitted call ended and how long it took.

        `draw` is a uniform random number in [0, 1) for the jitter, used only if the circuit opens. IGNORED is
        the same as `release`. Outcomes of earlier generations and expired probes are dropped.
        """
        if verdict is IGNORED:
            return self.release(now, admission)
        slow_call = self.rule.slow_call
        slow = slow_call is not None and duration > slow_call
        if admission is not self.admission and not self._ramps(admission):
            return self._record_probe(now, admission, verdict is FAILURE, slow, draw)
        window = self.window
        window.add(now, verdict is FAILURE, slow)
        self.calm = admission if window.calm else None
        # While nothing goes wrong there is nothing to judge.
        if (window.failures or window.slow) and window.calls >= self.rule.minimum_calls:
            reason = self.rule.exceeded(window.calls, window.failures, window.slow)
            if reason is not None:
                return (self._open(now, self.rule.open_for, 1, draw, reason),)
        return ()

    def release(self, now: float, admission: Admission) -> tuple[Transition, ...]:
        """The call ended without a verdict (cancelled, ignored): a probe's place is free again at once."""
        caused, state = self._find_probe(now, admission)
        if state is not None:
            self._state = state.without(admission)
        return caused

    def isolate(self, now: float) -> tuple[Transition, ...]:
        """Admit nothing until `reset`. Nothing happens if it is isolated already."""
        if isinstance(self._state, Isolated):
            return ()
        return (*self._catch_up(now), self._enter(Isolated(), "isolated", now))

    def reset(self, now: float) -> tuple[Transition, ...]:
        """Close the circuit, without a ramp, and forget all outcomes. If it is closed already that is no transition."""
        caused = self._catch_up(now)
        closed = isinstance(self._state, Closed)
        transition = self._close("reset", now)
        return caused if closed else (*caused, transition)

    def state_at(self, now: float) -> BreakerState:
        """The state by which a call at `now` would be decided. Reading changes nothing."""
        return self._view(now)[0].name

    def metrics(self, now: float) -> BreakerMetrics:
        """A picture of the circuit at `now`. Reading changes nothing."""
        state, generation = self._view(now)
        retry_after: float | None = None
        calls = failures = slow = opens = probes = 0
        share = 1.0
        if isinstance(state, Closed):
            retry_after, share = 0.0, self.rule.share(now - state.since)
            calls, failures, slow = self.window.totals(now)
        elif isinstance(state, Open):
            retry_after, opens = state.until - now, state.opens
        elif isinstance(state, HalfOpen):
            retry_after, opens, probes = self._wait_for_probe(state, now), state.opens, len(state.leases)
            calls, failures, slow = state.calls, state.failures, state.slow
        return BreakerMetrics(state.name, generation, calls, failures, slow, retry_after, opens, probes, share)

    def _enter(self, state: State, reason: Reason, at: float, open_for: float | None = None) -> Transition:
        old, self._state = self._state, state
        self.generation += 1
        self.admission = self.calm = None
        self.open_until = -math.inf
        if isinstance(state, Open):
            self.open_until = state.until
        elif isinstance(state, Isolated):
            self.open_until = math.inf
        return Transition(old.name, state.name, self.generation, reason, at, open_for)

    def _close(self, reason: Reason, at: float, ramp_since: float = -math.inf) -> Transition:
        state = Closed(Admission(self.generation + 1), ramp_since)
        transition = self._enter(state, reason, at)
        self.window = self.rule.window()
        self._credit = 1.0
        if ramp_since == -math.inf or not self.rule.ramp:
            self.admission = state.admission
        return transition

    def _open(self, at: float, nominal: float, opens: int, draw: float, reason: Reason) -> Transition:
        open_for = nominal * (1.0 + self.rule.jitter * draw)
        return self._enter(Open(at + open_for, nominal, opens, draw), reason, at, open_for)

    def _reopen(self, state: HalfOpen, at: float, draw: float, reason: Reason) -> Transition:
        nominal = min(self.rule.open_max, state.nominal * self.rule.open_growth)
        return self._open(at, nominal, state.opens + 1, draw, reason)

    # Closed, and ramping up.

    def _admit_share(self, state: Closed, now: float) -> Admission | Rejection:
        """Admit evenly spread calls: each adds its share, and every whole one is a call that may go."""
        elapsed, ramp = now - state.since, self.rule.ramp
        if elapsed >= ramp:
            self.admission = state.admission
            return state.admission
        self._credit += self.rule.share(elapsed)
        if self._credit >= 1.0:
            self._credit -= 1.0
            return state.admission
        return Rejection(BreakerState.CLOSED, min(ramp / 10, ramp - elapsed))

    def _ramps(self, admission: Admission) -> bool:
        """Whether it is the one that calls share while it is not yet given to all."""
        state = self._state
        return isinstance(state, Closed) and admission is state.admission

    # Half-open.

    def _admit_probe(self, state: HalfOpen, now: float, caused: tuple[Transition, ...]) -> Admission | Rejection:
        wait = self._wait_for_probe(state, now)
        if wait:
            return Rejection(BreakerState.HALF_OPEN, wait, caused)
        probe = Admission(self.generation, now + self.rule.probe_lease, caused)
        self._state = replace(state, leases=(*state.leases, probe))
        return probe

    def _wait_for_probe(self, state: HalfOpen, now: float) -> float:
        """How long until asking for a probe is worth while: 0.0 if one can be admitted now."""
        if state.calls + len(state.leases) < self.rule.probes:
            return 0.0
        return min(self.rule.open_for, min(lease.expires for lease in state.leases) - now)

    def _record_probe(
        self, now: float, probe: Admission, failure: bool, slow: bool, draw: float
    ) -> tuple[Transition, ...]:
        caused, state = self._find_probe(now, probe)
        if state is None:
            return caused
        self._state = state = state.counted(probe, failure, slow)
        probes = self.rule.probes
        reason = self.rule.exceeded(probes, state.failures, state.slow)
        if reason is not None:
            return (self._reopen(state, now, draw, reason),)
        left = probes - state.calls
        if self.rule.exceeded(probes, state.failures + left, state.slow + left) is None:
            return (self._close("probes_passed", now, now),)
        return ()

    def _find_probe(self, now: float, probe: Admission) -> tuple[tuple[Transition, ...], HalfOpen | None]:
        """What catching up with `now` caused, and the half-open state if it still waits for `probe`."""
        if probe.generation != self.generation or probe is self.admission:
            return (), None
        caused = self._catch_up(now)
        state = self._state
        return caused, state if isinstance(state, HalfOpen) and probe in state.leases else None

    def _catch_up(self, now: float) -> tuple[Transition, ...]:
        """Count the probes whose lease has ended by `now`."""
        state = self._state
        if not isinstance(state, HalfOpen):
            return ()
        self._state, verdict = self._expire(state, now)
        if verdict is None:
            return ()
        at, reason = verdict
        return (self._reopen(self._state, at, _next_draw(state.draw), reason),)

    def _expire(self, state: HalfOpen, now: float) -> tuple[HalfOpen, tuple[float, Reason] | None]:
        """`state` once the leases that end by `now` have counted; when and why it opens, if it does."""
        for lease in sorted(state.leases, key=_expires):
            if lease.expires > now:
                break
            # A probe that hangs has failed and was slow, whichever of the two is counted. It can therefore
            # never be what closes the circuit.
            state = state.counted(lease, failure=True, slow=True)
            reason = self.rule.exceeded(self.rule.probes, state.failures, state.slow)
            if reason is not None:
                return state, (lease.expires, reason)
        return state, None

    def _view(self, now: float) -> tuple[State, int]:
        """The state and generation that `admit` would find or make at `now`, without making them."""
        if not isinstance(self._state, (HalfOpen, Open)):
            return self._state, self.generation
        # A copy that shares what is immutable: all states but closed, which it never enters.
        copy = CircuitBreakerMachine(self.rule)
        copy._state, copy.generation = self._state, self.generation
        copy._catch_up(now)
        state = copy._state
        if isinstance(state, Open) and now >= state.until:
            copy._enter(HalfOpen(state.nominal, state.opens, state.draw), "open_elapsed", now)
        return copy._state, copy.generation


def _expires(lease: Admission) -> float:
    return lease.expires


def _next_draw(draw: float) -> float:
    """A draw for an opening that time alone caused, so that readers and writers see the same one.

    Steps by the golden ratio spread evenly over [0, 1) and keep processes as far apart as their last draws
    were.
    """
    return (draw + 0.6180339887498949) % 1.0
