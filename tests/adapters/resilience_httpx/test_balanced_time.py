"""Balanced in virtual time: what takes seconds or minutes takes none."""

from __future__ import annotations

import contextlib
import importlib
from functools import partial
from typing import Any

import anyio
import httpx2
import pytest

from resilience import Backoff, Classifier, Event, Pipeline, Retry, Timeout, clock
from resilience.events import EndpointAnswered, EndpointEjected, EndpointHealthChanged, EndpointRestored
from resilience.testing import run
from resilience_httpx import HealthCheck, ResilientTransport

from .fake_fleet import URLS, FakeFleet, body, inner

SLOW = URLS[0]


@pytest.fixture(params=["httpx", "httpx2"])
def lib(request: pytest.FixtureRequest) -> Any:
    return importlib.import_module(request.param)


@pytest.fixture(params=["asyncio", "trio"])
def go(request: pytest.FixtureRequest) -> Any:
    """Runs a function in virtual time."""
    return partial(run, backend=request.param)


async def p99(fleet: FakeFleet, strategy: Any, requests: int, rate: float) -> float:
    """The 99th percentile of the durations of requests that arrive at random, `rate` a second."""
    balanced = fleet.balanced(strategy=strategy)
    durations: list[float] = []

    async def one() -> None:
        began = clock.now()
        await fleet.get(balanced)
        durations.append(clock.now() - began)

    async with anyio.create_task_group() as tasks:
        for _ in range(requests):
            await anyio.sleep(fleet.random.expovariate(rate))
            tasks.start_soon(one)
    await balanced.aclose()
    return sorted(durations)[int(0.99 * requests)]


@pytest.mark.parametrize(
    ("requests", "rate"),
    [(500, 200.0), *(pytest.param(3000, rate, marks=pytest.mark.long) for rate in (20.0, 2000.0))],
)
def test_one_slow_endpoint_of_five(requests: int, rate: float, capsys: pytest.CaptureFixture[str]) -> None:
    def measured(strategy: str, slow: bool) -> float:
        fleet = FakeFleet(httpx2)
        if slow:
            fleet.latency[SLOW] = 0.2
        return float(run(p99, fleet, strategy, requests, rate))

    healthy = measured("two_choices", slow=False)
    chosen, turns = measured("two_choices", slow=True), measured("round_robin", slow=True)
    with capsys.disabled():
        print(f"\np99 at {rate:g}/s: healthy {healthy:.4f}, two choices {chosen:.4f}, round robin {turns:.4f} s")
    assert chosen <= 1.5 * healthy
    assert turns > 10 * healthy


def test_an_endpoint_that_becomes_slow_and_recovers(go: Any) -> None:
    fleet = FakeFleet(httpx2)

    async def main() -> None:
        balanced = fleet.balanced()

        async def traffic(seconds: float) -> None:
            end = clock.now() + seconds
            async with anyio.create_task_group() as tasks:
                while clock.now() < end:
                    await anyio.sleep(0.08)
                    tasks.start_soon(fleet.get, balanced)

        await traffic(4)
        assert fleet.counts()[SLOW] > 4
        fleet.latency[SLOW] = 0.2
        began = clock.now()
        await traffic(4)
        assert fleet.counts(began)[SLOW] <= 3
        del fleet.latency[SLOW]
        await traffic(60)
        began = clock.now()
        await traffic(4)
        assert fleet.counts(began)[SLOW] > 4
        await balanced.aclose()

    go(main)


@pytest.mark.parametrize("strategy", ["round_robin", "two_choices", "least_in_flight"])
def test_a_dead_endpoint_gets_only_its_probes(go: Any, strategy: Any) -> None:
    fleet = FakeFleet(httpx2)
    events: list[tuple[float, Event]] = []

    async def main() -> None:
        balanced = fleet.balanced(strategy=strategy)
        balanced.listen(lambda event: events.append((clock.now(), event)))
        fleet.latency[SLOW] = 0.001
        fleet.errors[SLOW] = httpx2.ConnectError("refused")

        async def get() -> None:
            with contextlib.suppress(httpx2.ConnectError):
                await fleet.get(balanced)

        async with anyio.create_task_group() as tasks:
            while clock.now() < 120:
                await anyio.sleep(0.25)
                if clock.now() > 115:
                    fleet.errors.clear()
                tasks.start_soon(get)
        await balanced.aclose()

    go(main)
    failures = [when for when, event in events if isinstance(event, EndpointAnswered) and event.verdict == "failure"]
    ejections = [(when, event.ejected_for) for when, event in events if isinstance(event, EndpointEjected)]
    restored = [when for when, event in events if isinstance(event, EndpointRestored)]
    if strategy == "two_choices":
        assert len(failures) <= 7
    else:
        # Five in a row, then one probe after 30 s and one 60 s later.
        assert failures[4] < 12
        assert len(failures) == 7
        assert [round(seconds) for _, seconds in ejections] == [30, 60, 90]
    assert not restored


