"""The callers: one process that calls the upstream at the planned rate, with or without protection.

Calls begin when the plan says so, whatever became of the earlier ones: an open loop, as users are.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import httpx2

from resilience import RejectedError

from .caller import Caller, Naive
from .child import Job, Link, run_child

REPORT_EVERY = 0.25


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
    async with _caller(job, link) as caller:
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


def _caller(job: Job, link: Link) -> Caller:
    if not job.protected:
        return Naive(job)
    from .protected import Protected  # its imports take a while: only where they are needed

    return Protected(job, link)


if __name__ == "__main__":
    run_child(work)
