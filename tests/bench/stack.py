"""Five policies together: ours, every library that has all five, and the cheapest of each stacked by hand.

Then under trio, where only nopanic follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import trio

from resilience import Pipeline
from tests.bench import checks
from tests.bench.contest import OURS, Contestant, Field, Setup, work
from tests.bench.guards import stacks
from tests.bench.policies import overheads
from tests.bench.report import Bar, Report
from tests.bench.timing import Work, interleave

BARE = "bare await"
CHEAPEST = "cheapest of each by hand"


def run(size: float = 1.0) -> Report:
    """Run the benchmark: 300 samples of everything at size 1, a tenth of that to find the cheapest of each."""
    rounds = max(3, round(300 * size))
    report = Report("stack")
    admitted = asyncio.run(_on_asyncio(report, rounds))
    trio.run(_on_trio, report, admitted, rounds)
    return report


async def _on_asyncio(report: Report, rounds: int) -> dict[str, Contestant]:
    entrants = Field(report)
    cheapest = await _cheapest(entrants, max(5, rounds // 10))
    contestants = [Contestant(OURS, stacks.ours, "shipped policies, sliding window"), *stacks.PEERS]
    if cheapest:
        parts = ", ".join(each.name for each in cheapest)
        contestants.append(Contestant(CHEAPEST, stacks.by_hand([each.make for each in cheapest]), parts))
        contestants.append(stacks.POPULAR)
    admitted = await entrants.admit(contestants, checks.all_five)
    ours = stacks.ours(Setup())
    works = {BARE: work} | {name: each.make(Setup())(work) for name, each in admitted.items()}
    works[OURS] = ours(work)
    report.notes.append(f"ours is {'one generated frame' if ours.source else 'the plain path'}: {_parts(ours)}")
    times = await interleave(works, rounds)
    over = {name: found.over(times[BARE]) for name, found in times.items()}
    report.tables.append(overheads("five policies on asyncio", times, over, admitted))
    libraries = [each.name for each in stacks.PEERS if each.name in over]
    if libraries:
        fastest = min(libraries, key=lambda name: over[name])
        label = f"overhead / that of {fastest}, the fastest library"
        report.bars += [Bar(label, over[OURS] / over[fastest], 1 / 15)]
        report.bars += [Bar(f"moonshot: {label}", over[OURS] / over[fastest], 1 / 20)]
    if CHEAPEST in over:
        report.bars.append(Bar(f"overhead / that of the {CHEAPEST}", over[OURS] / over[CHEAPEST], 1 / 8))
    whole = times[OURS].median / times[BARE].median
    report.bars += [Bar("whole call / bare await", whole, 8.0), Bar("moonshot: whole call / bare await", whole, 6.5)]
    return admitted


async def _cheapest(entrants: Field, rounds: int) -> list[Contestant]:
    """The cheapest peer of each policy that guards, outermost first; empty if one policy has none."""
    chosen: list[Contestant] = []
    for policy, discipline in stacks.DISCIPLINES.items():
        peers: list[Contestant] = [each for each in discipline.CONTESTANTS if each.library != OURS]
        admitted = await entrants.admit(peers, checks.CHECKS[policy])
        if not admitted:
            return []
        times = await interleave({name: each.make(Setup())(work) for name, each in admitted.items()}, rounds)
        chosen.append(admitted[min(times, key=lambda name: times[name].median)])
    return chosen


async def _on_trio(report: Report, admitted: Mapping[str, Contestant], rounds: int) -> None:
    names = [name for name in (OURS, "nopanic") if name in admitted]
    works: dict[str, Work] = {BARE: work} | {name: admitted[name].make(Setup())(work) for name in names}
    for guarded in works.values():
        assert await guarded(7) == 7
    times = await interleave(works, rounds)
    over = {name: found.over(times[BARE]) for name, found in times.items()}
    report.tables.append(overheads("five policies on trio", times, over, admitted))
    if "nopanic" in over:
        report.bars.append(Bar("trio: overhead / that of nopanic", over[OURS] / over["nopanic"], 3 / 4))


def _parts(pipeline: Pipeline) -> str:
    return ", ".join(type(part).__name__ for part in pipeline.policies)
