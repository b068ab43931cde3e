"""Timing of coroutine functions side by side: short samples, in turns, medians.

times = await interleave({"bare": work, "ours": guarded}, rounds=300)
times["ours"].median - times["bare"].median

A shared machine changes its speed from moment to moment. So every round takes one sample of everything, in a
new order, and a comparison is the median of what was compared within the rounds.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import repeat
from statistics import median
from time import perf_counter_ns
from typing import TypeAlias

Work: TypeAlias = Callable[[int], Awaitable[object]]
"""What is timed: it gets one argument, as most real functions do."""

SAMPLE_NS = 100_000
"""About how long one sample takes."""


@dataclass(frozen=True, slots=True)
class Times:
    """Nanoseconds of one call, one figure per round."""

    samples: list[float]

    @property
    def median(self) -> float:
        """The typical call."""
        return median(self.samples)

    @property
    def least(self) -> float:
        """The least disturbed round."""
        return min(self.samples)

    def over(self, base: Times) -> float:
        """The overhead over `base`: the median of the differences within each round."""
        return median(mine - other for mine, other in zip(self.samples, base.samples, strict=True))


async def interleave(
    works: Mapping[str, Work], rounds: int, *, raising: bool = False, seed: int = 0
) -> dict[str, Times]:
    """Time every function in every round. With `raising` each call raises, and that is caught in the loop."""
    sample = _sample_raising if raising else _sample
    calls = {name: await _calibrate(work, sample) for name, work in works.items()}
    samples: dict[str, list[float]] = {name: [] for name in works}
    order = list(works)
    shuffled = random.Random(seed)
    gc.collect()
    for _ in range(rounds):
        shuffled.shuffle(order)
        for name in order:
            await sample(works[name], max(1, calls[name] // 8))  # warm the caches again
            gc.disable()
            try:
                samples[name].append(await sample(works[name], calls[name]))
            finally:
                gc.enable()
    return {name: Times(found) for name, found in samples.items()}


Sample: TypeAlias = Callable[[Work, int], Awaitable[float]]


async def _calibrate(work: Work, sample: Sample) -> int:
    """How many calls make a sample; also lets the interpreter specialise the code."""
    once = await sample(work, 30)
    once = await sample(work, 30)
    return max(2, min(2000, int(SAMPLE_NS / once)))


async def _sample(work: Work, calls: int) -> float:
    start = perf_counter_ns()
    for _ in repeat(None, calls):
        await work(1)
    return (perf_counter_ns() - start) / calls


async def _sample_raising(work: Work, calls: int) -> float:
    start = perf_counter_ns()
    for _ in repeat(None, calls):
        try:
            await work(1)
        except Exception:
            continue
    return (perf_counter_ns() - start) / calls
