"""The ordinary case of each policy, as lines of Python for the generated frame.

A fragment may only do what its policy's hooks would do for the same call, and must refuse (by a condition in
`refuse`) whenever they would do anything else. `moment` is the clock's reading at entry. Names get the policy's
place in the pipeline as a suffix, so that fragments do not meet. Where calls have keys, `key` is that of the call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from .._rejecting import RejectingGuard
from ..call import Operation
from ..errors import CircuitOpenError, circuit_refusal
from ..limits.memory_limiter import MemoryLimiter
from ..machines.bulkhead import BulkheadMachine
from ..machines.circuit_breaker import BreakerRule, CircuitBreakerMachine
from ..machines.rate_limiter import GCRA
from ..machines.retry_budget import TokenBudget
from ..machines.windows import CountWindow
from ..observer import Observer
from ..permits._shared_permits import Permit
from ..policies.bulkhead import Bulkhead
from ..policies.circuit_breaker import CircuitBreaker, Passage
from ..policies.rate_limiter import RateLimiter
from ..policies.retry import Retry
from ..policies.timeout import Timeout
from ..policy import Policy
from ..verdict import Verdict


@dataclass(slots=True)
class Fragment:
    """What one policy adds to a frame; `CALL` in its lines is the record of the call, built only there.

    All lines run without an await between them, except around the call itself.
    """

    policy: Policy
    names: dict[str, object] = field(default_factory=dict[str, object])
    read: list[str] = field(default_factory=list[str])
    """Statements that change nothing."""
    refuse: list[str] = field(default_factory=list[str])
    """Conditions under which the plain path has to do it."""
    busy: list[str] = field(default_factory=list[str])
    """More of those conditions, under which the hook is sure to wait: see `queue`."""
    queue: list[str] = field(default_factory=list[str])
    """Statements that wait until the busy policy has let the call in; `NEWCOMER` is a record that tells no more of
    the call than the frame knows. For policies that have nothing to leave: a wait that failed is a call that failed.
    """
    refused: list[str] = field(default_factory=list[str])
    """The call is refused, and that is all there is to it: lines that end in `REJECT(error)`."""
    commit: list[str] = field(default_factory=list[str])
    """Take what the conditions found free."""
    done: list[str] = field(default_factory=list[str])
    """The call returned: give back, and count a success."""
    timed: bool = False
    """Whether it needs `moment`; reading a clock that nobody looks at would be a tenth of a small frame."""
    kept: str = "None"
    """An expression for what `token` needs when the call did not go the ordinary way."""
    states: tuple[object, ...] = ()
    """What it looks at and takes from; two policies with a common state cannot share a frame."""
    token: Callable[[Any, float], Any] | None = None
    """From `kept` and `moment`, the token that the policy's hooks would have made; None: it is no guard."""
    keyed: Fragment | None = None
    """What stands for it where calls have keys, if the policy has a state for each; `kept` and `token` are the same."""


def fragment(policy: Policy, place: int) -> Fragment | None:
    """The fragment of a policy as it is set up, or None if it has no ordinary case worth one."""
    make = _FRAGMENTS.get(type(policy))
    return None if make is None else make(policy, place)


def _observer(policy: Observer, n: int) -> Fragment:
    return Fragment(
        policy,
        timed=True,
        names={f"observer{n}": policy},
        done=[f"if observer{n}.listeners:", f"    observer{n}.leave(CALL, moment, result, None)"],
        token=lambda kept, moment: moment,
    )


def _bulkhead(policy: Bulkhead, n: int) -> Fragment | None:
    weight = policy.weight
    if not isinstance(weight, int) or policy.remote is not None:
        return None
    machine = policy.machine("")
    # The machine's ceiling is 0 while somebody waits or it drains: nothing is free then, and returning wakes.
    full = f"inside{n} >= permits{n}._ceiling" if weight == 1 else f"inside{n} + {weight} > permits{n}._ceiling"
    fragment = Fragment(
        policy,
        names={f"bulkhead{n}": policy, f"permits{n}": machine, f"recent{n}": policy.recent, f"none{n}": _full()},
        read=[f"inside{n} = permits{n}.in_use"],
        refuse=[full],
        commit=[f"permits{n}.in_use = inside{n} + {weight}"],
        done=[
            f"if permits{n}._ceiling:",
            f"    permits{n}.in_use -= {weight}",
            "else:",
            f"    bulkhead{n}.give_back(permits{n}, {weight})",
        ],
        kept=f"permits{n}",
        states=(machine,),
        token=lambda kept, moment: Permit(kept, weight),
    )
    return _with_key(fragment, f"permits{n} = recent{n}(key) or none{n}")


def _full() -> BulkheadMachine:
    machine = BulkheadMachine(1)
    machine.drain()
    return machine


def _isolated(rule: BreakerRule) -> CircuitBreakerMachine:
    machine = CircuitBreakerMachine(rule)
    machine.isolate(0.0)
    return machine


def _with_key(fragment: Fragment, find: str) -> Fragment:
    """The fragment with one for calls with keys. Where `find` finds no state there is one that admits nobody: it is for
    the hooks to make one, and to refuse the call, too.
    """
    if not cast("RejectingGuard[Any]", fragment.policy).keyed:
        return fragment
    return replace(fragment, keyed=replace(fragment, read=[find, *fragment.read], refused=[]))