def test_health_is_checked_in_the_background(lib: Any, go: Any) -> None:
    fleet = FakeFleet(lib)
    events: list[Event] = []

    async def main() -> None:
        check = HealthCheck("/health", interval=5, timeout=0.5, jitter=0)
        balanced = fleet.balanced([f"{url}/v1" for url in URLS], strategy="round_robin", outliers=None, health=check)
        balanced.listen(events.append)
        await anyio.sleep(60)
        assert not fleet.checks  # nothing before the first use
        await fleet.get(balanced)
        sick, hung, broken = (f"{url}/v1" for url in URLS[:3])
        fleet.status[sick] = 500
        await anyio.sleep(16)
        assert [each.healthy for each in balanced.status()] == [False, True, True, True, True]
        fleet.latency[hung] = 60.0
        fleet.errors[broken] = OSError("no route")
        fleet.status[sick] = 204
        await anyio.sleep(17)
        assert [each.healthy for each in balanced.status()] == [True, False, False, True, True]
        began = clock.now()
        for _ in range(30):
            await fleet.get(balanced)
        assert set(fleet.counts(began)) == {f"{url}/v1" for url in (URLS[0], *URLS[3:])}
        await balanced.aclose()
        seen = fleet.checks.total()
        await anyio.sleep(60)
        assert fleet.checks.total() == seen

    go(main)
    changes = [(event.endpoint[7:9], event.healthy) for event in events if isinstance(event, EndpointHealthChanged)]
    assert sorted(changes) == [("s0", False), ("s0", True), ("s1", False), ("s2", False)]


def test_a_check_that_finds_no_free_connection_says_nothing(lib: Any, go: Any) -> None:
    fleet = FakeFleet(lib)
    fleet.errors[URLS[4]] = lib.PoolTimeout("all connections are in use")

    async def main() -> None:
        balanced = fleet.balanced(health=HealthCheck("/health"), strategy="round_robin")
        for _ in range(4):
            await fleet.get(balanced)
        with pytest.raises(lib.PoolTimeout):
            await fleet.get(balanced)
        await anyio.sleep(60)
        assert all(each.healthy for each in balanced.status())
        await balanced.aclose()

    go(main)


def test_work_in_the_background_is_not_bound_to_the_caller(lib: Any, go: Any) -> None:
    """Not to its deadline, its cancellation or its event loop; nor does it hinder the end of the loop."""
    fleet = FakeFleet(lib)
    balanced = fleet.balanced(health=HealthCheck("/health", jitter=0))

    async def main() -> None:
        transport = ResilientTransport(Timeout(1), balanced)
        with anyio.move_on_after(2):
            await fleet.get(transport)
            await anyio.sleep(60)
        before = fleet.checks.total()
        await anyio.sleep(20)
        assert fleet.checks.total() == before + 4 * len(URLS)

    go(main)
    go(main)  # the loop of the first run is closed, and took the work with it


def test_an_error_in_what_judges_health_is_an_unhealthy_endpoint(lib: Any, go: Any) -> None:
    fleet = FakeFleet(lib)

    def passes(response: Any) -> bool:
        raise ZeroDivisionError

    async def main() -> None:
        balanced = fleet.balanced(health=HealthCheck("/health", passes=passes))
        await fleet.get(balanced)
        await anyio.sleep(30)
        assert not any(each.healthy for each in balanced.status())
        assert (await fleet.get(balanced)).status_code == 200  # all of them: nobody is healthy
        await balanced.aclose()

    go(main)


def test_slow_start_after_joining(go: Any) -> None:
    fleet = FakeFleet(httpx2)
    urls = URLS[:4]

    async def main() -> None:
        balanced = fleet.balanced(lambda: urls, strategy="round_robin", slow_start=100)
        parts: list[float] = []
        for _ in range(100):
            await fleet.get(balanced)
        urls.append(URLS[4])
        await balanced.refresh()
        for pause in (0, 50, 50):
            await anyio.sleep(pause)
            began = clock.now()
            for _ in range(300):
                await fleet.get(balanced)
            parts.append(fleet.counts(began)[URLS[4]] / 300)
        assert parts[0] < 0.06 < parts[1] < 0.17 < parts[2] <= 0.2
        await balanced.aclose()

    go(main)


