"""The callers: one process that calls the upstream at the planned rate, with or without protection.

Calls begin when the plan says so, whatever became of the earlier ones (an open loop, as users are). The
unprotected callers are what one finds in the wild: a client with a timeout that tries again, at once.
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx2

from resilience import Bulkhead, CircuitBreaker, MemoryStore, Pipeline, RateLimiter, RejectedError, Retry, Store
from resilience_httpx import ResilientTransport

from .child import Job, Link, run_child
from .due import DueStore, DueTransport
from .plan import ATTEMPT_TIMEOUT, BURST, NAIVE_RETRIES, PERMITS, RATE, TIMEOUT

REPORT_EVERY = 0.25


class Caller(ABC):
    """How one kind of process calls the upstream."""

    client: httpx2.AsyncClient

    @abstractmethod
    async def get(self) -> httpx2.Response:
        """One call, as the application sees it."""

    def breaker(self) -> str | None:
        """The state of the circuit."""
        return None

    def held(self) -> int:
        """Permits in use or waited for."""
        return 0

    async def __aenter__(self) -> Caller:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()


class Naive(Caller):
    """A timeout, and retries at once."""

    def __init__(self, job: Job) -> None:
        self.client = httpx2.AsyncClient(base_url=job.url, timeout=ATTEMPT_TIMEOUT, trust_env=False)

    async def get(self) -> httpx2.Response:
        """Try until it works or the retries are used up."""
        for _ in range(NAIVE_RETRIES):
            with suppress(httpx2.TransportError):
                response = await self.client.get("/")
                if response.status_code < 500:
                    return response
        return await self.client.get("/")


class Protected(Caller):
    """The standard pipeline, its rate limit shared with the other processes."""

    def __init__(self, job: Job, link: Link) -> None:
        store = DueStore(_store(job), link.elapsed)
        self.bulkhead = Bulkhead(max(1, PERMITS // job.workers), queue=8, max_wait=0.5, name="permits")
        self.circuit = CircuitBreaker(count=10, minimum_calls=5, open_for=0.25, open_max=0.5, probes=2, name="circuit")
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
        self.client = httpx2.AsyncClient(base_url=job.url, transport=transport, timeout=None)

    async def get(self) -> httpx2.Response:
        """One call through the pipeline."""
        return await self.client.get("/")

    def breaker(self) -> str:
        """The state of this process's circuit."""
        return self.circuit.state().value

    def held(self) -> int:
        """Permits of this process's bulkhead."""
        return self.bulkhead.in_use() + self.bulkhead.waiting()


class Answers:
    """What became of the calls since the last report: when each began, how long it took, what it was."""

    def __init__(self, caller: Caller, link: Link) -> None:
        self._caller, self._link = caller, link
        self._new: list[tuple[float, float, str]] = []

    async def call(self) -> None:
        """Make one call and note what became of it."""
        began = self._link.elapsed()
        kind = await self._kind()
        self._new.append((round(began, 4), round(self._link.elapsed() - began, 4), kind))

    def flush(self) -> None:
        """Report to the parent."""
        self._link.tell(answers=self._new, breaker=self._caller.breaker())
        self._new.clear()

    async def flush_forever(self) -> None:
        """Report regularly."""
        while True:
            await asyncio.sleep(REPORT_EVERY)
            self.flush()

    async def _kind(self) -> str:
        try:
            response = await self._caller.get()
        except RejectedError:
            return "rejected"
        except (TimeoutError, httpx2.TimeoutException):
            return "timeout"
        except httpx2.TransportError:
            return "error"
        return "good" if response.status_code == 200 else "error"


async def work(job: Job, link: Link) -> None:
    """Begin calls as planned, wait for the last answers, say what is still held."""
    async with Protected(job, link) if job.protected else Naive(job) as caller:
        await link.begin()
        answers = Answers(caller, link)
        reporting = asyncio.create_task(answers.flush_forever())
        async with asyncio.TaskGroup() as calls:
            async for _ in arrivals(job, link):
                calls.create_task(answers.call())
        reporting.cancel()
        answers.flush()
        link.tell(held=caller.held())


async def arrivals(job: Job, link: Link) -> AsyncIterator[float]:
    """The moments at which calls begin: a Poisson process, the same for both kinds of callers."""
    draw = random.Random(job.index)
    at = 0.0
    while True:
        at += draw.expovariate(job.plan.load_at(at) / job.workers)
        if at >= job.seconds:
            return
        await link.until(at)
        yield at


def _store(job: Job) -> Store:
    if job.redis is None:
        return MemoryStore()
    from resilience_redis import RedisStore

    # Generous, for a busy machine: this limit must hold, so calls are refused while Redis does not answer.
    return RedisStore.from_url(job.redis, timeout=0.5)


if __name__ == "__main__":
    run_child(work)
