"""A cache shared by processes on a real server: one run for all, whoever is cancelled or killed."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any

import pytest

from resilience_redis.server import Server


class Members:
    """Processes with a cache in common."""

    def __init__(self, url: str, prefix: str, redis: Any) -> None:
        self.url = url
        self.prefix = prefix
        self.redis = redis
        self.running: dict[str, subprocess.Popen[str]] = {}

    def start(self, count: int, callers: int, seconds: float, lease: float) -> None:
        for number in map(str, range(count)):
            command = [sys.executable, "-m", "tests.support.cache_member", self.url, self.prefix, number]
            command += [str(callers), str(seconds), str(lease)]
            self.running[number] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.until(lambda: self.number("ready") == count)
        self.redis.set(f"{self.prefix}:go", 1)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def number(self, name: str) -> int:
        return int(self.redis.get(f"{self.prefix}:{name}") or 0)

    def leader_of(self, run: int) -> str:
        """Which process began that run, once it has."""
        self.until(lambda: self.number("begun") == run)
        time.sleep(0.05)
        leader: bytes = self.redis.get(f"{self.prefix}:leader")
        return leader.decode()

    def replies(self) -> list[Any]:
        found = [process.communicate(timeout=60)[0] for process in self.running.values()]
        return [json.loads(reply) for reply in found if reply]


@pytest.fixture
def members(redis_server: Server, redis_prefix: str, plain_redis: Any) -> Generator[Members]:
    members = Members(redis_server.url, redis_prefix, plain_redis)
    try:
        yield members
    finally:
        for process in members.running.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.communicate()


def added(replies: list[dict[str, int]]) -> dict[str, int]:
    """How many callers got which value."""
    total: Counter[str] = Counter()
    for reply in replies:
        total.update(reply)
    return total


def test_ten_thousand_misses_in_four_processes_are_one_run(members: Members) -> None:
    """In each process the ten first callers are cancelled, one after another, while the run goes on."""
    members.start(4, callers=2500, seconds=2.5, lease=10)
    replies = members.replies()
    assert added(replies) == {"1": 10_000, "cancelled": 40}
    assert (members.number("begun"), members.number("completed")) == (1, 1)


@pytest.mark.full
def test_the_leading_process_is_cancelled_ten_times(members: Members) -> None:
    """Fourteen processes, 10,010 callers; ten times all callers of the one that runs for the others give up."""
    members.start(14, callers=715, seconds=4, lease=10)
    for run in range(1, 11):
        members.redis.set(f"{members.prefix}:quit", members.leader_of(run))
    replies = members.replies()
    assert replies.count("given up") == 10
    assert added([reply for reply in replies if reply != "given up"]) == {"11": 4 * 715, "cancelled": 40}
    assert (members.number("begun"), members.number("completed")) == (11, 1)


def test_a_leading_process_that_is_killed_is_replaced_when_its_lease_ends(members: Members) -> None:
    lease = 1.0
    members.start(3, callers=100, seconds=1.5, lease=lease)
    members.running[members.leader_of(1)].kill()
    killed = time.monotonic()
    members.leader_of(2)
    waited = time.monotonic() - killed
    print(f"replaced {waited:.2f} s after it was killed, with a lease of {lease:g} s")
    assert waited < lease + 1.0
    assert added(members.replies()) == {"2": 200, "cancelled": 20}
    assert (members.number("begun"), members.number("completed")) == (2, 1)
