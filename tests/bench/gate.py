"""The regression gate of the fast path: `python -m tests.bench.gate`, exit code 1 if a call has become dearer.

It counts the bytecode instructions of one undisturbed call, and the calls into C, and compares the sum with that
of the same five policies written by hand into one function. No clock is read, so a busy machine changes nothing:
the same code on the same Python gives the same figures every time. It also refuses any frame of anyio or asyncio.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from types import FrameType
from typing import Any

from rich.console import Console

from resilience import clock
from tests.bench.contest import Setup, work
from tests.bench.guards import stacks
from tests.bench.report import Bar
from tests.bench.timing import Work

LIMITS = {
    "timeout": 0.0,
    "bulkhead": 0.0,
    "retry": 0.0,
    "breaker": 0.0,
    "limiter": 0.0,
    "stack": 0.0,
}
"""Steps of a call, at most, as multiples of those of `by_hand`: a tenth above what they were when last lowered."""

FOREIGN = ("anyio", "asyncio", "trio", "sniffio")


@dataclass(slots=True)
class Trace:
    """What one call did."""

    instructions: int = 0
    calls_into_c: int = 0
    modules: set[str] = field(default_factory=set[str])

    @property
    def steps(self) -> int:
        """The cost that is compared."""
        return self.instructions + self.calls_into_c


def main() -> int:
    """Count, compare, print; 1 if anything is above its limit."""
    console = Console()
    bars, foreign = asyncio.run(measure())
    for bar in bars:
        mark = "ok    " if bar.holds else "DEARER"
        console.print(f"{mark} {bar.bar}: {bar.value:.3f} (limit {bar.limit:.3f})", highlight=False)
    for name, modules in foreign.items():
        console.print(f"FOREIGN {name} runs code of {', '.join(sorted(modules))}", highlight=False)
    return 0 if all(bar.holds for bar in bars) and not foreign else 1


async def measure() -> tuple[list[Bar], dict[str, set[str]]]:
    """The bars, and the modules outside of the library that undisturbed calls went through."""
    real = clock.now
    # A clock that ticks by itself, and without a frame of Python.
    clock.now = count(1000.0, 0.001).__next__
    try:
        reference = await trace(by_hand())
        guards: dict[str, Work] = {name: each.ours(Setup())(work) for name, each in stacks.DISCIPLINES.items()}
        guards["stack"] = stacks.ours(Setup())(work)
        traces = {name: await trace(guarded) for name, guarded in guards.items()}
    finally:
        clock.now = real
    bars = [Bar(f"{name}, steps / by hand", traces[name].steps / reference.steps, LIMITS[name]) for name in LIMITS]
    foreign = {name: {each for each in found.modules if each in FOREIGN} for name, found in traces.items()}
    return bars, {name: modules for name, modules in foreign.items() if modules}


async def trace(guarded: Callable[[int], Awaitable[Any]]) -> Trace:
    """Follow one call, after enough others that everything is settled."""
    for _ in range(300):
        await guarded(1)
    found = Trace()

    def on_instruction(frame: FrameType, event: str, argument: object) -> Any:
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            found.modules.add(str(frame.f_globals.get("__name__", "")).partition(".")[0])
        elif event == "opcode":
            found.instructions += 1
        return on_instruction

    def on_call(frame: FrameType, event: str, argument: object) -> None:
        found.calls_into_c += event == "c_call"

    before = sys.gettrace(), sys.getprofile()
    sys.settrace(on_instruction)
    try:
        await guarded(1)
    finally:
        sys.settrace(before[0])
    sys.setprofile(on_call)
    try:
        await guarded(1)
    finally:
        sys.setprofile(before[1])
    found.calls_into_c -= 1  # that of setprofile itself
    return found


def by_hand() -> Work:
    """Timeout, bulkhead, retry, breaker and limiter for one function, as short as they can be written."""
    live: dict[object, float] = {}
    window: deque[int] = deque([0] * 100, 100)
    state = {"arrival": 0.0, "inside": 0, "failures": 0}
    task = asyncio.current_task()

    async def guarded(order: int) -> object:
        moment = clock.now()
        arrival = state["arrival"]
        if arrival - moment > 1.0 or state["inside"] >= 64 or state["failures"] >= 50 or task in live:
            raise RuntimeError("not the ordinary case")
        state["arrival"] = (arrival if arrival > moment else moment) + 0.000001
        state["inside"] += 1
        live[task] = moment
        try:
            result = await work(order)
        except Exception:
            state["failures"] += 1
            raise
        finally:
            del live[task]
            state["inside"] -= 1
        state["failures"] -= window[0]
        window.append(0)
        return result

    return guarded


if __name__ == "__main__":
    sys.exit(main())
