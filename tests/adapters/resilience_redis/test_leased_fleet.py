"""Leased limits used by eight processes: the bound in every window, the rate, and the round trips."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, NamedTuple

import pytest

from resilience.machines.leased_slice import INTERVAL
from resilience_redis.scripts import script_for, script_of
from resilience_redis.server import Server
from tests.support.leased_world import excess
from tests.support.redis import sync_client

pytestmark = pytest.mark.long

PROCESSES = 8
SURPLUS = 0.05


def scripts_run(client: Any) -> int:
    stats = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))


class Fleet(NamedTuple):
    calls: int
    admitted: list[float]
    shares: list[int]
    scripts: int
    began: float

    def until(self, seconds: float) -> int:
        return sum(each <= self.began + seconds for each in self.admitted)


def hammered(server: Server, *numbers: object) -> Fleet:
    """Processes that ask as evenly as they can."""
    with sync_client(server.url) as admin:
        for algorithm in ("gcra", "token_bucket"):
            admin.script_load(script_for(algorithm).source)
            admin.script_load(script_of("_prelude", algorithm, "_limits", "leased").source)
        before = scripts_run(admin)
        command = [sys.executable, "-m", "tests.support.leased_hammer", server.url, "fleet", *map(str, numbers)]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)]
        replies = [json.loads(process.communicate(timeout=60)[0]) for process in running]
        scripts = scripts_run(admin) - before
    admitted = sorted(moment for each in replies for moment in each["admitted"])
    return Fleet(
        sum(each["calls"] for each in replies),
        admitted,
        [len(each["admitted"]) for each in replies],
        scripts,
        min(each["first"] for each in replies),
    )


@pytest.mark.parametrize(
    ("algorithm", "burst", "max_wait"),
    [
        ("gcra", 400, 0.0),
        ("token_bucket", 10_000, 0.0),
        pytest.param("gcra", 400, 0.5, marks=pytest.mark.full),
        pytest.param("gcra", 1000, 0.0, marks=pytest.mark.full),
        pytest.param("gcra", 10_000, 0.0, marks=pytest.mark.full),
        pytest.param("token_bucket", 400, 0.0, marks=pytest.mark.full),
    ],
)
def test_eight_processes_at_three_times_overload(
    own_server: Server, algorithm: str, burst: float, max_wait: float
) -> None:
    rate, seconds = 1000.0, 5.0
    numbers = (algorithm, rate, 1.0, burst, SURPLUS, max_wait, seconds, PROCESSES, 3 * rate / PROCESSES)
    fleet = hammered(own_server, *numbers)
    worst = excess([(moment, 1.0) for moment in fleet.admitted], rate)
    in_time, theory = fleet.until(seconds), min(fleet.calls, burst + rate * seconds)
    print(
        f"{algorithm}, burst {burst}, max_wait {max_wait}: {in_time} of {theory:.0f} ({in_time / theory:.1%}), worst "
        f"window {worst:.1f} of {burst + SURPLUS * rate:.0f} + rate * W, {fleet.scripts / len(fleet.admitted):.3f} "
        f"round trips per admitted call, shares {min(fleet.shares)} to {max(fleet.shares)}"
    )
    assert worst <= burst + SURPLUS * rate
    assert in_time >= 0.97 * theory
    assert fleet.scripts <= 0.15 * len(fleet.admitted)


@pytest.mark.parametrize("burst", [400, *(pytest.param(burst, marks=pytest.mark.full) for burst in (50, 1000, 10_000))])
def test_eight_processes_at_30_percent(own_server: Server, burst: float) -> None:
    rate, seconds = 1000.0, 5.0
    numbers = ("gcra", rate, 1.0, burst, SURPLUS, 0.0, seconds, PROCESSES, 0.3 * rate / PROCESSES)
    fleet = hammered(own_server, *numbers)
    print(f"burst {burst}: {len(fleet.admitted)} of {fleet.calls}, {fleet.scripts} scripts")
    assert len(fleet.admitted) >= 0.95 * fleet.calls, "strict admits all of them"
    assert excess([(moment, 1.0) for moment in fleet.admitted], rate) <= burst + SURPLUS * rate


def test_a_limit_too_small_for_the_fleet_is_exact(own_server: Server) -> None:
    rate, burst, seconds = 10.0, 10.0, 5.0
    numbers = ("gcra", rate, 1.0, burst, SURPLUS, 0.0, seconds, PROCESSES, 3 * rate / PROCESSES)
    fleet = hammered(own_server, *numbers)
    print(f"{len(fleet.admitted)} admitted, {fleet.scripts} scripts for {fleet.calls} calls")
    assert 0.9 * 60 <= len(fleet.admitted) <= 60
    assert fleet.scripts <= fleet.calls + PROCESSES * (seconds / INTERVAL)
