"""Sentinels that watch a master and its replicas, and make a replica the master when it is gone.

with node() as master, replica_of(master) as replica, sentinels(master, [replica]) as watch:
    master.kill()
    watch.wait_for_another_master()
"""

from __future__ import annotations

import contextlib
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from resilience_redis.server import free_port, guarded, need_server, wait_until_it_answers
from tests.support.redis import sync_client
from tests.support.servers import PATIENCE, Node, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Sequence

NAME = "main"
"""What the Sentinels call the master."""


class Sentinels:
    """Sentinels with everything they would have to find out already in their files."""

    def __init__(self, nodes: Sequence[Node], count: int, down_after: float) -> None:
        self.nodes = nodes
        self.ports = [free_port() for _ in range(count)]
        self._names = [secrets.token_hex(20) for _ in self.ports]
        self._down_after = down_after
        self._master = nodes[0]

    @property
    def master(self) -> Node:
        """The master that a majority agrees on."""
        seen = [self._master_seen_by(port) for port in self.ports]
        return max(self.nodes, key=lambda each: seen.count(each.port))

    def failover(self) -> None:
        """Order one, without a fault, and wait for it."""
        with self._client(self.ports[0]) as admin:
            admin.execute_command("SENTINEL", "FAILOVER", NAME)
        self.wait_for_another_master()

    def wait_for_another_master(self) -> None:
        """Wait until all Sentinels name one that they did not name before, and it takes writes."""
        wait_until("failover", self._moved)
        self._master = self.master

    def wait_until_ready(self) -> None:
        """Wait until every Sentinel knows the replicas and the other Sentinels, so that a failover can begin."""
        for port in self.ports:
            wait_until_it_answers(port, PATIENCE)
        wait_until("Sentinels know everybody", lambda: all(map(self._is_ready, self.ports)))

    @contextlib.asynccontextmanager
    async def client(self, **options: Any) -> AsyncGenerator[Any]:
        """The user's client of whoever is the master; it never repeats a command."""
        make: Any = redis.asyncio.Sentinel
        finder = make([("127.0.0.1", port) for port in self.ports], socket_timeout=1.0)
        client = finder.master_for(NAME, **({"retry": Retry(NoBackoff(), 0)} | options))
        try:
            yield client
        finally:
            await client.aclose()
            for each in finder.sentinels:
                await each.aclose()

    def configuration(self, index: int) -> str:
        """The file of one of them."""
        master, *replicas = self.nodes
        others = [each for each in zip(self.ports, self._names, strict=True) if each[0] != self.ports[index]]
        return "\n".join(
            [
                f"bind 127.0.0.1\nport {self.ports[index]}",
                f"sentinel myid {self._names[index]}",
                f"sentinel monitor {NAME} 127.0.0.1 {master.port} {len(self.ports) // 2 + 1}",
                f"sentinel down-after-milliseconds {NAME} {self._down_after * 1000:.0f}",
                f"sentinel failover-timeout {NAME} 5000",
                *(f"sentinel known-replica {NAME} 127.0.0.1 {each.port}" for each in replicas),
                *(f"sentinel known-sentinel {NAME} 127.0.0.1 {port} {name}" for port, name in others),
                "",
            ]
        )

    def _moved(self) -> bool:
        seen = {self._master_seen_by(port) for port in self.ports}
        if len(seen) > 1 or self._master.port in seen:
            return False
        with self.master.client() as admin:
            return bool(admin.info("replication")["role"] == "master")

    def _master_seen_by(self, port: int) -> int:
        with self._client(port) as admin:
            return int(admin.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)[1])

    def _is_ready(self, port: int) -> bool:
        with self._client(port) as admin:
            state = admin.sentinel_master(NAME)
            replicas = admin.sentinel_slaves(NAME)
        links = [each.get("master-link-status") for each in replicas]
        return int(state["num-other-sentinels"]) == len(self.ports) - 1 and links == ["ok"] * (len(self.nodes) - 1)

    def _client(self, port: int) -> Any:
        return sync_client(f"redis://127.0.0.1:{port}")


@contextlib.contextmanager
def sentinels(master: Node, replicas: Sequence[Node], count: int = 3, down_after: float = 0.5) -> Generator[Sentinels]:
    """Running Sentinels that are ready; `down_after` seconds of silence mean that a server is away."""
    watch = Sentinels([master, *replicas], count, down_after)
    with tempfile.TemporaryDirectory(prefix="resilience-") as folder, contextlib.ExitStack() as running:
        for index in range(count):
            file = Path(folder, f"{index}.conf")
            file.write_text(watch.configuration(index))
            running.enter_context(guarded(str(need_server()), str(file), "--sentinel", "--dir", folder))
        watch.wait_until_ready()
        yield watch
