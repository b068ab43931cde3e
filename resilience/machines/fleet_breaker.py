"""What a fleet knows of one circuit: the record that all processes share, written by whoever has something to tell.

    state      request                                                             next
    ---------  ------------------------------------------------------------------  ---------
    closed     report: the rate of all windows is reached, in enough processes     open
    open       ask for a probe, once `moment` has come                             half-open
    half-open  any: a rate of the probes is certain, expired ones counted as bad   open
    half-open  any: no rate of the probes can be reached any more                  closed
    any        isolate                                                             isolated
    any        reset                                                               closed

Rules:

- A process reports the totals of its own sliding window, not what was added to it: a report that is lost, late or
  repeated does no harm. It counts for `lifetime` from then on.
- Every change has a version, every change of state begins a generation with the same number. Versions are shared by
  all circuits of a store and grow with the server's time, so they grow on after data loss, too.
- A report says as of which version its process has known the circuit to be closed. If it has changed its state since,
  the report is stale and changes nothing.
- Probes are leases with an id and a deadline. Asking again, concluding twice or releasing what is unknown does no
  harm. Leases that have ended count as failed, as of when they ended, in whichever request comes next.
- A clock that steps back begins an open time or a lease anew at most.
- Who asks for a probe knows that the circuit was open: if the record is lost, half-open begins.

Times are in the unit of the rule's, microseconds where the twin script is to be compared with (`breaker.lua`).

Example:

    breaker = FleetBreaker(rule, Versions(), lifetime=30.0)
    breaker.report(now, "process-1", 0, calls=20, failures=15, slow=0, draw=0.5)
    breaker.view.state                                            # BreakerState.OPEN

Pooled rates with a quorum follow outlier detection in service meshes; versions by time are hybrid logical clocks
(Kulkarni et al., 2014).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from resilience.machines.breaker_records import BreakerRule, BreakerState


@dataclass(slots=True)
class Versions:
    """The numbers of changes, for all circuits of a store."""

    last: float = 0.0

    def next(self, now: float) -> float:
        """Larger than all before, and at least the time."""
        self.last = max(self.last + 1, now)
        return self.last


@dataclass(frozen=True, slots=True)
class FleetView:
    """What processes are told of a circuit."""

    state: BreakerState
    generation: float
    version: float
    opens: int = 0
    until: float = 0.0
    """Open: when a probe can be asked for. Half-open: when the next lease ends, 0 if there is none. Closed: since
    when."""
    free: int = 0
    """Half-open: how many probes can be asked for."""
    probes: int = 0
    """Half-open: how many are on their way."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What asking for a probe brought."""

    kind: Literal["probe", "wait", "isolated", "closed"]
    value: float = 0.0
    """The generation of the probe; how long to wait before asking again."""


@dataclass(frozen=True, slots=True)
class Vote:
    """The window of one process, and until when it counts."""

    calls: int
    failures: int
    slow: int
    until: float


