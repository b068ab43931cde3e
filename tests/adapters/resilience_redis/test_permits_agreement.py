"""The script of shared permits and its machine are the same thing: same answers, same state, same messages."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from resilience.machines.leased_permits import Claim, LeasedPermits
from resilience_redis.scripts import script_of
from tests.support.rules import LONG

STEPS = 40
OWNERS = ("p", "q", "r")
IDS = [f"{owner}.{number}" for owner in OWNERS for number in range(3)]


class Step(NamedTuple):
    """One operation of a history; the weight of an acquire is cut to the limit."""

    operation: str
    elapsed: int
    ids: tuple[str, ...]
    weight: int
    token: int
    limit: int
    queue: int
    lease: int
    flag: bool


steps = st.builds(
    Step,
    st.sampled_from(["acquire"] * 4 + ["release"] * 2 + ["renew", "renew", "peek"]),
    st.one_of(st.just(0), st.integers(0, 1_000), st.integers(0, 2_000_000), st.integers(-2_000_000, 0)),
    st.lists(st.sampled_from(IDS), min_size=1, max_size=4, unique=True).map(tuple),
    st.sampled_from([1, 1, 1, 2, 3]),
    st.sampled_from([-1, 0, 5, 1_800_000_000_000_000]),
    st.sampled_from([1, 2, 3, 3, 5]),
    st.integers(0, 4),
    st.sampled_from([1, 500_000, 1_000_000, 1_000_000, 10_000_000]),
    st.booleans(),
)


def claims_of(step: Step, record: LeasedPermits) -> list[Claim]:
    """What the owners say: mostly the truth, if they have been granted anything."""
    known = record.entries
    return [
        Claim(id, known[id].weight, known[id].token)
        if id in known and known[id].token > 0
        else Claim(id, step.weight, step.token)
        for id in step.ids
    ]


def apply(record: LeasedPermits, step: Step, now: int) -> str | int:
    limit, lease = step.limit, step.lease
    if step.operation == "acquire":
        answer = record.acquire(now, step.ids[0], min(step.weight, limit), limit, step.queue, lease)
        event("granted" if answer.token > 0 else "queued" if answer.token == 0 else "refused")
        return " ".join(map(str, answer))
    if step.operation == "release":
        return int(record.release(now, step.ids[0], limit, lease, step.flag))
    if step.operation == "peek":
        return " ".join(map(str, record.peek(now)))
    tokens, rest = record.renew(now, claims_of(step, record), limit, lease, step.flag)
    return " ".join(map(str, (rest, *tokens)))


def arguments(record: LeasedPermits, step: Step, now: int, channel: str) -> list[str]:
    head = [step.operation, str(now), str(step.limit), str(step.lease), channel]
    if step.operation == "acquire":
        return [*head, step.ids[0], str(min(step.weight, step.limit)), str(step.queue)]
    if step.operation == "release":
        return [*head, step.ids[0], str(int(step.flag))]
    if step.operation == "renew":
        claims = claims_of(step, record)
        return [*head, str(int(step.flag)), str(len(claims)), *(str(each) for claim in claims for each in claim)]
    return head


def stored(plain_redis: Any, keys: list[str]) -> dict[str, Any]:
    """The state in the server, read as the machine keeps it."""
    fields = {field.decode(): value.decode() for field, value in plain_redis.hgetall(keys[0]).items()}
    counters = {name: int(fields.pop(name, "0")) for name in ("in_use", "fence", "place", "seen")}
    return {
        **counters,
        "entries": {id: tuple(map(int, value.split())) for id, value in fields.items()},
        "leases": {id.decode(): int(score) for id, score in plain_redis.zrange(keys[1], 0, -1, withscores=True)},
        "queue": [(id.decode(), int(score)) for id, score in plain_redis.zrange(keys[2], 0, -1, withscores=True)],
    }


def kept(record: LeasedPermits) -> dict[str, Any]:
    state = {name: getattr(record, name) for name in ("in_use", "fence", "place", "seen", "entries", "leases")}
    return {**state, "queue": list(record.queue.items())}


def test_the_script_is_the_machine(plain_redis: Any, redis_prefix: str) -> None:
    script = script_of("_prelude", "permits")
    plain_redis.script_load(script.source)
    runs = 0

    @settings(
        max_examples=2_000 if LONG else 100,
        deadline=None,
        derandomize=not LONG,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.integers(1_700_000_000_000_000, 1_900_000_000_000_000), st.lists(steps, min_size=1, max_size=STEPS))
    def agree(now: int, history: list[Step]) -> None:
        nonlocal runs
        runs += 1
        base = f"{{{redis_prefix}:{runs}}}"
        keys = [base, f"{base}:leases", f"{base}:queue"]
        channel = f"{redis_prefix}:{runs}:"
        record = LeasedPermits()
        told: list[tuple[str, str]] = []
        with plain_redis.pubsub(ignore_subscribe_messages=True) as news:
            news.subscribe(*(channel + owner for owner in OWNERS))
            for step in history:
                now += step.elapsed
                said = arguments(record, step, now, channel)
                before = plain_redis.dump(keys[0])
                expected = apply(record, step, now)
                reply = plain_redis.execute_command(*script.by_sha(keys, said))
                assert (reply.decode() if isinstance(reply, bytes) else reply) == expected, step
                assert stored(plain_redis, keys) == kept(record), step
                if before is None and step.operation == "acquire" and str(expected).startswith("-1"):
                    assert plain_redis.dump(keys[0]) is None, "a refusal was written down"
                told += [(channel + id.partition(".")[0], f"{id} {token}") for id, token in record.handed]
                if record.leases:
                    rest = (max(record.leases.values()) - now) / 1000
                    for key in keys[: 2 + bool(record.queue)]:
                        assert plain_redis.pttl(key) > rest + 30_000, "a key would be gone before its meaning is"
            assert heard(news, len(told)) == told

    agree()
    assert runs >= (2_000 if LONG else 100)


def heard(news: Any, count: int) -> list[tuple[str, str]]:
    """So many messages; the confirmations of subscriptions come first."""
    found: list[tuple[str, str]] = []
    for _ in range(count + len(OWNERS)):
        message = news.get_message(timeout=1.0 if len(found) < count else 0.0)
        if message is not None:
            found.append((message["channel"].decode(), message["data"].decode()))
    return found


def test_one_call_renews_for_many_keys(plain_redis: Any, redis_prefix: str) -> None:
    script = script_of("_prelude", "permits")
    keys = [f"{{{redis_prefix}}}:{each}" for each in range(6)]
    records = [LeasedPermits(), LeasedPermits()]
    claims = [[Claim("p.1", 1, 7), Claim("p.2", 1, 8)], [Claim("p.3", 2, -1)]]
    said = ["renew", "1000", "2", "500", "news:", "0"]
    for each in claims:
        said += [str(len(each)), *(str(value) for claim in each for value in claim)]
    reply = plain_redis.execute_command(*script.by_source(keys, said)).decode()
    answers = [record.renew(1000, each, 2, 500, False) for record, each in zip(records, claims, strict=True)]
    assert reply == " ".join(map(str, (500, *answers[0][0], *answers[1][0])))
    assert stored(plain_redis, keys[:3]) == kept(records[0])
    assert stored(plain_redis, keys[3:]) == kept(records[1])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["acquire", "", "nan", "1", "c", "p.1", "1", "0"], "limit must be a finite number"),
        (["acquire", "", "1", "0", "c", "p.1", "1", "0"], "lease must be greater than 0"),
        (["acquire", "", "1", "1", "c", "p.1", "0", "0"], "weight must be a finite number of at least 1"),
        (["acquire", "", "1", "1", "c", "p.1", "2", "0"], "weight must be at most the limit of 1, got 2"),
        (["acquire", "", "1", "1", "c", "p.1", "1", "-1"], "queue must be a finite number"),
        (["acquire", "", "1", "1", "c", "p", "1", "0"], "id must be that of the owner"),
        (["acquire", "", "1", "1", "c"], "id must be that of the owner"),
        (["release", "", "1", "1", "c"], "id must be that of the owner"),
        (["renew", "", "1", "1", "c", "0", "1", "p.1", "1", "nan"], "token must be a finite number"),
        (["renew", "", "1", "1", "c", "0", "2", "p.1", "1", "1"], "id must be that of the owner"),
        (["renew", "", "1", "1", "c", "0"], "count must be a finite number"),
        (["acquire", "-5", "1", "1", "c", "p.1", "1", "0"], "now must be a finite number"),
        (["steal", "", "1", "1", "c"], "operation is unknown: steal"),
        ([], "now must be a finite number"),
    ],
)
def test_the_script_refuses_nonsense(plain_redis: Any, redis_prefix: str, arguments: list[str], reason: str) -> None:
    keys = [f"{{{redis_prefix}}}", f"{{{redis_prefix}}}:leases", f"{{{redis_prefix}}}:queue"]
    with pytest.raises(ResponseError, match=f"RESILIENCE {reason}"):
        plain_redis.execute_command(*script_of("_prelude", "permits").by_source(keys, arguments))
    assert not plain_redis.exists(*keys)