def _breaker(policy: CircuitBreaker, n: int) -> Fragment:
    machine = policy.machine("")
    report = [
        f"now{n} = clock.now()",
        f"changes{n} = circuit{n}.record(now{n}, admission{n}, SUCCESS, now{n} - moment, breaker{n}.random())",
        f"if changes{n}:",
        f"    breaker{n}.report(CALL, changes{n})",
    ]
    done = report
    if policy.rule.slow_call is None and isinstance(machine.window, CountWindow):
        done = _count_success(n, machine.window.size, report)
    fragment = Fragment(
        policy,
        names={
            f"breaker{n}": policy,
            f"circuit{n}": machine,
            f"refusal{n}": _refusal,
            f"recent{n}": policy.recent,
            f"none{n}": _isolated(policy.rule),
        },
        read=[f"admission{n} = circuit{n}.admission"],
        refuse=[f"admission{n} is None"],
        refused=[
            f"left{n} = circuit{n}.open_until - clock.now()",
            f"if left{n} > 0.0 and breaker{n}.enforced and not breaker{n}.listeners:",
            f"    breaker{n}.rejected += 1",
            f"    REJECT(refusal{n}(breaker{n}.name, left{n}))",
        ],
        done=done,
        timed=policy.rule.slow_call is not None,
        kept=f"(circuit{n}, admission{n})",
        states=(machine,),
        token=lambda kept, moment: Passage(kept[0], kept[1], moment),
    )
    return _with_key(fragment, f"circuit{n} = recent{n}(key) or none{n}")


def _refusal(policy: str, left: float) -> CircuitOpenError:
    """The error of a circuit that is open for `left` seconds, or isolated if there is no end of them."""
    return circuit_refusal(policy, left) if left < math.inf else circuit_refusal(policy, None, state="isolated")


def _count_success(n: int, size: int, report: list[str]) -> list[str]:
    """A success in a full window of calls. In place of another success it only moves the window's hand.

    Where all are successes not even that can be told, and the machine says so. All else is for it to judge.
    """
    return [
        f"if circuit{n}.calm is not admission{n}:",
        f"    window{n} = circuit{n}.window",
        f"    hand{n} = window{n}._next",
        f"    if window{n}.calls < {size} or circuit{n}.admission is not admission{n} or window{n}._ring[hand{n}]:",
        *(f"        {line}" for line in report),
        "    else:",
        f"        window{n}._next = hand{n} + 1 if hand{n} + 1 < {size} else 0",
    ]


def _limiter(policy: RateLimiter, n: int) -> Fragment | None:
    cost, state = policy.constant_cost, policy.line.limiter
    if cost is None or policy.remote or not isinstance(state, MemoryLimiter) or len(policy.rules) > 1:
        return None
    rule = next(iter(policy.rules))
    if not isinstance(rule, GCRA) or cost > rule.capacity:
        return None
    fragment = Fragment(
        policy,
        names={
            f"limiter{n}": policy,
            f"limit{n}": state,
            f"queues{n}": policy.line.queues,
            f"step{n}": cost * rule.interval,
            f"room{n}": rule.room(cost),
            f"costs{n}": (cost,),
        },
        read=[f"arrival{n} = limit{n}.unkeyed"],
        refuse=[f"arrival{n} is None"],
        busy=[f"arrival{n} - moment > room{n}", f"queues{n}"],
        queue=[
            f"place{n} = limiter{n}.stand(NEWCOMER, costs{n})",
            "try:",
            f"    decision{n} = place{n}.decision or await place{n}.waiter",
            "except BaseException:",
            f"    limiter{n}.line.abandon(place{n})",
            "    raise",
            f"if not decision{n}.allowed or limiter{n}.listeners:",
            f"    limiter{n}.let_in(CALL, decision{n}, place{n}.since)",
        ],
        commit=[f"limit{n}.unkeyed = (arrival{n} if arrival{n} > moment else moment) + step{n}"],
        timed=True,
        states=(state,),
        token=lambda kept, moment: True,
    )
    if not policy.keyed:
        return fragment
    next_arrival = f"(arrival{n} if arrival{n} > moment else moment) + step{n}"
    keyed = replace(
        fragment,
        read=[f"arrival{n} = limit{n}.state(key, moment)"],
        busy=[f"arrival{n} - moment > room{n}", f"key in queues{n}"],
        commit=[f"limit{n}.put(key, {next_arrival})"],
    )
    return replace(fragment, keyed=keyed)


def _timeout(policy: Timeout, n: int) -> Fragment:
    return Fragment(policy)  # all timeouts of a frame share one sweep, which the frame sees to


def _retry(policy: Retry, n: int) -> Fragment | None:
    budget = policy.budget
    if budget is None:
        return Fragment(policy)
    settle = f"budget{n}.settle(clock.now(), True)"
    if isinstance(budget, TokenBudget):
        settle = f"if budget{n}.tokens < {budget.capacity!r}: {settle}"
    return Fragment(policy, names={f"budget{n}": budget}, done=[settle])


_FRAGMENTS: dict[type[Policy], Callable[[Any, int], Fragment | None]] = {
    Observer: _observer,
    Bulkhead: _bulkhead,
    CircuitBreaker: _breaker,
    RateLimiter: _limiter,
    Retry: _retry,
    Timeout: _timeout,
}


def judges(parts: Sequence[Fragment], operation: Operation) -> list[Callable[[Any], Verdict]]:
    """The functions that judge returned values for the policies of a frame, each once."""
    found: list[Callable[[Any], Verdict]] = []
    for part in parts:
        if isinstance(part.policy, CircuitBreaker | Retry):
            judge = (part.policy.classifier or operation.classifier).result
            if judge is not None and judge not in found:
                found.append(judge)
    return found
