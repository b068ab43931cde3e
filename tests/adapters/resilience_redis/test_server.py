"""The server that tests and the demonstration start: found, started, and never left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from resilience_redis.server import (
    CLUSTER_BUS,
    PORTS,
    SERVER_VARIABLE,
    URL_VARIABLE,
    find_server,
    free_port,
    start_server,
)
from tests.support.redis import sync_client

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SCRIPT = """
import time
from resilience_redis.server import start_server
with start_server("--loglevel", "warning") as server:
    print(server.pid, flush=True)
    time.sleep(60)
"""


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not yet collected does not."""
    try:
        with open(f"/proc/{pid}/stat") as status:
            return status.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ended(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive(pid)


def test_a_server_lives_as_long_as_the_block() -> None:
    with start_server("--loglevel", "warning") as server:
        assert server.pid is not None
        with sync_client(server.url) as client:
            assert client.info("server")["process_id"] == server.pid
            assert client.config_get("save") == {"save": ""}
    assert ended(server.pid)


def test_a_server_dies_with_a_process_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert alive(pid)
        starter.send_signal(signal.SIGKILL)
    assert ended(pid)


def test_the_environment_names_a_running_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL_VARIABLE, "redis://elsewhere:1")
    with start_server() as server:
        assert (server.url, server.pid) == ("redis://elsewhere:1", None)


def test_a_server_on_the_path_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(SERVER_VARIABLE, raising=False)
    assert find_server() is not None
    binary = tmp_path / "valkey-server"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("shutil.which", {"valkey-server": str(binary)}.get)
    assert find_server() == binary


def test_a_server_that_does_not_answer_is_an_error() -> None:
    with pytest.raises(TimeoutError, match="did not answer in time"):
        with start_server("--no-such-option", "1", wait=0.2):
            raise AssertionError


def test_the_environment_chooses_the_executable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = find_server()
    assert real is not None
    binary = tmp_path / "redis-server"
    binary.symlink_to(real)
    monkeypatch.setenv(SERVER_VARIABLE, str(binary))
    assert find_server() == binary
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv(SERVER_VARIABLE, "redis-server")
    assert find_server() == binary


def test_an_executable_that_is_none_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(SERVER_VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"{SERVER_VARIABLE} must be the path of an executable, got {tmp_path}"):
        find_server()


def offers(*ports: int) -> Callable[[range], int]:
    left = iter(ports)
    return lambda among: next(left)


def test_ports_in_use_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (free_port() for _ in range(3))
    with socket.socket() as client, socket.socket() as bus:
        client.bind(("127.0.0.1", first))
        bus.bind(("127.0.0.1", second + CLUSTER_BUS))
        monkeypatch.setattr("random.choice", offers(first, second, third))
        assert free_port() == third
    assert {first, second, third} <= set(PORTS)


def test_a_server_that_wants_a_password_has_started() -> None:
    with start_server("--requirepass", "secret", wait=5.0) as server:
        with sync_client(server.url.replace("redis://", "redis://:secret@")) as client:
            assert client.info("server")["process_id"] == server.pid
