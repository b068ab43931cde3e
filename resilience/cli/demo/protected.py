"""The protected callers: the standard pipeline around an httpx2 client, its limit shared through Redis.

This is all that the protection takes; the rest of the demonstration is there to watch it.
"""

from __future__ import annotations

import httpx2

from resilience import Bulkhead, CircuitBreaker, MemoryStore, Pipeline, RateLimiter, Retry, Store
from resilience_httpx import ResilientTransport

from .caller import Caller
from .child import Job, Link
from .due import DueStore, DueTransport
from .plan import ATTEMPT_TIMEOUT, BURST, PERMITS, RATE, TIMEOUT


class Protected(Caller):
    """The standard pipeline, its rate limit shared with the other processes."""

    def __init__(self, job: Job, link: Link) -> None:
        store = _store(job, link)
        self.bulkhead: Bulkhead = Bulkhead(max(1, PERMITS // job.workers), queue=8, max_wait=0.5, name="permits")
        self.circuit: CircuitBreaker = CircuitBreaker(
            count=10, minimum_calls=5, open_for=0.25, open_max=0.5, probes=2, name="circuit"
        )
        pipeline = Pipeline.standard(
            timeout=TIMEOUT,
            bulkhead=self.bulkhead,
            retry=Retry(attempts=3, name="retry"),
            breaker=self.circuit,
            limiter=RateLimiter(f"{RATE}/s", burst=BURST, max_wait=0.5, store=store, on_outage="closed", name=job.name),
            attempt_timeout=ATTEMPT_TIMEOUT,
            name="upstream",
        )
        transport = ResilientTransport(pipeline, DueTransport(trust_env=False))
        self.client: httpx2.AsyncClient = httpx2.AsyncClient(base_url=job.url, transport=transport, timeout=None)

    async def get(self) -> httpx2.Response:
        """One call through the pipeline."""
        return await self.client.get("/")

    def breaker(self) -> str:
        """The state of this process's circuit."""
        return self.circuit.state().value

    def held(self) -> int:
        """Permits of this process's bulkhead."""
        return self.bulkhead.in_use() + self.bulkhead.waiting()


def _store(job: Job, link: Link) -> Store:
    if job.redis is None:
        return MemoryStore()
    from resilience_redis import RedisStore

    # Generous, for a busy machine: this limit must hold, so calls are refused while Redis does not answer.
    return DueStore(RedisStore.from_url(job.redis, timeout=0.5), link.elapsed)
