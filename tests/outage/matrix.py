"""Four processes, five policies, one fault: what became of the calls.

python -m tests.outage.matrix [FAULT...] [--json]
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import Any

from tests.outage.faults import FAULTS, PREFIX
from tests.outage.worker import BURST, PAUSES, RATE, SURPLUS
from tests.support.workers import Workers

PROCESSES = 4
WARM, AFTER = 2.0, 4.0
"""Seconds before the fault and after its end."""

LIMITERS = ("strict", "leased")


@dataclass
class Cell:
    """One policy in one fault. Times are in seconds."""

    fault: str
    policy: str
    calls: int = 0
    longest: float = 0.0
    """The longest that a call took, less what it was kept from running by others."""
    errors: list[str] = field(default_factory=list[str])
    """What was raised although no call failed for good."""
    rate: float | None = None
    """Of a limiter: admissions a second while the store was away."""
    degraded: float = 0.0
    """How long the processes worked without the store, on average."""
    recovered: float | None = None
    """When the last process was back, after the end of the fault; None if none ever left."""
    burst: float | None = None
    """Of a limiter: the most admissions of any second after the end of the fault."""
    allowed: float | None = None
    """The most that the promise allows in a second."""


async def play(fault: str) -> list[Cell]:
    """Let the fault happen while everybody calls."""
    async with FAULTS[fault]() as stage, Workers("tests.outage.worker") as workers:
        plan = {"kind": stage.kind, "ports": stage.ports, "prefix": PREFIX}
        for index in range(PROCESSES):
            await workers.start(f"p{index}", plan)
        await asyncio.sleep(WARM)
        began = time.monotonic()
        await stage.begin()
        await asyncio.sleep(stage.lasts)
        await stage.end()
        ended = time.monotonic()
        await asyncio.sleep(AFTER)
        await workers.stop()
        told = workers.events("done")
    return [_cell(fault, policy, told, began, ended, stage.away) for policy in PAUSES]


def _cell(fault: str, policy: str, told: list[dict[str, Any]], began: float, ended: float, away: bool) -> Cell:
    cell = Cell(fault, policy)
    admitted: list[float] = []
    for each in told:
        lags = sorted((at, lag) for at, lag in each["lags"])
        for start, lasted, became in each["calls"][policy]:
            cell.calls += 1
            if start > began - WARM / 2:  # the first call of a process imports and connects
                cell.longest = max(cell.longest, lasted - _kept(lags, start, start + lasted))
            if became == "ok":
                admitted.append(start + lasted)
            elif became != "refused" or policy not in LIMITERS:
                cell.errors.append(became)
        _degradation(cell, [switch for switch in each["switches"] if switch[1] == policy], ended)
    cell.degraded /= len(told)
    if policy in LIMITERS:
        _limits(cell, sorted(admitted), began, ended, away)
    return cell


def _kept(lags: list[tuple[float, float]], start: float, end: float) -> float:
    """How long the process did not run in that time, because others did."""
    first = max(0, bisect_left(lags, (start,)) - 1)
    return sum(max(0.0, min(end, at + lag) - max(start, at)) for at, lag in lags[first : bisect_right(lags, (end,))])


def _degradation(cell: Cell, switches: list[Any], ended: float) -> None:
    since: float | None = None
    for at, _, kind in switches:
        if kind == "store_degraded":
            since = at
        elif since is not None:
            cell.degraded += at - since
            cell.recovered = max(cell.recovered or 0.0, at - ended)
            since = None
    if since is not None:
        cell.recovered = float("inf")


def _limits(cell: Cell, admitted: list[float], began: float, ended: float, away: bool) -> None:
    settled = began + 0.5  # the last of the store's own permits are used up by then
    if away and ended - settled > 1.0:
        cell.rate = (bisect_right(admitted, ended) - bisect_left(admitted, settled)) / (ended - settled)
    later = admitted[bisect_left(admitted, ended) :]
    cell.burst = max((bisect_right(later, at + 1.0) - index for index, at in enumerate(later)), default=0)
    cell.allowed = BURST + RATE * (1 + (SURPLUS if cell.policy == "leased" else 0)) + 1


def table(cells: list[Cell]) -> str:
    """The cells as lines of text."""
    head = ("fault", "policy", "calls", "longest ms", "errors", "rate/s", "back s", "burst")
    lines = ["{:22} {:9} {:>6} {:>10} {:>6} {:>7} {:>7} {:>11}".format(*head)]
    for cell in cells:
        rate = "" if cell.rate is None else f"{cell.rate:.1f}"
        back = "" if cell.recovered is None else f"{cell.recovered:.2f}"
        burst = "" if cell.burst is None else f"{cell.burst:.0f} of {cell.allowed:.0f}"
        lines.append(
            f"{cell.fault:22} {cell.policy:9} {cell.calls:6} {cell.longest * 1000:10.1f} {len(cell.errors):6} "
            f"{rate:>7} {back:>7} {burst:>11}"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Play the faults that are named, or all."""
    cells: list[Cell] = []
    for fault in [each for each in arguments if each != "--json"] or FAULTS:
        played = asyncio.run(play(fault))
        cells += played
        if "--json" not in arguments:
            print(table(played), *(sorted(set(cell.errors)) for cell in played if cell.errors), sep="\n", flush=True)
    if "--json" in arguments:
        print(json.dumps([vars(cell) for cell in cells], indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
