"""A Redis Cluster, whose servers know each other and their slots before they start.

with cluster(masters=3, replicas=1) as it:
    it.master_of("key").kill()
    it.wait_until_healthy()
    it.move(it.slot_of("key"), another_master)
"""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from resilience_redis.server import CLUSTER_BUS
from tests.support.servers import CLUSTER_FILE, Node, stopped_node, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

SLOTS = 16384


class Cluster:
    """Its servers: masters first, then their replicas in the same order, as often as there are."""

    def __init__(self, nodes: list[Node], masters: int) -> None:
        self.nodes = nodes
        self.names = {each.port: secrets.token_hex(20) for each in nodes}
        self._masters = masters

    @contextlib.asynccontextmanager
    async def client(self, **options: Any) -> AsyncGenerator[Any]:
        """The user's client; it never repeats a command."""
        make: Any = redis.asyncio.RedisCluster
        client = make(host="127.0.0.1", port=self.alive()[0].port, **({"retry": Retry(NoBackoff(), 0)} | options))
        try:
            yield client
        finally:
            await client.aclose()

    def alive(self) -> list[Node]:
        """Those that were not killed."""
        return [each for each in self.nodes if each.pid]

    def slot_of(self, key: str) -> int:
        """Where a key belongs."""
        with self.alive()[0].client() as admin:
            return int(admin.execute_command("CLUSTER", "KEYSLOT", key))

    def master_of(self, slot: int | str) -> Node:
        """Who serves a slot, or that of a key, as a live server sees it."""
        wanted = slot if isinstance(slot, int) else self.slot_of(slot)
        for port, line in self._view(self.alive()[0]).items():
            for first, last in _ranges(line):
                if first <= wanted <= last:
                    return self._at(port)
        raise LookupError(f"nobody serves slot {wanted}")

    def masters(self) -> list[Node]:
        """Those that serve slots now."""
        return [self._at(port) for port, line in self._view(self.alive()[0]).items() if _ranges(line)]

    def move(self, slot: int, target: Node) -> None:
        """Give a slot with all its keys to another master."""
        self.begin_move(slot, target)
        self.move_keys(slot, target)
        self.finish_move(slot, target)

    def begin_move(self, slot: int, target: Node) -> None:
        """From now on the new owner is asked for keys that the old one does not have."""
        source = self.master_of(slot)
        self._set_slot(target, slot, "IMPORTING", self.names[source.port])
        self._set_slot(source, slot, "MIGRATING", self.names[target.port])

    def move_keys(self, slot: int, target: Node) -> None:
        """Bring over the keys of a slot that is moving."""
        with self.master_of(slot).client() as admin:
            while keys := admin.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                admin.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)

    def finish_move(self, slot: int, target: Node) -> None:
        """Tell all masters who owns the slot, the new one first."""
        others = [each for each in self.masters() if each is not target]
        for each in (target, *others):
            self._set_slot(each, slot, "NODE", self.names[target.port])

    def wait_until_healthy(self) -> None:
        """Wait until all who are alive agree that every slot is served, and replicas are in sync."""
        wait_until("the cluster is healthy", self._is_healthy)

    def configuration(self, index: int) -> str:
        """The file of one of them."""
        lines: list[str] = []
        for other, each in enumerate(self.nodes):
            master = other % self._masters
            flags = "master -" if other < self._masters else f"slave {self.names[self.nodes[master].port]}"
            slots = f"{SLOTS * master // self._masters}-{SLOTS * (master + 1) // self._masters - 1}"
            lines.append(
                f"{self.names[each.port]} 127.0.0.1:{each.port}@{each.port + CLUSTER_BUS} "
                f"{'myself,' if other == index else ''}{flags} 0 0 {master + 1} connected "
                f"{slots if other < self._masters else ''}".rstrip()
            )
        return "\n".join([*lines, f"vars currentEpoch {self._masters} lastVoteEpoch 0", ""])

    def _is_healthy(self) -> bool:
        try:
            return all(map(self._sees_all_well, self.alive()))
        except RedisError:
            return False

    def _sees_all_well(self, each: Node) -> bool:
        with each.client() as admin:
            state = admin.cluster("INFO")
            replication = admin.info("replication")
        if state["cluster_state"] != "ok" or int(state["cluster_slots_ok"]) != SLOTS:
            return False
        if replication["role"] == "slave" and replication["master_link_status"] != "up":
            return False
        failed = {port for port, line in self._view(each).items() if "fail" in line["flags"]}
        return not failed & {other.port for other in self.alive()}

    def _view(self, each: Node) -> dict[int, dict[str, Any]]:
        with each.client() as admin:
            lines: dict[str, dict[str, Any]] = admin.cluster("NODES")
        return {int(address.rpartition(":")[2]): line for address, line in lines.items()}

    def _set_slot(self, each: Node, slot: int, *words: str) -> None:
        with each.client() as admin:
            admin.execute_command("CLUSTER", "SETSLOT", slot, *words)

    def _at(self, port: int) -> Node:
        return next(each for each in self.nodes if each.port == port)


@contextlib.contextmanager
def cluster(masters: int = 3, replicas: int = 0, node_timeout: float = 1.0) -> Generator[Cluster]:
    """A healthy cluster; after `node_timeout` seconds of silence a server is taken to be away."""
    options = ["--cluster-enabled", "yes", "--cluster-config-file", CLUSTER_FILE]
    options += ["--cluster-node-timeout", f"{node_timeout * 1000:.0f}", "--cluster-replica-validity-factor", "0"]
    with contextlib.ExitStack() as running:
        nodes = [running.enter_context(stopped_node(*options)) for _ in range(masters * (1 + replicas))]
        it = Cluster(nodes, masters)
        for index, each in enumerate(nodes):
            (each.folder / CLUSTER_FILE).write_text(it.configuration(index))
            each.start()
        it.wait_until_healthy()
        yield it


def _ranges(line: dict[str, Any]) -> list[tuple[int, int]]:
    return [(int(first_and_last[0]), int(first_and_last[-1])) for first_and_last in line["slots"]]
