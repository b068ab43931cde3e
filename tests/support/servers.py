"""Real servers that tests may stop, hang, empty, fill up and start again.

    with node() as server, replica_of(server) as replica:
        server.kill()
        server.restart(empty=True)
        with server.paused(): ...

Nothing of it outlives the test, however it ends. What waits blocks: in async tests call it in a thread.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resilience_redis.server import free_port, launch, need_server, wait_until_it_answers
from tests.support.redis import sync_client

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

PATIENCE = 15.0
"""Seconds that anything may take on a busy machine."""

DURABLE = ("--appendonly", "yes", "--appendfsync", "no")
"""Options of a server that remembers after it was killed."""


CLUSTER_FILE = "nodes.conf"
"""What a server knows of its cluster; no data."""


class Node:
    """A server on a port that stays its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.pid = 0  # while it does not run
        self._options = options
        self._process = contextlib.ExitStack()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def client(self) -> Any:
        """A synchronous client, for looking behind the store's back; to be closed."""
        return sync_client(self.url)

    def start(self) -> None:
        """Run, and wait until it answers."""
        # Valkey 9.1 crashes once in many starts if others of its cluster are quicker: again, then.
        for patience in (PATIENCE / 5, PATIENCE / 2, PATIENCE):
            running = launch(need_server(), self.port, self.folder, "--repl-diskless-sync-delay", "0", *self._options)
            self.pid = self._process.enter_context(running)
            try:
                return wait_until_it_answers(self.port, patience)
            except TimeoutError:
                self.kill()
        raise TimeoutError(f"the server on port {self.port} does not start")

    def kill(self) -> None:
        """Die without a word, as a machine does; again does nothing."""
        self.pid = 0
        self._process.close()

    def restart(self, *, empty: bool = False) -> None:
        """Die, unless that happened, and come back on the same port: as it was if it is durable, or empty."""
        self.kill()
        for each in self.folder.iterdir() if empty else ():
            if each.is_dir():
                shutil.rmtree(each)
            elif each.name != CLUSTER_FILE:
                each.unlink()
        self.start()

    def pause(self) -> None:
        """Hang: connections stay, and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Go on."""
        os.kill(self.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def paused(self) -> Generator[None]:
        """Hang for the length of a block."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    @contextlib.contextmanager
    def full(self) -> Generator[None]:
        """Have no memory left, and refuse to evict, for the length of a block."""
        with self.client() as admin:
            admin.config_set("maxmemory-policy", "noeviction")
            admin.config_set("maxmemory", "1")
            try:
                yield
            finally:
                admin.config_set("maxmemory", "0")

    def url_of_user(self, name: str, *rules: str) -> str:
        """Make a user who may do what ACL rules say; return the URL with the credentials."""
        with self.client() as admin:
            admin.execute_command("ACL", "SETUSER", name, "reset", "on", ">secret", *rules)
        return self.url.replace("redis://", f"redis://{name}:secret@")

    def replicate(self, master: Node | None) -> None:
        """Become a replica, which is read-only, or a master again."""
        with self.client() as admin:
            admin.replicaof(*("127.0.0.1", master.port) if master else ("NO", "ONE"))

    def wait_until_replicated(self, replicas: int = 1) -> None:
        """Wait until so many replicas have all that this master has."""
        with self.client() as admin:
            admin.publish("nobody", "")  # one more thing to replicate, for WAIT counts only what the client did
            assert admin.wait(replicas, int(PATIENCE * 1000)) >= replicas

    def is_in_sync(self) -> bool:
        """Whether a replica has all that its master had when it connected."""
        with self.client() as admin:
            return bool(admin.info("replication")["master_link_status"] == "up")


@contextlib.contextmanager
def node(*options: str) -> Generator[Node]:
    """A running server with these options, such as `*DURABLE`."""
    with stopped_node(*options) as server:
        server.start()
        yield server


@contextlib.contextmanager
def stopped_node(*options: str) -> Generator[Node]:
    """A server that was not started yet."""
    with tempfile.TemporaryDirectory(prefix="resilience-") as folder:
        server = Node(Path(folder), *options)
        try:
            yield server
        finally:
            server.kill()


@contextlib.contextmanager
def replica_of(master: Node, *options: str) -> Generator[Node]:
    """A running replica that has caught up."""
    with node("--replicaof", "127.0.0.1", str(master.port), *options) as server:
        wait_until("the replica caught up", server.is_in_sync)
        yield server


def wait_until(what: str, holds: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Return when something holds. Raises TimeoutError with the name of what never did."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} seconds: {what}")
        time.sleep(0.01)
