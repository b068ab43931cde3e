"""The script of the shared retry budget and its machine are the same thing: same answers, same state, bit for bit."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from resilience.machines.rate_limiter.rule import text
from resilience.machines.token_bank import Message, TokenBank
from resilience_redis.scripts import script_of
from tests.support.rules import LONG


class Step(NamedTuple):
    """One message; `again` repeats the last one of that process."""

    elapsed: int
    id: str
    message: Message
    again: bool
    capacity: float
    lifetime: int


amounts = st.sampled_from([0.0, 0.0, 1.0, 5.0, 14.0, 0.1, 1 / 3, 250.0])
steps = st.builds(
    Step,
    st.one_of(st.integers(0, 1_000_000), st.integers(0, 20_000_000), st.integers(-20_000_000, 0)),
    st.sampled_from(["p.1", "q.1", "r.1"]),
    st.builds(Message, st.just(0), amounts, amounts, amounts, amounts, amounts),
    st.sampled_from([False, False, False, True]),
    st.sampled_from([500.0, 500.0, 100.0, 333.3]),
    st.sampled_from([10_000_000, 10_000_000, 2_000_000]),
)


def stored(plain_redis: Any, keys: list[str]) -> dict[str, Any]:
    fields = {field.decode(): value.decode() for field, value in plain_redis.hgetall(keys[0]).items()}
    until = {id.decode(): int(score) for id, score in plain_redis.zrange(keys[1], 0, -1, withscores=True)}
    return {"fields": fields, "until": until}


def kept(bank: TokenBank) -> dict[str, Any]:
    assert bank.tokens is not None
    slices = {id: f"{text(each.tokens)} {each.number}" for id, each in bank.slices.items()}
    return {"fields": {"tokens": text(bank.tokens), "lent": text(bank.lent), **slices}, "until": bank.until}


def test_the_script_is_the_machine(plain_redis: Any, redis_prefix: str) -> None:
    script = script_of("_prelude", "budget")
    plain_redis.script_load(script.source)
    runs = 0

    @settings(
        max_examples=2_000 if LONG else 100,
        deadline=None,
        derandomize=not LONG,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.integers(1_700_000_000_000_000, 1_900_000_000_000_000), st.lists(steps, min_size=1, max_size=40))
    def agree(now: int, history: list[Step]) -> None:
        nonlocal runs
        runs += 1
        keys = [f"{{{redis_prefix}:{runs}}}", f"{{{redis_prefix}:{runs}}}:slices"]
        bank = TokenBank()
        last: dict[str, Message] = {}
        for count, step in enumerate(history, 1):
            now += step.elapsed
            message = last.get(step.id) if step.again else None
            message = last[step.id] = message or step.message._replace(number=count)
            expected = bank.exchange(now, step.id, message, step.capacity, step.lifetime)
            said = ["exchange", str(now), text(step.capacity), str(step.lifetime), step.id, *map(text, message)]
            assert plain_redis.execute_command(*script.by_sha(keys, said)).decode() == text(*expected), step
            assert stored(plain_redis, keys) == kept(bank), step
            said = ["peek", str(now), text(step.capacity), str(step.lifetime)]
            assert plain_redis.execute_command(*script.by_sha(keys, said)).decode() == text(expected.left, bank.lent)
            assert plain_redis.pttl(keys[0]) > 3_600_000

    agree()
    assert runs >= (2_000 if LONG else 100)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["exchange", "", "0", "1", "p.1", "1", "0", "0", "0", "0", "0"], "capacity must be greater than 0"),
        (["exchange", "", "1", "nan", "p.1", "1", "0", "0", "0", "0", "0"], "lifetime must be a finite number"),
        (["exchange", "", "1", "1", "tokens", "1", "0", "0", "0", "0", "0"], "id must contain a dot"),
        (["exchange", "", "1", "1"], "id must contain a dot"),
        (["exchange", "", "1", "1", "p.1", "0", "0", "0", "0", "0", "0"], "number must be a finite number"),
        (["exchange", "", "1", "1", "p.1", "1", "-1", "0", "0", "0", "0"], "spent must be a finite number"),
        (["exchange", "", "1", "1", "p.1", "1", "0", "inf", "0", "0", "0"], "earned must be a finite number"),
        (["exchange", "", "1", "1", "p.1", "1", "0", "0", "nan", "0", "0"], "keep must be a finite number"),
        (["exchange", "", "1", "1", "p.1", "1", "0", "0", "0", "0"], "least must be a finite number"),
        (["mint", "", "1", "1"], "operation is unknown: mint"),
    ],
)
def test_the_script_refuses_nonsense(plain_redis: Any, redis_prefix: str, arguments: list[str], reason: str) -> None:
    keys = [f"{{{redis_prefix}}}", f"{{{redis_prefix}}}:slices"]
    with pytest.raises(ResponseError, match=f"RESILIENCE {reason}"):
        plain_redis.execute_command(*script_of("_prelude", "budget").by_source(keys, arguments))
    assert not plain_redis.exists(*keys)
