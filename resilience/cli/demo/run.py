"""The demonstration itself: start, begin, watch, end, judge."""

from __future__ import annotations

import asyncio
import json
import signal
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, replace

from rich.console import Console

from .child import Job
from .children import GRACE, Child, ChildError, children
from .live import View, live
from .plan import Plan
from .redis_server import NoRedisError, redis_server
from .report import Summary, print_summary, summarize
from .tally import Tally

UPSTREAM, WORKER = "resilience.cli.demo.upstream", "resilience.cli.demo.worker"

LEAD = 0.3
"""Seconds between the word to begin and the beginning, so that everybody has heard it."""

OVERTIME = 20.0
"""Seconds after the planned end at which workers that are still busy are given up."""

REFRESH = 0.25


@dataclass(frozen=True, slots=True)
class Options:
    """What the user chose."""

    seconds: float = 16.0
    workers: int = 4
    redis: str | None = None
    as_json: bool = False


def run(options: Options) -> int:
    """Run the demonstration and print its summary; returns the exit status of the command."""
    console = Console(stderr=options.as_json)
    try:
        with redis_server(options.redis) as url:
            if url is None:
                console.print("No Redis here, so nothing is shared: one process of each kind, limits in its memory.")
            elif not options.as_json:
                console.print(f"{options.workers} callers of each kind; they share a limit at {url}", soft_wrap=True)
            summary = asyncio.run(_interruptible(options, url, console))
    except (NoRedisError, ChildError) as error:
        console.print(f"resilience demo: {error}", highlight=False)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("interrupted")
        return 130
    if options.as_json:
        print(json.dumps(summary, indent=2))
    else:
        print_summary(console, summary)
    return 0 if summary["kept"] else 1


async def _interruptible(options: Options, url: str | None, console: Console) -> Summary:
    """A polite end on SIGTERM too; on SIGINT asyncio cancels us by itself."""
    task = asyncio.current_task()
    assert task is not None
    with suppress(NotImplementedError, RuntimeError):  # not on Windows, not in a thread
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await _demonstrate(options, url, console)


async def _demonstrate(options: Options, url: str | None, console: Console) -> Summary:
    plan, workers = Plan(options.seconds), options.workers if url else 1
    protected, unprotected = tallies = Tally("protected"), Tally("unprotected")
    job = Job(plan.seconds, workers=workers, redis=url, name=f"demo-{uuid.uuid4().hex[:8]}")
    async with children((UPSTREAM, job), (UPSTREAM, job)) as upstreams:
        urls = [(await upstream.ready())["url"] for upstream in upstreams]
        jobs = [
            replace(job, url=url, protected=tally is protected, index=index)
            for url, tally in zip(urls, tallies, strict=True)
            for index in range(workers)
        ]
        async with children(*((WORKER, each) for each in jobs)) as callers:
            for caller in callers:
                await caller.ready()
            whose = dict(zip(upstreams, tallies, strict=True))
            for caller, each in zip(callers, jobs, strict=True):
                whose[caller] = protected if each.protected else unprotected
            with live(console, plan, tallies, quiet=options.as_json) as view:
                await _watch(plan, upstreams, callers, whose, view)
    return summarize(plan, protected, unprotected, store="redis" if url else "memory", workers=workers)


async def _watch(
    plan: Plan, upstreams: list[Child], callers: list[Child], whose: dict[Child, Tally], view: View
) -> None:
    """Begin, and take in what the children tell until the last caller has its last answer."""
    began = time.monotonic() + LEAD
    for child in whose:
        child.begin(began)
    reading = {child: asyncio.create_task(_read(child, tally)) for child, tally in whose.items()}
    calling = [reading[caller] for caller in callers]
    try:
        while not all(task.done() for task in calling):
            await asyncio.wait(calling, timeout=REFRESH)
            for task in reading.values():
                if task.done():
                    task.result()  # raises what went wrong
            elapsed = time.monotonic() - began
            if elapsed > plan.seconds + OVERTIME:
                raise ChildError(f"workers were still busy {OVERTIME:g} s after the end")
            view.show(elapsed)
        for upstream in upstreams:
            upstream.release()
        _, late = await asyncio.wait(reading.values(), timeout=GRACE)
        if late:
            raise ChildError(f"upstreams were still busy {GRACE:g} s after the last call")
    finally:
        for task in reading.values():
            task.cancel()
        await asyncio.wait(reading.values())


async def _read(child: Child, tally: Tally) -> None:
    async for message in child.messages():
        tally.add(message, child.pid)
