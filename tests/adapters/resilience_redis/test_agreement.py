"""The Lua scripts and the Python machines are the same thing: same decisions, same state, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from resilience.machines.rate_limiter import decide, peek
from resilience.machines.rate_limiter.reserve import Record, reserve, settle
from resilience.machines.rate_limiter.rule import text
from resilience_redis.connection.target import Target
from resilience_redis.scripts import Script, ledger_for, script_for
from tests.support.rules import ALGORITHMS, LONG, AnyRule, make_rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilience.machines.rate_limiter import Decision

STEPS = 30
NEVER = 9e15
TTL = "600000000"
LEDGER = ("observe", "drain", "reserve", "settle")
IDS = 3


class Step(NamedTuple):
    """One operation of a history; `mark` is how many bookings ago the stamp of a refund was made."""

    operation: str
    elapsed: int
    shares: tuple[float, ...]
    max_wait: float
    mark: int | None
    id: int = 0
    amounts: tuple[float | None, ...] = ()
    """Of limits: what remains, the seconds of a drain, the actual cost."""
    known: bool = False


class Limit(NamedTuple):
    limit: float
    period: float
    burst: float


limits = st.builds(
    Limit,
    st.sampled_from([1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 100.0, 333.0]),
    st.sampled_from([1e6, 1e6 / 3, 7e5, 6e7, 1234567.0]),
    st.sampled_from([1.0, 1.5, 3.0, 10.0, 250.0]),
)
steps = st.builds(
    Step,
    st.sampled_from(["acquire"] * 6 + ["peek", "refund", "refund", "reset", *LEDGER, "reserve", "settle"]),
    st.one_of(
        st.integers(0, 1000),
        st.integers(0, 400_000),
        st.integers(0, 3_000_000),
        st.integers(-2_000_000, 0),
        st.just(0),
    ),
    st.tuples(*[st.sampled_from([0.0, 0.001, 0.1, 0.3, 0.5, 1.0])] * 3),
    st.sampled_from([0.0, 0.0, 100.0, 250_000.0, 1e6, 1e8, NEVER]),
    st.sampled_from([None, 0, 0, 1, 3]),
    st.integers(0, IDS - 1),
    st.tuples(*[st.sampled_from([None, 0.0, 0.0, 0.3, 1.0, 2.0, 7.7, 50.0, 4321.0])] * 3),
    st.booleans(),
)


acquires = st.builds(
    Step,
    st.just("acquire"),
    st.one_of(st.integers(0, 400_000), st.integers(0, 3_000_000), st.integers(-1_000_000, 0)),
    st.tuples(*[st.sampled_from([0.0, 0.001, 0.001, 0.1, 0.3, 1.0])] * 3),
    st.sampled_from([-1.0, 0.0, 0.0, 250_000.0, 1e6, NEVER]),
    st.none(),
    st.just(0),
    st.just(()),
    st.just(False),
)
# Turns of many requests, and of so few that all may go.
busy = st.lists(st.tuples(acquires, st.integers(1, 12)), min_size=1, max_size=8)
calm = st.lists(st.tuples(acquires, st.integers(1, 3)), min_size=1, max_size=2)


class Model:
    """The Python machines behind the operations that the scripts offer."""

    def __init__(self, rules: Sequence[AnyRule]) -> None:
        self.rules = rules
        self.states: list[Any] = [None] * len(rules)
        # The stamps of bookings: their positions, and of those ahead the positions and states before.
        self.marks: list[tuple[list[str], list[str], list[Any]]] = []
        self.records: list[Record | None] = [None] * IDS

    def costs(self, step: Step) -> list[float]:
        """Whole units mostly, fractions sometimes, never more than fits; not all of them 0."""
        shares = step.shares[: len(self.rules)]
        if not any(shares):
            shares = (1.0, *shares[1:])
        return [
            share if share in (0.0, 0.1) else max(1.0, int(share * rule.capacity))
            for rule, share in zip(self.rules, shares, strict=True)
        ]

    def amounts(self, step: Step) -> list[float | None]:
        """Units; or for a drain the time in which so many come."""
        if step.operation != "drain":
            return list(step.amounts[: len(self.rules)])
        return [
            None if amount is None else amount * rule.period / rule.limit
            for rule, amount in zip(self.rules, step.amounts, strict=False)
        ]

    def positions(self) -> list[str]:
        return [
            "" if state is None else _words(rule.position(state))
            for rule, state in zip(self.rules, self.states, strict=True)
        ]

    def stamp(self, step: Step) -> tuple[list[str], list[str], list[Any]]:
        if step.mark is None or step.mark >= len(self.marks):
            return [""] * len(self.rules), [], []
        return self.marks[-1 - step.mark]

    def apply(self, step: Step, now: float) -> str | int:
        costs = self.costs(step)
        if step.operation in LEDGER:
            return self.account(step, now)
        if step.operation == "acquire":
            before, states_before = self.positions(), self.states
            decision, states = decide(self.rules, self.states, now, costs, step.max_wait)
            self.states = list(states)
            marks = self.positions() if decision.allowed else []
            undoable = decision.wait > 0 and self.rules[0].algorithm != "sliding_log"
            if marks:
                self.marks.append((marks, before, states_before) if undoable else (marks, [], []))
                marks = marks + self.marks[-1][1]
            event(f"allowed {decision.allowed}, waits {decision.wait > 0}")
        elif step.operation == "peek":
            decision, marks = peek(self.rules, self.states, now, costs), []
        elif step.operation == "refund":
            return self.refund(step, now, costs)
        else:
            held = sum(state is not None for state in self.states)
            self.states = [None] * len(self.rules)
            return held
        return ",".join((_said(decision), *marks))

    def refund(self, step: Step, now: float, costs: list[float]) -> int:
        changed = 0
        marks, _, before = self.stamp(step)
        for index, (mark, position) in enumerate(zip(marks, self.positions(), strict=True)):
            rule, state, cost = self.rules[index], self.states[index], costs[index]
            if state is not None and cost and mark in ("", position):
                undone = before and rule.undo(state, before[index], now, cost)
                self.states[index] = undone if before else rule.refund(state, now, cost)
                changed += 1
        return changed

    def account(self, step: Step, now: float) -> str | int:
        """What the ledger script does."""
        amounts, known = self.amounts(step), self.records[step.id]
        if step.operation == "reserve":
            costs = self.costs(step)
            decision, states, record = reserve(self.rules, self.states, known, now, costs, step.max_wait)
            self.states, self.records[step.id] = list(states), record
            event(f"reserved {decision.allowed}, again {known is not None}")
            if record is None:
                return _said(decision)
            return f"{_said(decision)};{record.settled:d},{','.join(map(text, record.costs))}"
        if step.operation == "settle":
            settled, states, record = settle(self.rules, self.states, known, now, amounts, step.known)
            self.states, self.records[step.id] = list(states), record
            event(f"settled {settled}, reserved {known is not None}")
            return int(settled)
        changed = 0
        for index, (rule, amount) in enumerate(zip(self.rules, amounts, strict=True)):
            if amount is not None:
                before = self.states[index]
                if step.operation == "drain":
                    self.states[index] = rule.drain(before, now, amount)
                else:
                    self.states[index] = rule.observe(before, now, amount, step.max_wait)
                changed += self.states[index] is not before
        return changed


def _said(decision: Decision) -> str:
    numbers = (decision.wait, decision.binding, *decision.remaining)
    return ",".join(("1" if decision.allowed else "0", *map(text, numbers)))


def _record(record: Record | None, algorithm: str) -> str | None:
    """A record as the server keeps it; the state of a log before is nothing that it could go back to."""
    if record is None:
        return None
    kept = (*record.marks, *(record.before if algorithm != "sliding_log" else ()))
    marks = [_words(cast("Any", mark)) if mark is not None else "" for mark in kept]
    numbers = (record.settled, record.valid_at, record.binding, *record.costs)
    return ",".join((*map(text, numbers), *marks))


def _words(numbers: float | Sequence[float]) -> str:
    return text(numbers) if isinstance(numbers, int | float) else text(*numbers)


def _entries(log: Sequence[float]) -> list[str]:
    """A log as the server keeps it: the units in it, then "time units" of each entry."""
    return [text(log[0]), *(text(*log[index : index + 2]) for index in range(1, len(log), 2))]


def arguments(model: Model, steps: Sequence[Step], now: int, counts: Sequence[int] = (1,)) -> list[str]:
    """What the script is told of one operation, or of several acquires at once."""
    said = [steps[0].operation, str(now)]
    for rule in model.rules:
        said += [text(rule.limit), text(rule.period), text(rule.burst)]
    for step, count in zip(steps, counts, strict=True):
        said += [str(count), text(step.max_wait)] if step.operation == "acquire" else []
        amounts = ["" if amount is None else text(amount) for amount in model.amounts(step)]
        if step.operation == "observe":
            said += [each for amount in amounts for each in (amount, amount and text(step.max_wait))]
        elif step.operation == "drain":
            said += amounts
        elif step.operation == "settle":
            said += [TTL, f"{step.known:d}", *amounts]
        else:
            said += map(text, model.costs(step))
        said += [text(step.max_wait), TTL] if step.operation == "reserve" else []
        marks, before, _ = model.stamp(step)
        said += [*marks, *before] if step.operation == "refund" else []
    return said


def _decoded(reply: Any) -> Any:
    if isinstance(reply, bytes):
        return reply.decode()
    if isinstance(reply, list):
        return [part.decode() for part in cast("list[bytes]", reply)]
    return reply


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_lua_and_python_agree(algorithm: str, plain_redis: Any, redis_prefix: str) -> None:
    scripts: dict[str, Script] = {
        "": script_for(algorithm),
        **dict.fromkeys(LEDGER, ledger_for(algorithm)),
    }
    for each in scripts.values():
        plain_redis.script_load(each.source)
    runs = 0

    @settings(
        max_examples=500 if LONG else 60,
        deadline=None,
        derandomize=not LONG,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(
        st.lists(limits, min_size=1, max_size=2),
        st.integers(1_700_000_000_000_000, 1_900_000_000_000_000),
        st.lists(steps, min_size=STEPS, max_size=STEPS),
    )
    def agree(chosen: list[Limit], now: int, history: list[Step]) -> None:
        nonlocal runs
        runs += 1
        rules = [make_rule(algorithm, *limit) for limit in chosen]
        model = Model(rules)
        keys = [f"{{{redis_prefix}:{runs}}}:{index}" for index in range(len(rules))]
        expected: list[Any] = []
        with plain_redis.pipeline(transaction=False) as pipeline:
            for step in history:
                now += step.elapsed
                script = scripts.get(step.operation, scripts[""])
                record = [f"{keys[0]}:{step.id}"] if step.operation in ("reserve", "settle") else []
                pipeline.execute_command(*script.by_sha(keys + record, arguments(model, [step], now)))
                expected.append(model.apply(step, float(now)))
                for key in record:
                    pipeline.get(key)
                    expected.append(_record(model.records[step.id], algorithm))
                for key, state in zip(keys, model.states, strict=True):
                    if algorithm == "sliding_log":
                        pipeline.lrange(key, 0, -1)
                        expected.append([] if state is None else _entries(state))
                    else:
                        pipeline.get(key)
                        expected.append(None if state is None else _words(state))
            replies = pipeline.execute()
        assert [_decoded(reply) for reply in replies] == expected

    agree()
    assert runs >= (500 if LONG else 60)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_batch_is_its_requests_one_by_one(algorithm: str, plain_redis: Any, redis_prefix: str) -> None:
    """One script call for many acquires answers and leaves behind exactly what a call for each does, packed or not."""
    script = script_for(algorithm)
    forms: set[bool] = set()
    plain_redis.script_load(script.source)
    runs = 0

    @settings(
        max_examples=300 if LONG else 40,
        deadline=None,
        derandomize=not LONG,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(
        st.lists(limits, min_size=1, max_size=3),
        st.integers(1_700_000_000_000_000, 1_900_000_000_000_000),
        st.lists(st.one_of(busy, calm), min_size=1, max_size=6),
    )
    @example([Limit(10.0, 1e6, 10.0)], 1_700_000_000_000_000, [[(Step("acquire", 0, (0.001,) * 3, 0.0, None), 1)]])
    def agree(chosen: list[Limit], now: int, turns: list[list[tuple[Step, int]]]) -> None:
        nonlocal runs
        runs += 1
        rules = [make_rule(algorithm, *limit) for limit in chosen]
        model = Model(rules)
        together, packed, alone = (
            [f"{{{redis_prefix}:{runs}:{way}}}:{index}" for index in range(len(rules))] for way in "tpa"
        )
        for turn in turns:
            now += turn[0][0].elapsed
            requests = [step for step, count in turn for _ in range(count)]
            expected = [model.apply(step, float(now)) for step in requests]
            singly = [
                plain_redis.execute_command(*script.by_sha(alone, arguments(model, [step], now))).decode()
                for step in requests
            ]
            counts = [count for _, count in turn]
            said = arguments(model, [step for step, _ in turn], now, counts)
            reply = plain_redis.execute_command(*script.by_sha(together, said)).decode()
            assert singly == expected
            assert expanded(reply, counts) == expected
            reply = plain_redis.execute_command(*script.by_sha(packed, ["acquire_packed", *said[1:]]))
            at_once = len(rules) == 1 and all(each.startswith("1,0,0,") for each in singly)
            assert (reply[0] < ord("0")) == at_once, "numbers only if all may go at once on one limit"
            forms.add(at_once)
            if at_once:
                target = Target(script, packed, ())
                bookings = [target.read(each) for each in target.answers(reply)]
                assert [",".join((_said(d), *target.marks(stamp))) for d, stamp in bookings] == expected
            else:
                assert expanded(reply.decode(), counts) == expected
            for one, *others in zip(alone, together, packed, strict=True):
                for other in others:
                    assert plain_redis.dump(one) == plain_redis.dump(other)
                    assert abs(plain_redis.pttl(one) - plain_redis.pttl(other)) < 1000

    agree()
    assert forms == {True, False}
    assert runs >= (300 if LONG else 40)


def expanded(reply: str, counts: Sequence[int]) -> list[str]:
    """One answer per request: a refusal speaks for the rest of its group."""
    answers = iter(reply.split(";"))
    said: list[str] = []
    for count in counts:
        answer = "1"
        for _ in range(count):
            answer = next(answers) if answer.startswith("1") else answer
            said.append(answer)
    assert next(answers, None) is None
    return said
