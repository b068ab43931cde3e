"""The ledger of slices in Lua and its machine are the same thing: same grants, same buckets, same records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from resilience.machines.leased_ledger import ALGORITHMS, Request, SliceLedger
from resilience.machines.rate_limiter.rule import text
from resilience_redis.scripts import script_of
from tests.support.rules import LONG, AnyRule, make_rule

if TYPE_CHECKING:
    from collections.abc import Sequence

STEPS = 40


class Limit(NamedTuple):
    limit: float
    period: float
    burst: float


class Step(NamedTuple):
    """One request, or units taken without a slice; `fresh` is whether its serial is."""

    elapsed: int
    holder: int
    fresh: bool
    left: float
    returned: int
    want: int
    lifetime: float
    ahead: float
    strict: bool


limits = st.builds(
    Limit,
    st.sampled_from([10.0, 37.5, 100.0, 1000.0]),
    st.sampled_from([1e6, 1234567.0, 6e7]),
    st.sampled_from([1.0, 20.0, 333.3, 5000.0]),
)
steps = st.builds(
    Step,
    st.one_of(st.integers(0, 1000), st.integers(0, 400_000), st.integers(0, 3_000_000), st.integers(-300_000, 0)),
    st.integers(0, 3),
    st.sampled_from([True] * 9 + [False]),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0, 0, 0, 1, 5, 200]),
    st.sampled_from([0, 1, 2, 7, 40, 1000]),
    st.sampled_from([2_000_000.0, 300_000.0, 1000.0]),
    st.sampled_from([0.0, 500_000.0, 1e7]),
    st.sampled_from([False] * 5 + [True]),
)


def said(rules: Sequence[AnyRule], surplus: float, now: int, request: Request) -> list[str]:
    """What the script is told."""
    numbers = [each for rule in rules for each in (rule.limit, rule.period, rule.burst)]
    holder, *rest = request
    return ["lease", str(now), *map(text, numbers), text(surplus), holder, *map(text, rest)]


def records(ledger: SliceLedger) -> dict[bytes, bytes]:
    return {name.encode(): text(*each).encode() for name, each in ledger.holdings.items()}


def stored(rule: AnyRule, state: Any) -> bytes | None:
    position = None if state is None else rule.position(state)
    return None if position is None else text(*(position if isinstance(position, tuple) else (position,))).encode()


def step_of(ledger: SliceLedger, step: Step, serials: list[int]) -> Request:
    """Make a request of what the holder has on record."""
    holder = f"process-{step.holder}"
    serials[step.holder] += step.fresh
    known = ledger.holdings.get(holder)
    left = float(int(known.units * step.left)) if known else 0.0
    return Request(
        holder, max(1, serials[step.holder]), left, step.returned, left + step.want, step.lifetime, step.ahead
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_lua_and_python_agree(algorithm: str, plain_redis: Any, redis_prefix: str) -> None:
    script = script_of("_prelude", algorithm, "_limits", "leased")
    plain_redis.script_load(script.source)
    runs = 0

    @settings(
        max_examples=500 if LONG else 100,
        deadline=None,
        derandomize=not LONG,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(
        st.lists(limits, min_size=1, max_size=2),
        st.sampled_from([0.01, 0.05, 0.5, 1.0]),
        st.integers(1_700_000_000_000_000, 1_900_000_000_000_000),
        st.lists(steps, min_size=STEPS, max_size=STEPS),
    )
    def agree(chosen: list[Limit], surplus: float, now: int, history: list[Step]) -> None:
        nonlocal runs
        runs += 1
        rules = [make_rule(algorithm, *limit) for limit in chosen]
        ledger = SliceLedger(rules, surplus)
        keys = [f"{{{redis_prefix}:{runs}}}:{index}" for index in range(len(rules) + 1)]
        serials = [0] * 4
        expected: list[Any] = []
        with plain_redis.pipeline(transaction=False) as pipeline:
            for step in history:
                now += step.elapsed
                if step.strict:  # somebody books without a slice
                    for index, (rule, state) in enumerate(zip(rules, ledger.states, strict=True)):
                        state = rule.take(state, float(now), 1.0, rule.wait(state, float(now), 1.0))
                        ledger.states[index] = state
                        pipeline.set(keys[index], stored(rule, state) or b"")
                        expected.append(True)
                request = step_of(ledger, step, serials)
                pipeline.execute_command(*script.by_sha(keys, said(rules, surplus, now, request)))
                grant = ledger.lease(float(now), request)
                event(f"stale {grant is None}" if grant is None else f"pool {grant.loose > 0}, fresh {grant.fresh > 0}")
                expected.append(b"stale" if grant is None else ",".join(map(text, grant)).encode())
                for rule, state, key in zip(rules, ledger.states, keys, strict=False):
                    pipeline.get(key)
                    expected.append(stored(rule, state))
                pipeline.hgetall(keys[-1])
                expected.append(records(ledger))
            assert pipeline.execute() == expected

    agree()
    assert runs >= (500 if LONG else 100)


REQUEST = ["0.05", "me", "1", "0", "0", "40", "300000", "500000"]


@pytest.mark.parametrize(
    ("index", "value", "reason"),
    [
        (0, "0", "surplus must be greater than 0"),
        (2, "0", "serial must be a finite number of at least 1"),
        (3, "-1", "left must be a finite number of at least 0"),
        (4, "nan", "returned must be a finite number of at least 0"),
        (5, "inf", "want must be a finite number of at least 0"),
        (6, "0", "lifetime must be greater than 0"),
        (7, "x", "ahead must be a finite number of at least 0"),
    ],
)
def test_the_script_refuses_nonsense(plain_redis: Any, redis_prefix: str, index: int, value: str, reason: str) -> None:
    script = script_of("_prelude", "gcra", "_limits", "leased")
    arguments = ["lease", "", "1000", "1000000", "1000", *REQUEST]
    arguments[5 + index] = value
    keys = [f"{{{redis_prefix}}}:0", f"{{{redis_prefix}}}:1"]
    with pytest.raises(ResponseError, match=f"RESILIENCE {reason}"):
        plain_redis.execute_command(*script.by_source(keys, arguments))
    with pytest.raises(ResponseError, match="RESILIENCE operation is unknown: steal"):
        plain_redis.execute_command(*script.by_source(keys, ["steal", "", *arguments[2:]]))
    assert not plain_redis.exists(*keys)


def test_records_outlive_their_meaning_by_a_minute_and_no_more(plain_redis: Any, redis_prefix: str) -> None:
    script = script_of("_prelude", "gcra", "_limits", "leased")
    keys = [f"{{{redis_prefix}}}:0", f"{{{redis_prefix}}}:1"]
    reply = plain_redis.execute_command(*script.by_source(keys, ["lease", "", "1000", "1000000", "1000", *REQUEST]))
    assert reply == b"0,0,40,0,0,0"
    assert 59_000 < plain_redis.pttl(keys[1]) <= 60_300
