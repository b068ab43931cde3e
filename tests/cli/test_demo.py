"""The demonstration as users run it: real servers, real processes."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import pytest

import resilience_redis.server
from resilience.cli.demo.child import Job
from resilience.cli.demo.children import ChildError, children
from resilience.cli.demo.plan import RATE
from resilience.cli.demo.run import Options, run

UPSTREAM = "resilience.cli.demo.upstream"
DEMO = [sys.executable, "-m", "resilience", "demo"]


def failures(summary: dict[str, Any]) -> list[Any]:
    return [promise for promise in summary["promises"] if not promise["kept"]]


def test_without_redis_it_says_so_and_runs_in_memory(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(resilience_redis.server.URL_VARIABLE, raising=False)
    monkeypatch.setattr(resilience_redis.server, "find_server", lambda: None)
    status = run(Options(seconds=4.0, as_json=True))
    said = capfd.readouterr()
    summary = json.loads(said.out)
    assert "No Redis" in said.err
    assert (summary["store"], summary["workers"]) == ("memory", 1)
    assert failures(summary) == []
    assert status == 0


@pytest.mark.long
def test_four_processes_share_a_limit_through_redis() -> None:
    ended = subprocess.run([*DEMO, "--seconds", "6", "--json"], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stderr == ""
    summary = json.loads(ended.stdout)
    assert (summary["store"], summary["workers"]) == ("redis", 4)
    assert failures(summary) == []
    assert ended.returncode == 0
    assert summary["unprotected"]["fullest_second"] > 2 * RATE


@pytest.mark.long
def test_people_see_every_second_and_a_summary() -> None:
    command = [*DEMO, "--seconds", "4", "--workers", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stderr == ""
    assert "1 s  " in ended.stdout
    assert "recovering   protected:" in ended.stdout
    assert "requests at the upstream" in ended.stdout
    assert "kept    the shared limit held" in ended.stdout


@pytest.mark.long
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing_behind(stop: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(resilience_redis.server.URL_VARIABLE, raising=False)
    with subprocess.Popen(
        [*DEMO, "--seconds", "8"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        redis = int(process.stdout.readline().rpartition(":")[2])
        assert "protected:" in process.stdout.readline()
        assert answers(redis)
        process.send_signal(stop)
        # The children inherited the other end of this pipe: it ends when the last of them has.
        rest, _ = process.communicate(timeout=30)
    assert rest.splitlines()[-1] == "interrupted"
    assert process.returncode == 130
    assert not answers(redis)


def test_a_child_that_cannot_start_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    async def start() -> None:
        async with children(("resilience.cli.demo.no_such_part", Job(1.0))) as [child]:
            await child.ready()

    with pytest.raises(ChildError, match="no_such_part ended before it was ready"):
        asyncio.run(start())
    assert "No module named" in capfd.readouterr().err


def test_a_child_that_breaks_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    async def start() -> None:
        async with children((UPSTREAM, Job(1.0))) as [child]:
            await child.ready()
            child._write("this is no time\n")
            async for _ in child.messages():
                pass

    with pytest.raises(ChildError, match="upstream ended with status 1"):
        asyncio.run(start())
    assert "could not convert string to float" in capfd.readouterr().err


def test_no_child_outlives_a_parent_that_was_killed() -> None:
    script = f"""
import asyncio
from resilience.cli.demo.child import Job
from resilience.cli.demo.children import children
async def main():
    async with children(({UPSTREAM!r}, Job(60.0))) as [child]:
        print((await child.ready())["url"], flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline().rpartition(":")[2])
        assert answers(port)
        parent.kill()
    deadline = time.monotonic() + 10
    while answers(port) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not answers(port)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
