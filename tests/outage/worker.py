"""One of several processes whose policies share their state in a store that is about to have an accident.

python -m tests.outage.worker NAME '{"kind": "one", "ports": [6379], "prefix": "test"}'

Calls under every kind of policy, all the time, without any work to do; on the end of its input it prints what became of
every call: when it began, how long it took, and what it raised.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry as RedisRetry
from redis.backoff import NoBackoff

from resilience import Backoff, Bulkhead, CircuitBreaker, RateLimiter, RejectedError, Retry
from resilience.events import Event
from resilience.policy import Policy
from resilience_redis import RedisStore
from tests.support.sentinels import NAME

PAUSES = {"strict": 0.01, "leased": 0.005, "breaker": 0.01, "bulkhead": 0.02, "retry": 0.02}
"""Seconds between two calls under a policy."""

RATE, BURST = 100, 10
"""Of the limiters: four processes ask for four and eight times as much."""

SURPLUS = 0.2


def client_of(kind: str, ports: list[int]) -> Any:
    """The client of a user, who has switched retries off as the store demands."""
    once: dict[str, Any] = {"retry": RedisRetry(NoBackoff(), 0)}
    module: Any = redis.asyncio
    if kind == "cluster":
        return module.RedisCluster(
            startup_nodes=[module.cluster.ClusterNode("127.0.0.1", port) for port in ports], **once
        )
    if kind == "sentinels":
        finder = module.Sentinel([("127.0.0.1", port) for port in ports], socket_timeout=1.0)
        return finder.master_for(NAME, **once)
    return module.Redis(host="127.0.0.1", port=ports[0], **once)


class Worker:
    """The callers of one process."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.calls: dict[str, list[tuple[float, float, str]]] = {name: [] for name in PAUSES}
        self.switches: list[tuple[float, str, str]] = []
        self.lags: list[tuple[float, float]] = []
        self.ended = asyncio.Event()

    async def run(self) -> None:
        plan = self.plan
        client = client_of(plan["kind"], plan["ports"])
        async with RedisStore(client, prefix=plan["prefix"]) as store:
            policies = self.policies(store)
            works: dict[str, Callable[[], Awaitable[None]]] = dict.fromkeys(policies, nothing)
            works["bulkhead"], works["retry"] = a_moment, Stumbling()
            async with asyncio.TaskGroup() as group:
                for name, policy in policies.items():
                    group.create_task(self.caller(name, policy, works[name]))
                group.create_task(self.watch())
                print(json.dumps({"event": "ready"}), flush=True)
                await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
                self.ended.set()
        await client.aclose()
        told = {"calls": self.calls, "switches": self.switches, "lags": self.lags}
        print(json.dumps({"event": "done", **told}), flush=True)

    def policies(self, store: RedisStore) -> dict[str, Policy]:
        shared: dict[str, Any] = {"store": store, "listeners": [self.hear]}
        limit: dict[str, Any] = {"burst": BURST, "max_wait": 0, **shared}
        return {
            "strict": RateLimiter(f"{RATE}/s", name="strict", **limit),
            "leased": RateLimiter(f"{RATE}/s", name="leased", shared="leased", surplus=SURPLUS, **limit),
            "breaker": CircuitBreaker(name="breaker", **shared),
            "bulkhead": Bulkhead(4, queue=8, name="bulkhead", lease=2.0, **shared),
            "retry": Retry(2, name="retry", backoff=Backoff.none(), **shared),
        }

    def hear(self, event: Event) -> None:
        if event.kind in ("store_degraded", "store_recovered"):
            self.switches.append((time.monotonic(), event.policy, event.kind))

    async def caller(self, name: str, policy: Policy, work: Callable[[], Awaitable[None]]) -> None:
        calls, pause = self.calls[name], PAUSES[name]
        while not self.ended.is_set():
            began = time.monotonic()
            try:
                await policy.call(work)
                became = "ok"
            except RejectedError:
                became = "refused"
            except Exception as error:
                became = repr(error)
            calls.append((began, time.monotonic() - began, became))
            await asyncio.sleep(pause)

    async def watch(self) -> None:
        """Note when this process was kept from running by others, which is not the store's doing."""
        while not self.ended.is_set():
            began = time.monotonic()
            await asyncio.sleep(0.002)
            if (lag := time.monotonic() - began - 0.002) > 0.003:
                self.lags.append((began, lag))


async def nothing() -> None:
    """Work that takes no time."""


async def a_moment() -> None:
    """Work that takes five milliseconds."""
    await asyncio.sleep(0.005)


class Stumbling:
    """Work that fails every other time."""

    def __init__(self) -> None:
        self.tries = 0

    async def __call__(self) -> None:
        self.tries += 1
        if self.tries % 2:
            raise ConnectionError("try again")


if __name__ == "__main__":
    asyncio.run(Worker(json.loads(sys.argv[2])).run())
