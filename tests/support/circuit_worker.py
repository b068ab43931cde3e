"""One of several processes that share a circuit breaker: calls a dependency all the time and tells what happens.

python -m tests.support.circuit_worker NAME '{"url": ..., "prefix": ..., "port": ..., "breaker": {...}}'

Prints a line of JSON when it is ready and for every event, and on the end of its input how many calls it has made.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from resilience import CircuitBreaker, clock
from resilience.events import CallRejected, Event
from resilience_redis import RedisStore
from tests.support.upstream import ask

true_time = time.monotonic


def skew(seconds: float) -> None:
    """Move both clocks of this process, which nothing may depend on."""
    monotonic, wall = time.monotonic, time.time
    clock.now = lambda: monotonic() + seconds
    time.time = lambda: wall() + seconds


class Worker:
    """Several callers behind one breaker."""

    def __init__(self, name: str, plan: dict[str, Any]) -> None:
        self.name, self.plan = name, plan
        self.calls = self.refused = 0

    def tell(self, **what: Any) -> None:
        print(json.dumps({"at": true_time(), **what}), flush=True)

    async def run(self) -> None:
        plan = self.plan
        # A generous deadline: two cores serve ten processes and the server here.
        async with RedisStore.from_url(plan["url"], prefix=plan["prefix"], timeout=plan.get("timeout", 5.0)) as store:
            self.breaker = CircuitBreaker(name="db", store=store, listeners=[self.hear], **plan["breaker"])
            self.tell(event="ready")
            async with asyncio.TaskGroup() as group:
                callers = [group.create_task(self.call()) for _ in range(plan.get("callers", 5))]
                await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
                for caller in callers:
                    caller.cancel()
            self.tell(event="done", calls=self.calls, refused=self.refused)

    async def call(self) -> None:
        rest, timeout = self.plan.get("rest", 0.0), self.plan.get("call_timeout")
        while True:
            self.calls += 1
            try:
                async with asyncio.timeout(timeout):
                    outcome = await self.breaker.outcome(self.request)
            except TimeoutError:  # cancelled by the caller, which the breaker cannot know the reason of
                continue
            if outcome.rejected:
                self.refused += 1
                await asyncio.sleep(0.005)
            await asyncio.sleep(rest)

    async def request(self) -> None:
        """Ask, and say in which state of the circuit the call was let through."""
        state = self.breaker.metrics()
        await ask(self.plan["port"], f"{self.name} {state.state.value} {state.generation}")

    def hear(self, event: Event) -> None:
        if not isinstance(event, CallRejected):
            self.tell(event=event.kind, generation=getattr(event, "generation", 0))


if __name__ == "__main__":
    _plan: dict[str, Any] = json.loads(sys.argv[2])
    if "skew" in _plan:
        skew(_plan["skew"])
    asyncio.run(Worker(sys.argv[1], _plan).run())
