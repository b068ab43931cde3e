"""The upstream is a real server in a process of its own; the clock it is given puts it into any phase at once."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx2
import pytest

from resilience.cli.demo.child import Job
from resilience.cli.demo.children import Child, children
from resilience.cli.demo.plan import CONCURRENCY, DUE_HEADER, QUEUE, Plan

PLAN = Plan(400.0)
SOON = 10.0


async def until(url: str, status: int | None) -> None:
    """Ask until the answer is `status`; None: until nobody answers."""
    deadline = time.monotonic() + SOON
    while await ask(url) != status:
        assert time.monotonic() < deadline, f"no {status} in time"


async def ask(url: str, **headers: str) -> int | None:
    async with httpx2.AsyncClient(trust_env=False, timeout=SOON) as client:
        try:
            return (await client.get(url, headers=headers)).status_code
        except httpx2.TransportError:
            return None


async def reported(child: Child) -> list[Any]:
    """What arrived, as told until the end."""
    child.release()
    return [each async for message in child.messages() for each in message.get("arrivals", ())]


@pytest.mark.parametrize(
    ("phase", "status"), [("healthy", 200), ("slow", 200), ("failing", 503), ("dead", None), ("recovering", 200)]
)
def test_what_it_answers_in_each_phase(phase: str, status: int | None) -> None:
    async def visit() -> None:
        async with children(("resilience.cli.demo.upstream", Job(PLAN.seconds))) as [upstream]:
            url = (await upstream.ready())["url"]
            upstream.begin(time.monotonic() - PLAN.span(phase)[0] - 0.1)
            await until(url, status)

    asyncio.run(visit())


def test_it_counts_what_arrives_and_keeps_the_moment_of_the_permit() -> None:
    async def visit() -> list[Any]:
        async with children(("resilience.cli.demo.upstream", Job(PLAN.seconds))) as [upstream]:
            url = (await upstream.ready())["url"]
            upstream.begin(time.monotonic() - 1.0)
            assert await ask(url, **{DUE_HEADER: "0.5"}) == 200
            assert await ask(url) == 200
            return await reported(upstream)

    (first, first_due), (second, second_due) = asyncio.run(visit())
    assert 1.0 <= first < second < 1.0 + SOON
    assert (first_due, second_due) == (0.5, None)


@pytest.mark.long
def test_a_full_queue_turns_callers_away() -> None:
    async def visit() -> list[int]:
        async with children(("resilience.cli.demo.upstream", Job(PLAN.seconds))) as [upstream]:
            url = (await upstream.ready())["url"]
            upstream.begin(time.monotonic())
            limits = httpx2.Limits(max_connections=None)
            async with httpx2.AsyncClient(trust_env=False, timeout=60.0, limits=limits) as client:
                answers = await asyncio.gather(*(client.get(url) for _ in range(2 * (CONCURRENCY + QUEUE))))
            return [answer.status_code for answer in answers]

    statuses = asyncio.run(visit())
    assert statuses.count(200) >= CONCURRENCY + QUEUE
    assert statuses.count(503) == len(statuses) - statuses.count(200) > 0
