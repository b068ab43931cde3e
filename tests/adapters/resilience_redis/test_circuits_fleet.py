"""Ten processes share a breaker: real processes, a real server, a real dependency."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from resilience_redis.server import Server
from tests.support.redis import sync_client
from tests.support.upstream import Upstream
from tests.support.workers import Workers

pytestmark = [pytest.mark.asyncio, pytest.mark.long]

PROCESSES = 10
PROBES = 3
EAGER = {
    "minimum_calls": 10,
    "count": 20,
    "open_for": 0.6,
    "open_growth": 1.0,
    "jitter": 0.1,
    "probes": PROBES,
    "probe_lease": 1.0,
}


class Scene(NamedTuple):
    """A fleet at work."""

    workers: Workers
    upstream: Upstream
    url: str
    plan: dict[str, Any]

    def script_calls(self) -> int:
        with sync_client(self.url) as client:
            stats: dict[str, Any] = client.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))

    async def all_in(self, event: str, seconds: float, after: float = 0.0) -> list[dict[str, Any]]:
        """Wait for an event in every process; the first one of each."""

        def firsts() -> list[dict[str, Any]]:
            found = [each for each in self.workers.events(event) if each["at"] > after]
            return list({each["who"]: each for each in reversed(found)}.values())

        await self.workers.until(lambda: len(firsts()) == len(self.workers.running), seconds)
        return firsts()


@asynccontextmanager
async def fleet(url: str, processes: int = PROCESSES, **options: Any) -> AsyncGenerator[Scene]:
    async with Upstream() as upstream, Workers("tests.support.circuit_worker") as workers:
        skews = options.pop("skews", [0.0])
        plan = {"url": url, "prefix": "fleet", "port": upstream.port, "breaker": EAGER | options.pop("breaker", {})}
        plan |= options
        scene = Scene(workers, upstream, url, plan)
        async with asyncio.TaskGroup() as group:
            for number in range(processes):
                skewed = {"skew": skews[number % len(skews)]}
                group.create_task(workers.start(f"worker{number}", plan | skewed))
        yield scene


def spread(firsts: list[dict[str, Any]]) -> float:
    times = list(map(_at, firsts))
    return max(times) - min(times)


@pytest.mark.parametrize(
    "skews",
    [
        pytest.param([0.0], marks=pytest.mark.full, id="true clocks"),
        pytest.param([60.0, -60.0, 0.0], id="skewed clocks"),
    ],
)
async def test_ten_processes_open_together_and_probe_together(own_server: Server, skews: list[float]) -> None:
    async with fleet(own_server.url, skews=skews, breaker={"probe_lease": 5.0}) as scene:
        workers, upstream = scene.workers, scene.upstream
        await workers.until(lambda: len({each.who for each in upstream.arrivals}) == PROCESSES, 30.0)
        await asyncio.sleep(1.0)
        before, closed_calls = scene.script_calls(), len(upstream.arrivals)
        await asyncio.sleep(4.0)
        when_closed = (scene.script_calls() - before) / (len(upstream.arrivals) - closed_calls)

        upstream.mode = "bad"
        opened = await scene.all_in("circuit_opened", 5.0)
        upstream.delay = 0.3  # all who want to probe have asked before the first probe has an outcome
        await workers.until(lambda: len(generations(workers, "circuit_half_opened")) == 5, 20.0)
        upstream.mode = "good"
        closed = await scene.all_in("circuit_closed", 5.0)
        await asyncio.sleep(0.5)
        await workers.stop()
        probes = Counter(each.what for each in upstream.arrivals if not each.what.startswith("closed"))
        done = workers.events("done")
        calls, trips = sum(each["calls"] for each in done), scene.script_calls()
        print(
            f"\nopen in all within {1000 * spread(opened):.1f} ms, closed within {1000 * spread(closed):.1f} ms; "
            f"probes by episode {list(probes.values())}; round trips a call: closed {when_closed:.4f}, "
            f"all in {trips / calls:.4f} ({trips} for {calls} calls)"
        )
        assert set(probes.values()) == {PROBES}
        assert {int(what.split()[1]) for what in probes} == generations(workers, "circuit_half_opened")
        assert len(probes) >= 5
        assert spread(opened) <= 0.1
        assert when_closed <= 0.1
        assert trips / calls <= 0.1


def generations(workers: Workers, event: str) -> set[int]:
    return {each["generation"] for each in workers.events(event)}


@pytest.mark.parametrize("fate", ["killed", "hung", "cancelled"])
async def test_a_lost_probe_delays_recovery_by_at_most_its_lease(own_server: Server, fate: str) -> None:
    options: dict[str, Any] = {"call_timeout": 0.2} if fate == "cancelled" else {}
    async with fleet(own_server.url, 4, breaker={"probes": 1}, **options) as scene:
        workers, upstream = scene.workers, scene.upstream
        upstream.mode = "bad"
        await scene.all_in("circuit_opened", 5.0)
        await asyncio.sleep(0.1)
        upstream.arrivals.clear()
        upstream.mode = "hang"
        await workers.until(lambda: upstream.arrivals, 3.0)
        lost = upstream.arrivals[0]
        upstream.mode = "good"
        if fate == "killed":
            await workers.kill(lost.who)
        closed = await scene.all_in("circuit_closed", 5.0, after=lost.at)
        recovered = max(each["at"] for each in closed) - lost.at
        await asyncio.sleep(0.2)
        await workers.stop()
        # A probe that hangs fails when its lease ends, and the circuit opens once more; one that is cancelled says
        # nothing, and the next call is a probe.
        lease = 0.2 if fate == "cancelled" else EAGER["probe_lease"] + EAGER["open_for"] * (1 + EAGER["jitter"])
        print(f"\n{fate}: closed everywhere {recovered:.3f} s after the probe was sent, lease and open time {lease} s")
        assert recovered <= lease + 0.2
        assert len(workers.events("done")) == (3 if fate == "killed" else 4)


@pytest.mark.parametrize("shared", ["quorum", "any"])
async def test_one_sick_process_of_ten_opens_alone(own_server: Server, shared: str) -> None:
    async with fleet(own_server.url, breaker={"shared": shared}) as scene:
        workers, upstream = scene.workers, scene.upstream
        await asyncio.sleep(1.0)
        upstream.modes["worker3"] = "bad"
        await workers.until(lambda: workers.events("circuit_opened", "worker3"), 5.0)
        await asyncio.sleep(2.0)  # it probes by itself, in vain
        assert {each["who"] for each in workers.events("circuit_opened")} == {"worker3"}
        assert len(workers.events("circuit_half_opened")) >= 2
        upstream.modes.clear()
        await workers.until(lambda: workers.events("circuit_closed", "worker3"), 5.0)
        await asyncio.sleep(0.5)
        await workers.stop()
        done = workers.events("done")
        refused = {each["who"]: each["refused"] for each in done}
        assert refused.pop("worker3") > 0
        assert set(refused.values()) == {0}
        trips, calls = scene.script_calls(), sum(each["calls"] for each in done)
        print(f"\n{trips / calls:.4f} round trips a call")
        assert trips / calls <= 0.1


def _at(told: dict[str, Any]) -> float:
    at: float = told["at"]
    return at
