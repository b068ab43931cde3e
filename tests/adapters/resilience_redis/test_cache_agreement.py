"""`cache.lua` and `SharedEntry` are the same thing: same answers, also when time runs backwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import redis
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from resilience.machines.cache_lease import SharedEntry
from resilience.machines.rate_limiter.rule import text
from resilience_redis.scripts import script_of
from tests.support.rules import LONG

if TYPE_CHECKING:
    from collections.abc import Sequence

SCRIPT = script_of("_prelude", "cache")
START = 1_800_000_000_000_000
CHANNEL, MESSAGE = "news", "key"


class Step(NamedTuple):
    operation: str
    elapsed: int
    token: str
    long: float
    draw: float


steps = st.builds(
    Step,
    st.sampled_from(["look"] * 5 + ["store"] * 3 + ["renew", "release", "release", "drop"]),
    st.one_of(st.integers(0, 3_000_000), st.integers(0, 100), st.integers(-2_000_000, 0)),
    st.sampled_from(["a", "b", "c", ""]),
    st.sampled_from([1e6, 2.5e6, 1e6 / 3, 7e6]),
    st.sampled_from([0.0, 0.0, 0.3, 1 / 3, 2.0, 36.7]),
)


def applied(shared: SharedEntry, step: Step, now: float) -> list[str] | int:
    """What the machine answers, as the script would say it."""
    if step.operation == "look":
        look = shared.look(now, step.token, step.long, step.draw)
        event(look.state)
        return [look.state, look.kind, look.payload, text(look.left)]
    if step.operation == "store":
        return int(shared.store(now, step.token, *stored(step)))
    if step.operation == "renew":
        return int(shared.renew(now, step.token, step.long))
    if step.operation == "release":
        return int(shared.release(now, step.token, step.draw * 1e6))
    return int(shared.drop())


def stored(step: Step) -> tuple[str, str, float, float, float, float]:
    return "text", f"{step.token}{step.long}", step.long, step.draw * 1e6, step.long * step.draw, step.long / 3


def arguments(step: Step, now: int) -> list[str]:
    said = [step.operation, str(now)]
    if step.operation == "look":
        return [*said, step.token, text(step.long), text(step.draw)]
    if step.operation == "store":
        kind, payload, *times = stored(step)
        return [*said, step.token, kind, payload, *map(text, times), CHANNEL, MESSAGE]
    if step.operation == "renew":
        return [*said, step.token, text(step.long)]
    if step.operation == "release":
        return [*said, step.token, text(step.draw * 1e6), CHANNEL, MESSAGE]
    return [*said, CHANNEL, MESSAGE]


def plain(reply: Any) -> Any:
    return reply if isinstance(reply, int) else [word.decode() for word in reply]


@settings(max_examples=600 if LONG else 60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, min_size=1, max_size=30))
def test_the_script_is_the_machine(plain_redis: Any, redis_prefix: str, history: Sequence[Step]) -> None:
    plain_redis.delete(redis_prefix)
    plain_redis.script_load(SCRIPT.source)
    shared, now = SharedEntry(), START
    for step in history:
        now += step.elapsed
        expected = applied(shared, step, float(now))
        reply = plain_redis.execute_command(*SCRIPT.by_sha([redis_prefix], arguments(step, now)))
        assert plain(reply) == expected, step
        same_state(plain_redis.hgetall(redis_prefix), shared)
        expiry = plain_redis.pttl(redis_prefix)
        assert expiry == -2 or expiry > 59_000, "kept a minute longer than it means anything"


def same_state(held: dict[bytes, bytes], shared: SharedEntry) -> None:
    fields = {name.decode(): value.decode() for name, value in held.items()}
    entry = shared.entry
    assert fields.get("t", "") == shared.token
    assert ("w" in fields) == shared.expected
    if shared.token:
        assert float(fields["l"]) == shared.lease_until
    assert ("v" in fields) == (entry is not None)
    if entry is not None:
        assert (fields["v"], fields["k"]) == (entry.value, shared.kind)
        moments = (entry.expires, entry.stale_until, entry.spare_until, entry.duration)
        assert tuple(float(fields[name]) for name in "esgd") == moments
        assert float(fields.get("p", "-inf")) == entry.paused_until


def test_those_who_wait_are_told_and_nobody_else(plain_redis: Any, redis_prefix: str) -> None:
    def run(*said: str) -> Any:
        return plain(plain_redis.execute_command(*SCRIPT.by_source([redis_prefix], said)))

    with plain_redis.pubsub() as heard:
        heard.subscribe(CHANNEL)
        assert heard.get_message(timeout=5)["type"] == "subscribe"

        def told() -> list[bytes]:
            found: list[bytes] = []
            while message := heard.get_message(timeout=0.05):
                found.append(message["data"])
            return found

        look = ("5000000", "0")
        times = ("1000000", "0", "0", "0")
        run("look", "", "a", *look)
        run("store", "", "a", "text", "1", *times, CHANNEL, "one")
        run("drop", "", CHANNEL, "two")
        assert told() == []
        for end in (("store", "", "a", "text", "1", *times), ("release", "", "a", "0"), ("drop", "")):
            run("look", "", "a", *look)
            assert run("look", "", "b", *look)[0] == "wait"
            run(*end, CHANNEL, end[0])
            assert told() == [end[0].encode()]
            run("drop", "", CHANNEL, "end")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["look", "", "a", "0", "0"], "lease must be greater than 0"),
        (["look", "", "a", "nan", "0"], "lease must be a finite number"),
        (["look", "", "a", "1", "-1"], "draw must be a finite number of at least 0"),
        (["store", "", "", "text", "v", "0", "0", "0", "0", "c", "m"], "life must be greater than 0"),
        (["store", "", "", "text", "v", "1", "inf", "0", "0", "c", "m"], "stale_for must be a finite number"),
        (["store", "", "", "text", "v", "1", "0", "-1", "0", "c", "m"], "spare_for must be a finite number"),
        (["store", "", "", "text", "v", "1", "0", "0", "x", "c", "m"], "duration must be a finite number"),
        (["renew", "", "a", "-1"], "lease must be a finite number"),
        (["release", "", "a", "-1", "c", "m"], "pause must be a finite number"),
        (["look", "soon", "a", "1", "0"], "now must be a finite number"),
        (["guess", ""], "operation is unknown: guess"),
    ],
)
def test_bad_arguments_change_nothing(plain_redis: Any, redis_prefix: str, said: list[str], message: str) -> None:
    with pytest.raises(redis.ResponseError, match=message):
        plain_redis.execute_command(*SCRIPT.by_source([redis_prefix], said))
    assert not plain_redis.exists(redis_prefix)