@pytest.mark.parametrize(("latency", "expected"), [("body", 7.0), ("headers", 0.0)])
def test_latency_is_that_of_the_body_or_of_the_headers(lib: Any, go: Any, latency: Any, expected: float) -> None:
    async def main() -> None:
        stream = body(lib, b"a", partial(anyio.sleep, 7))
        balanced = FakeFleet(lib).balanced(URLS[:1], latency=latency, transport=inner(lib, stream=stream))
        async with lib.AsyncClient(transport=balanced) as client:
            await client.get("http://orders/")
        assert balanced.status()[0].latency == pytest.approx(expected, abs=0.01)

    go(main)


@pytest.mark.parametrize("strategy", ["round_robin", "two_choices"])
def test_an_endpoint_that_hangs_under_a_timeout_is_found_out(go: Any, strategy: Any) -> None:
    fleet = FakeFleet(httpx2)
    fleet.latency[SLOW] = 1000.0
    policy = Pipeline(Timeout(10), Retry(2, backoff=Backoff.none()), Timeout(1))

    async def main() -> None:
        balanced = fleet.balanced(strategy=strategy)
        transport = ResilientTransport(policy, balanced)
        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                await anyio.sleep(0.1)
                tasks.start_soon(fleet.get, transport)  # the retry saves them all
        assert all(each.in_flight == 0 for each in balanced.status())
        assert balanced.status()[0].ejected is (strategy == "round_robin")

    go(main)
    # Round robin: five until they fail, and those that come meanwhile. Two choices does not even get so far.
    assert fleet.counts()[SLOW] <= (8 if strategy == "round_robin" else 2)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_cancelled_whenever_nothing_stays_behind(lib: Any, go: Any, seed: int) -> None:
    fleet = FakeFleet(lib, seed=seed)
    fleet.latency = dict.fromkeys(URLS, 1.0)
    events: list[Event] = []
    found = list(URLS)

    async def one(transport: Any) -> None:
        with anyio.move_on_after(fleet.random.random() * 2) if fleet.random.random() < 0.5 else anyio.CancelScope():
            with contextlib.suppress(httpx2.TransportError, lib.TransportError):
                await fleet.get(transport)

    async def main() -> None:
        balanced = fleet.balanced(lambda: found, health=HealthCheck("/health"))
        balanced.listen(events.append)
        transport = ResilientTransport(Retry(2, backoff=Backoff.none()), balanced)
        async with anyio.create_task_group() as tasks:
            for step in range(200):
                await anyio.sleep(0.05)
                fleet.status[fleet.random.choice(URLS)] = fleet.random.choice([200, 200, 503])
                if step % 20 == 10:
                    found[:] = fleet.random.sample(URLS, 3)
                    await balanced.refresh()
                tasks.start_soon(one, transport)
        assert all(each.in_flight == 0 for each in balanced.status())
        assert {member.state.name for member in balanced._fleet._draining if not member.closed} == set()
        await balanced.aclose()

    go(main)
    answered = [event for event in events if isinstance(event, EndpointAnswered)]
    assert len(answered) == len(fleet.sent)


def test_a_request_in_a_scope_that_is_cancelled_already_is_no_failure(lib: Any, go: Any) -> None:
    fleet = FakeFleet(lib)
    events: list[Event] = []

    async def main() -> None:
        balanced = fleet.balanced()
        balanced.listen(events.append)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await fleet.get(balanced)
        assert all(each.in_flight == 0 for each in balanced.status())

    go(main)
    assert [event.verdict for event in events if isinstance(event, EndpointAnswered)] == ["ignored"]


def test_a_classifier_that_fails_leaves_no_response_open(lib: Any, go: Any) -> None:
    closed: list[str] = []

    def judge(response: Any) -> Any:
        raise ZeroDivisionError

    class Stream(lib.AsyncByteStream):  # type: ignore[misc]  # the class of a module that is a parameter
        async def aclose(self) -> None:
            closed.append("closed")

    async def main() -> None:
        balanced = FakeFleet(lib).balanced(
            transport=inner(lib, stream=Stream()), classifier=Classifier(result=judge), outliers=None
        )
        with pytest.raises(ZeroDivisionError):
            await balanced.handle_async_request(lib.Request("GET", "http://orders/"))
        assert all(each.in_flight == 0 for each in balanced.status())

    go(main)
    assert closed == ["closed"]


def test_work_that_is_begun_again_while_it_ends_is_under_way_once(lib: Any, go: Any) -> None:
    fleet = FakeFleet(lib)

    async def main() -> None:
        balanced = fleet.balanced(health=HealthCheck("/health", jitter=0))
        await fleet.get(balanced)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(balanced.aclose)
            tasks.start_soon(fleet.get, balanced)
        await fleet.get(balanced)
        before = fleet.checks.total()
        await anyio.sleep(50)
        assert 8 <= (fleet.checks.total() - before) / len(URLS) <= 10
        await balanced.aclose()

    go(main)
