"""Each policy alone: what it adds to a call that succeeds, and what a refusal costs.

Bars: no policy dearer than its cheapest peer, timeout at most 1/8 and bulkhead at most 1/3 of theirs; an open
breaker at most twice a bare exception, and as an outcome no dearer than a success.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.bench import checks
from tests.bench.contest import OURS, Contestant, Field, Setup, work
from tests.bench.guards import breaker
from tests.bench.guards.stacks import DISCIPLINES
from tests.bench.report import Bar, Report, Table
from tests.bench.timing import Times, Work, interleave

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

SHARES = {"timeout": 1 / 8, "bulkhead": 1 / 3}
"""Our overhead, at most, as a share of the cheapest peer's; 1 where nothing is said."""


def run(size: float = 1.0) -> Report:
    """Run the benchmark: 300 samples of everything at size 1."""
    rounds = max(3, round(300 * size))
    report = Report("policies")
    asyncio.run(_run(report, rounds))
    report.notes.append("a retry has no refusal, and that of a timeout takes as long as the timeout")
    return report


async def _run(report: Report, rounds: int) -> None:
    entrants = Field(report)
    for policy, discipline in DISCIPLINES.items():
        admitted = await entrants.admit(discipline.CONTESTANTS, checks.CHECKS[policy])
        await _successes(report, policy, admitted, rounds)
        if policy in ("bulkhead", "breaker", "limiter"):
            await _refusals(report, policy, admitted, rounds)
    await _open_breaker(report, rounds)


async def _successes(report: Report, policy: str, admitted: Mapping[str, Contestant], rounds: int) -> None:
    works: dict[str, Work] = {"bare await": work}
    works |= {name: contestant.make(Setup())(work) for name, contestant in admitted.items()}
    times = await interleave(works, rounds)
    over = {name: found.over(times["bare await"]) for name, found in times.items()}
    report.tables.append(overheads(f"{policy}: a call that succeeds", times, over, admitted))
    peers = {name: cost for name, cost in over.items() if name not in (OURS, "bare await")}
    if peers:
        cheapest = min(peers, key=lambda name: peers[name])
        share = SHARES.get(policy, 1.0)
        report.bars.append(Bar(f"{policy}: overhead / that of {cheapest}", over[OURS] / peers[cheapest], share))


def overheads(
    title: str, times: Mapping[str, Times], over: Mapping[str, float], admitted: Mapping[str, Contestant]
) -> Table:
    """One row for each, the cheapest first."""
    table = Table(title, ("", "median ns", "least ns", "over bare ns", "x ours", "note"), chart="over bare ns")
    for name in sorted(times, key=lambda name: over[name]):
        note = admitted[name].note if name in admitted else ""
        table.add(name, times[name].median, times[name].least, over[name], over[name] / over[OURS], note)
    return table


async def _refusals(report: Report, policy: str, admitted: Mapping[str, Contestant], rounds: int) -> None:
    """What it takes to be refused and to catch it; those that can only wait are left out."""
    refusing = {name: each for name, each in admitted.items() if "cannot refuse" not in each.note}
    async with _saturated(policy, refusing) as works:
        times = await interleave({"bare exception": _fails, **works}, rounds, raising=True)
    table = Table(
        f"{policy}: a call that is refused", ("", "median ns", "least ns", "x bare exception"), chart="median ns"
    )
    for name in sorted(times, key=lambda name: times[name].median):
        table.add(name, times[name].median, times[name].least, times[name].median / times["bare exception"].median)
    report.tables.append(table)
    if policy == "breaker":
        ratio = times[OURS].median / times["bare exception"].median
        report.bars.append(Bar("open breaker, raised / a bare exception raised and caught", ratio, 2.0))


@asynccontextmanager
async def _saturated(policy: str, contestants: Mapping[str, Contestant]) -> AsyncGenerator[dict[str, Work]]:
    """Guards in a state in which they refuse every call."""
    door = asyncio.Event()

    async def stays_or_fails(order: int) -> int:
        if policy == "bulkhead":
            await door.wait()
        if policy == "breaker":
            raise ConnectionError(order)
        return order

    setup = replace(Setup(), permits=1, rate=1, per=3600)
    works = {name: each.make(setup)(stays_or_fails) for name, each in contestants.items()}
    inside: list[asyncio.Future[object]] = []
    for guarded in works.values():
        if policy == "bulkhead":
            inside.append(asyncio.ensure_future(guarded(0)))
            await asyncio.sleep(0)
        for _ in range(setup.failures if policy == "breaker" else 1 if policy == "limiter" else 0):
            with suppress(Exception):  # some raise their own error for the failure that opens the circuit
                await guarded(0)
    try:
        for name, guarded in works.items():
            await _must_refuse(name, guarded)
        yield works
    finally:
        door.set()
        await asyncio.gather(*inside)


async def _must_refuse(name: str, guarded: Work) -> None:
    try:
        await guarded(0)
    except ConnectionError:
        raise AssertionError(f"{name} called the function") from None
    except Exception:
        return
    raise AssertionError(f"{name} did not refuse")


async def _fails(order: int) -> int:
    raise ConnectionError(order)


async def _open_breaker(report: Report, rounds: int) -> None:
    """The refusal as a value, beside a success as a value and a success of the decorated function."""
    closed, opened = breaker.ours(Setup()), breaker.ours(Setup())
    opened.isolate()
    guarded = closed(work)

    async def refused(order: int) -> object:
        return await opened.outcome(work, order)

    async def succeeded(order: int) -> object:
        return await closed.outcome(work, order)

    assert (await opened.outcome(work, 1)).rejected
    assert (await closed.outcome(work, 1)).value == 1
    times = await interleave({"refused": refused, "succeeded": succeeded, "decorated, succeeded": guarded}, rounds)
    table = Table("breaker: outcomes as values", ("", "median ns", "least ns"), chart="median ns")
    for name, found in times.items():
        table.add(name, found.median, found.least)
    report.tables.append(table)
    ratio = times["refused"].median / times["succeeded"].median
    report.bars.append(Bar("open breaker through .outcome / a success through .outcome", ratio, 1.0))
