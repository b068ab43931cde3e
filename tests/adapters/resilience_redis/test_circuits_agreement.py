"""The Lua script and the Python machine of a circuit are the same thing: same answers, same record, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import redis
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from resilience.machines.breaker_records import BreakerRule
from resilience.machines.fleet_breaker import FleetBreaker, Versions
from resilience.machines.rate_limiter.rule import text
from resilience_redis.breakers.circuit_wire import STATES, identity_of, name_and_key, parse_view, rule_line, view_line
from resilience_redis.scripts import script_of
from tests.support.rules import LONG

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from resilience_redis.server import Server as ServerProcess

SCRIPT = script_of("_prelude", "breaker")
LIFETIME = 3e6
CIRCUITS = ("one", "two")


class Step(NamedTuple):
    """One request, of one of three processes, about one of two circuits."""

    kind: str
    elapsed: int
    circuit: int
    process: int
    probe: int
    calls: int
    failures: float
    slow: float
    stale: bool
    draw: float


steps = st.builds(
    Step,
    st.sampled_from(["w"] * 8 + ["a"] * 6 + ["v"] * 5 + ["r", "t", "i", "z", "z", "lost"]),
    st.one_of(
        st.just(0),
        st.integers(0, 1000),
        st.integers(0, 400_000),
        st.integers(0, 9_000_000),
        st.integers(-2_000_000, 0),
    ),
    st.sampled_from([0, 0, 0, 1]),
    st.integers(0, 2),
    st.integers(0, 3),
    st.sampled_from([0, 1, 2, 5, 20]),
    st.sampled_from([0.0, 0.3, 0.5, 1.0, 1.0]),
    st.sampled_from([0.0, 0.0, 0.5, 1.0]),
    st.sampled_from([False] * 5 + [True]),
    st.floats(0.0, 0.999),
)
rules = st.builds(
    BreakerRule,
    failure_rate=st.sampled_from([0.3, 0.5, 1.0]),
    slow_rate=st.just(0.5),
    slow_call=st.just(1.0),
    minimum_calls=st.sampled_from([1, 5, 20]),
    open_for=st.sampled_from([1e6, 777_777.7]),
    open_max=st.sampled_from([2e6, 300e6]),
    open_growth=st.sampled_from([1.0, 2.0, 1.7]),
    probes=st.integers(1, 4),
    probe_lease=st.sampled_from([1e5, 2e6]),
    shared=st.just("quorum"),
    quorum=st.sampled_from([None, None, 1, 2]),
)
others = st.builds(BreakerRule, shared=st.sampled_from(["any", "local"]), minimum_calls=st.just(5), probes=st.just(2))


class Model:
    """The Python machines behind the requests that the script takes."""

    def __init__(self) -> None:
        self.versions = Versions()
        self.breakers = [FleetBreaker(BreakerRule(), self.versions, LIFETIME) for _ in CIRCUITS]
        self.views: dict[str, str] = {}

    def apply(self, step: Step, rule: BreakerRule, now: float) -> tuple[str, str | None]:
        """What the script is told, and what it answers."""
        breaker, probe = self.breakers[step.circuit], f"p{step.probe}"
        breaker.rule = rule
        bad, late = int(step.calls * step.failures), int(step.calls * step.slow)
        since = max(0.0, breaker.generation - 1) if step.stale else self.versions.last
        said, answer = step.kind, ""
        match step.kind:
            case "w":
                said = f"w {text(since)} {step.calls} {bad} {late}"
                process = f"process{step.process}"
                stale = breaker.report(now, process, since, step.calls, bad, late, step.draw)
                answer = "" if stale is None else text(stale)
            case "a":
                said = f"a {probe}"
                asked = breaker.ask(now, probe, step.draw)
                answer = f"{asked.kind} {text(asked.value)}"
                event(f"asked: {asked.kind}")
            case "v":
                failure, slow = step.failures > 0.4, step.slow > 0
                said = f"v {probe} {int(failure)} {int(slow)}"
                breaker.conclude(now, probe, failure, slow, step.draw)
            case "r":
                said = f"r {probe}"
                breaker.release(now, probe, step.draw)
            case "t":
                breaker.look(now, step.draw)
            case "i":
                breaker.isolate(now)
            case _:
                breaker.reset(now)
        self.look(step.circuit)
        return said, answer

    def lose(self, circuit: int) -> None:
        """The record is lost, the views are not."""
        view = self.breakers[circuit].view
        self.breakers[circuit] = FleetBreaker(BreakerRule(), self.versions, LIFETIME)
        self.breakers[circuit].view = view

    def look(self, circuit: int) -> None:
        breaker = self.breakers[circuit]
        if breaker.view.version:
            event(f"state: {breaker.view.state.value}")
            self.views[CIRCUITS[circuit]] = view_line(CIRCUITS[circuit], breaker.view)
            self.views["version"] = text(self.versions.last)

    def index(self) -> list[tuple[str, float]]:
        views = zip(CIRCUITS, self.breakers, strict=True)
        known = [(identity, breaker.view.version) for identity, breaker in views if breaker.view.version]
        return sorted(known, key=lambda each: each[1])

    def record(self, circuit: int) -> dict[str, str]:
        """The hash that the server keeps."""
        breaker = self.breakers[circuit]
        numbers = (breaker.generation, breaker.moment, breaker.nominal, breaker.opens)
        counts = (breaker.calls, breaker.failures, breaker.slow)
        fields = {f"l{probe}": text(end) for probe, end in breaker.leases.items()}
        fields |= {
            f"w{process}": text(vote.calls, vote.failures, vote.slow, vote.until)
            for process, vote in breaker.votes.items()
        }
        if breaker.known:
            fields["s"] = text(STATES.index(breaker.state), *numbers, *counts)
        return fields


@pytest.fixture
def text_redis(redis_server: ServerProcess) -> Generator[Any]:
    """A client whose replies are text."""
    make: Any = redis.Redis
    with make.from_url(redis_server.url, decode_responses=True) as client:
        yield client


def keys_of(prefix: str, circuits: Sequence[int]) -> list[str]:
    return [
        f"{{{prefix}}}:views",
        f"{{{prefix}}}:index",
        *(f"{{{prefix}}}:{CIRCUITS[circuit]}" for circuit in circuits),
    ]


def arguments(now: object, process: str, seen: float, draw: float, *jobs: tuple[str, str, Sequence[str]]) -> list[str]:
    said = [str(now), process, "channel", text(seen), text(draw)]
    for identity, rule, requests in jobs:
        said += [identity, rule, str(len(requests)), *requests]
    return said


def test_lua_and_python_agree(text_redis: Any, redis_prefix: str) -> None:
    text_redis.script_load(SCRIPT.source)
    runs = 0

    @settings(
        max_examples=500 if LONG else 100,
        deadline=None,
        derandomize=not LONG,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(
        st.lists(st.one_of(rules, rules, others), min_size=1, max_size=2),
        st.integers(1_700_000_000_000_000, 1_900_000_000_000_000),
        st.lists(steps, min_size=60, max_size=60),
    )
    def agree(chosen: list[BreakerRule], now: int, history: list[Step]) -> None:
        nonlocal runs
        runs += 1
        model, prefix = Model(), f"{redis_prefix}:{runs}"
        expected: list[Any] = []
        with text_redis.pipeline(transaction=False) as pipeline:
            for number, step in enumerate(history):
                now += step.elapsed
                keys = keys_of(prefix, [step.circuit])
                if step.kind == "lost":
                    pipeline.delete(keys[2])
                    expected.append(int(bool(model.record(step.circuit))))
                    model.lose(step.circuit)
                    continue
                rule = chosen[number * len(chosen) // len(history)]  # a new version of the program
                said, answer = model.apply(step, rule, float(now))
                job = (CIRCUITS[step.circuit], rule_line(rule, LIFETIME, unit=1), [said])
                told = arguments(now, f"process{step.process}", model.versions.last, step.draw, job)
                pipeline.execute_command(*SCRIPT.by_sha(keys, told))
                pipeline.hgetall(keys[2])
                pipeline.hgetall(keys[0])
                pipeline.zrange(keys[1], 0, -1, withscores=True)
                expected += [[str(now), text(model.versions.last), answer], model.record(step.circuit), {**model.views}]
                expected.append(model.index())
            replies = pipeline.execute()
        assert replies == expected

    agree()
    assert runs >= (500 if LONG else 100)


NOW = 1_800_000_000_000_000
EAGER = rule_line(BreakerRule(minimum_calls=1, jitter=0.0, probes=2), LIFETIME / 1e6)


class Server:
    """The script on keys of its own; each call says what one process asks about one circuit."""

    def __init__(self, client: Any, prefix: str) -> None:
        self.client, self.prefix = client, prefix

    def ask(self, now: int, seen: float, *requests: str, circuit: int = 0, rule: str = EAGER) -> list[str]:
        told = arguments(now, "me", seen, 0.0, (CIRCUITS[circuit], rule, requests))
        reply: list[str] = self.client.execute_command(*SCRIPT.by_source(keys_of(self.prefix, [circuit]), told))
        return reply

    def ttl(self) -> int:
        left: int = self.client.pttl(keys_of(self.prefix, [0])[2])
        return left


@pytest.fixture
def server(text_redis: Any, redis_prefix: str) -> Server:
    return Server(text_redis, redis_prefix)


def test_views_are_told_once(server: Server) -> None:
    assert server.ask(NOW, 0, "w 0 5 0 0") == [str(NOW), "0", ""]
    opened = server.ask(NOW, 0, "w 0 5 5 0")
    (line,) = opened[3:]
    identity, view = parse_view(line)
    assert (identity, view.state.value, view.version, view.until) == ("one", "open", NOW, NOW + 5_000_000)
    assert server.ask(NOW + 1, NOW, "w 0 5 5 0") == [str(NOW + 1), str(NOW), str(NOW)], "stale, and nothing new"
    assert server.ask(NOW + 1, NOW - 1, "t", circuit=1)[3:] == [line]
    assert server.ask(NOW + 1, NOW, "t", circuit=1)[3:] == []


def test_whoever_comes_first_clears_away_what_nobody_needs(server: Server) -> None:
    server.ask(NOW, 0, "w 0 5 5 0", "z")
    server.ask(NOW, 0, "w 0 5 5 0", circuit=1)
    minute, day = 60_000_000, 86_400_000_000

    def views(now: int) -> list[str]:
        return [parse_view(line)[0] for line in server.ask(now, 0)[2:]]

    assert sorted(views(NOW + minute)) == ["one", "two"]
    assert views(NOW + minute + 10) == ["two"]
    assert views(NOW + day) == ["two"]
    assert views(NOW + day + 10) == []
    server.ask(NOW, 0, "i", circuit=1)
    assert views(NOW + 100 * day) == ["two"], "isolated until somebody says otherwise"


def test_records_expire_long_after_they_mean_anything(server: Server) -> None:
    server.ask(NOW, 0, "w 0 5 0 0")
    assert 62_000 < server.ttl() <= 63_000
    server.ask(NOW, 0, "w 0 5 5 0")
    assert 86_400_000 < server.ttl() <= 86_465_000
    server.ask(NOW, 0, "i")
    assert server.ttl() == -1
    server.ask(NOW, 0, "z")
    assert 62_000 < server.ttl() <= 63_000


def test_everybody_hears_of_changes(server: Server) -> None:
    with server.client.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe("channel")
        heard.get_message(timeout=1.0)
        server.ask(NOW, 0, "w 0 5 5 0")
        lines = [heard.get_message(timeout=5.0)["data"].partition(" ")]
        server.ask(NOW + 5_000_000, 0, "a p1")
        lines += [heard.get_message(timeout=5.0)["data"].partition(" ") for _ in "12"]
    assert [line[0] for line in lines] == [str(NOW), str(NOW + 5_000_000), str(NOW + 5_000_000)]
    views = [parse_view(line[2])[1] for line in lines]
    assert [(view.state.value, view.free, view.probes) for view in views] == [
        ("open", 0, 0),
        ("half_open", 2, 0),
        ("half_open", 1, 1),
    ]
    assert views[1].generation == views[2].generation < views[2].version


@pytest.mark.parametrize(
    ("rule", "request_", "reason"),
    [
        ("nan - 20 5 300 2 0 3 30 0 30", "t", "failure_rate must be a finite number"),
        ("0.5 0 20 5 300 2 0 3 30 0 30", "t", "slow_rate must be greater than 0"),
        ("0.5 - 0 5 300 2 0 3 30 0 30", "t", "minimum_calls must be a finite number of at least 1"),
        ("0.5 - 20 5 inf 2 0 3 30 0 30", "t", "open_max must be a finite number"),
        ("0.5 - 20 5 300 2 0 0 30 0 30", "t", "probes must be a finite number of at least 1"),
        ("0.5 - 20 5 300 2 0 3 30 0", "t", "lifetime must be a finite number"),
        (EAGER, "w 0 5 -1 0", "request w must be a finite number of at least 0, got -1"),
        (EAGER, "w 0 5", "request w must be a finite number of at least 0, got nil"),
        (EAGER, "a", "request needs the id of a probe: a"),
        (EAGER, "v p 1", "request v must be a finite number"),
        (EAGER, "steal", "request is unknown: steal"),
        (EAGER, "", "request is unknown"),
    ],
)
def test_nonsense_is_refused_and_writes_nothing(server: Server, rule: str, request_: str, reason: str) -> None:
    with pytest.raises(ResponseError, match=f"RESILIENCE {reason}"):
        server.ask(NOW, 0, "w 0 5 5 0", request_, rule=rule)
    assert not server.client.exists(*keys_of(server.prefix, [0]))


@pytest.mark.parametrize(("name", "key"), [("db", ""), ("a b:c", "{x} y%\n"), ("naïve", "\ud800:\u3000")])
def test_identities_are_plain_words(name: str, key: str) -> None:
    identity = identity_of(name, key)
    assert not set(identity) & set(" {}\n\u3000")
    assert name_and_key(identity) == (name, key)