class FleetBreaker:
    """The record of one circuit. `draw` is a uniform random number in [0, 1), for the jitter if the circuit opens."""

    def __init__(self, rule: BreakerRule, versions: Versions, lifetime: float) -> None:
        self.rule: BreakerRule = rule
        self.versions: Versions = versions
        self.lifetime: float = lifetime
        self.known: bool = False
        """Whether its state was ever written."""
        self.view: FleetView = FleetView(BreakerState.CLOSED, 0.0, 0.0)
        self.state: BreakerState = BreakerState.CLOSED
        self.generation: float = 0.0
        self.moment: float = 0.0
        self.nominal: float = 0.0
        self.opens: int = 0
        self.calls: int = 0
        self.failures: int = 0
        self.slow: int = 0
        self.leases: dict[str, float] = {}
        self.votes: dict[str, Vote] = {}

    def report(
        self, now: float, process: str, since: float, calls: int, failures: int, slow: int, draw: float
    ) -> float | None:
        """Take over the window of a process; the generation if the report is stale, else None."""
        self._settle(now, draw)
        if self.state is not BreakerState.CLOSED or self.generation > since:
            return self.generation
        self.votes[process] = Vote(calls, failures, slow, now + self.lifetime)
        # While nothing goes wrong there is nothing to judge.
        if failures or slow:
            self._judge_votes(now, draw)
        return None

    def ask(self, now: float, probe: str, draw: float) -> Answer:
        """Ask for leave to make a probe with that id."""
        self._settle(now, draw)
        if self.state is BreakerState.OPEN and now < self.moment:
            return Answer("wait", self.moment - now)
        if self.state is BreakerState.OPEN or not self.known:
            self._half_open(now)
        if self.state is BreakerState.ISOLATED:
            return Answer("isolated")
        if self.state is BreakerState.CLOSED:
            return Answer("closed")
        if probe not in self.leases:
            if self._free() <= 0:
                return Answer("wait", min(self.rule.open_for, self._next_end() - now))
            self.leases[probe] = now + self.rule.probe_lease
            self._announce(now)
        return Answer("probe", self.generation)

    def conclude(self, now: float, probe: str, failure: bool, slow: bool, draw: float) -> None:
        """A probe has an outcome."""
        self._settle(now, draw)
        if probe in self.leases:
            self._count(probe, failure, slow)
            if not self._judge_probes(now, now, draw):
                self._announce(now)

    def release(self, now: float, probe: str, draw: float) -> None:
        """A probe ended without an outcome (cancelled, ignored): its place is free again."""
        self._settle(now, draw)
        if self.leases.pop(probe, None) is not None:
            self._announce(now)

    def look(self, now: float, draw: float) -> None:
        """Notice the leases that have ended."""
        self._settle(now, draw)

    def isolate(self, now: float) -> None:
        """Admit nothing until `reset`."""
        if self.state is not BreakerState.ISOLATED:
            self._enter(BreakerState.ISOLATED, now, now)

    def reset(self, now: float) -> None:
        """Close the circuit and forget all outcomes, those of calls under way, too."""
        self._enter(BreakerState.CLOSED, now, now)

    # Closed: the votes of the processes.

    def _judge_votes(self, now: float, draw: float) -> None:
        calls = failures = slow = voices = processes = 0
        for process, vote in list(self.votes.items()):
            if vote.until <= now:
                del self.votes[process]
            elif vote.calls:
                calls, failures, slow = calls + vote.calls, failures + vote.failures, slow + vote.slow
                processes += 1
                voices += self.rule.exceeded(vote.calls, vote.failures, vote.slow) is not None
        enough = calls >= self.rule.minimum_calls and voices >= self._needed(processes)
        if enough and self.rule.exceeded(calls, failures, slow) is not None:
            self._open(now, now, self.rule.open_for, 1, draw)

    def _needed(self, processes: int) -> int:
        """How many processes have to say so. If all together reach a rate, at least one does by itself."""
        if self.rule.shared == "local":
            return processes + 1
        if self.rule.shared == "any":
            return 1
        return processes // 2 + 1 if self.rule.quorum is None else self.rule.quorum

    # Open.

    def _open(self, now: float, at: float, nominal: float, opens: int, draw: float) -> None:
        self.nominal, self.opens = nominal, opens
        self._enter(BreakerState.OPEN, now, at + nominal * (1.0 + self.rule.jitter * draw))

    def _limit_open_time(self, now: float) -> None:
        """It never stays open for longer than it was to, also if the clock has stepped back."""
        latest = now + self.nominal * (1.0 + self.rule.jitter)
        if self.moment > latest:
            self.moment = latest
            self._announce(now)

    # Half-open: the probes.

    def _half_open(self, now: float) -> None:
        if not self.known:
            self.nominal, self.opens = self.rule.open_for, 1
        self._enter(BreakerState.HALF_OPEN, now, now)

    def _free(self) -> int:
        return self.rule.probes - self.calls - len(self.leases)

    def _next_end(self) -> float:
        return min(self.leases.values(), default=0.0)

    def _settle(self, now: float, draw: float) -> None:
        """Count the leases that have ended, and judge by the rule of whoever asks, which may be a new one."""
        if self.state is BreakerState.OPEN:
            self._limit_open_time(now)
        if self.state is not BreakerState.HALF_OPEN:
            return
        stepped_back = self._limit_leases(now)
        ended = sorted((end, probe) for probe, end in self.leases.items() if end <= now)
        for end, probe in ended:
            # A probe that hangs has failed and was slow, whichever of the two is counted.
            self._count(probe, failure=True, slow=True)
            if self._judge_probes(now, end, draw):
                return
        if not self._judge_probes(now, now, draw) and (ended or stepped_back):
            self._announce(now)

    def _limit_leases(self, now: float) -> bool:
        """No lease lasts longer than one, also if the clock has stepped back; whether it had."""
        latest = now + self.rule.probe_lease
        late = [probe for probe, end in self.leases.items() if end > latest]
        self.leases.update(dict.fromkeys(late, latest))
        return bool(late)

    def _count(self, probe: str, failure: bool, slow: bool) -> None:
        del self.leases[probe]
        self.calls += 1
        self.failures += failure
        self.slow += slow

    def _judge_probes(self, now: float, at: float, draw: float) -> bool:
        """Whether the verdict is certain; it has changed the state then."""
        rule, left = self.rule, self.rule.probes - self.calls
        if rule.exceeded(rule.probes, self.failures, self.slow) is not None:
            self._open(now, at, min(rule.open_max, self.nominal * rule.open_growth), self.opens + 1, draw)
        elif rule.exceeded(rule.probes, self.failures + left, self.slow + left) is None:
            self._enter(BreakerState.CLOSED, now, now)
        else:
            return False
        return True

    # Changes.

    def _enter(self, state: BreakerState, now: float, moment: float) -> None:
        self.state, self.moment = state, moment
        if state in (BreakerState.CLOSED, BreakerState.ISOLATED):
            self.nominal, self.opens = 0.0, 0
        self.calls = self.failures = self.slow = 0
        self.leases, self.votes = {}, {}
        self.known = True
        self.generation = self.versions.next(now)
        self._tell(self.generation)

    def _announce(self, now: float) -> None:
        self._tell(self.versions.next(now))

    def _tell(self, version: float) -> None:
        """Let everybody know."""
        half_open = self.state is BreakerState.HALF_OPEN
        self.view = FleetView(
            self.state,
            self.generation,
            version,
            self.opens,
            self._next_end() if half_open else self.moment,
            self._free() if half_open else 0,
            len(self.leases),
        )
