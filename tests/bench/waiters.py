"""100,000 tasks waiting on one limiter, and on one bulkhead: CPU, stalls, fairness, memory, cancellation.

The limiter lets 20,000 a second through with a burst of 10 ms, so the last of 100,000 is due after 5 s. The
garbage collector is off while waiters wait (a full collection of a hundred thousand tasks is a stall that no
limiter can help); a line without a limiter shows what the tasks themselves cost.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from time import perf_counter, process_time
from typing import Any, TypeAlias

from resilience import Bulkhead, RateLimiter
from tests.bench.contest import OURS
from tests.bench.peers import MissingError, installed, module
from tests.bench.report import Bar, Report, Table

Enter: TypeAlias = Callable[[Callable[[int], Awaitable[None]]], Callable[[int], Awaitable[None]]]
"""Puts the guard around what a waiter does once it is let in."""

RATE = 20_000
BURST = 200
ROUNDS = 3
PERMITS = 100
CHUNK = 200


@dataclass(slots=True)
class Crowd:
    """What came of a crowd of waiters."""

    admitted: list[int] = field(default_factory=list[int])
    cpu: float = 0.0
    """Seconds of the whole process."""
    elapsed: float = 0.0
    stall: float = 0.0
    """The longest time, in seconds, in which nothing else could run."""

    @property
    def overtaken(self) -> int:
        """How many were let in after somebody who came later."""
        latest, count = -1, 0
        for order in self.admitted:
            count += order < latest
            latest = max(latest, order)
        return count


def run(size: float = 1.0) -> Report:
    """Run the benchmark with 100,000 waiters at size 1."""
    report = Report("waiters")
    count = max(2 * BURST, round(100_000 * size))
    for crowd in (_on_limiters, _on_bulkheads):
        crowd(report, count)
    _cancelled(report, max(200, round(20_000 * size)))
    report.notes.append("garbage collector off while waiters wait, for everybody")
    report.notes.append(
        "left out, because their waiters poll or cannot wait: pyrate-limiter, throttled-py, limits, hyx"
    )
    return report


def _on_limiters(report: Report, count: int) -> None:
    columns = ("", "CPU us a waiter", "beside the task", "finished / ideal", "longest stall ms", "overtaken", "bytes")
    title = f"{count:,} waiters on one limiter, {RATE:,} a second, medians of {ROUNDS} rounds"
    table = Table(title, columns, chart="CPU us a waiter")
    ideal = (count - BURST) / RATE
    crowds: dict[str, list[Crowd]] = {}
    sizes: dict[str, float] = {}
    for _ in range(ROUNDS):  # what others make the machine do changes the figures: in turns, and the typical one
        for name, distribution, make in LIMITERS:
            if distribution not in report.missing:
                crowd, size = _crowd(report, distribution, make, count, sizes.get(name))
                if crowd is not None:
                    sizes[name] = size
                    crowds.setdefault(name, []).append(crowd)
    cpu = {name: median(crowd.cpu for crowd in rounds) / count * 1e6 for name, rounds in crowds.items()}
    for name, rounds in crowds.items():
        late = median(crowd.elapsed for crowd in rounds) / ideal
        stall = median(crowd.stall for crowd in rounds) * 1000
        overtaken = max(crowd.overtaken for crowd in rounds)
        table.add(name, cpu[name], cpu[name] - cpu[LIMITERS[0][0]], late, stall, overtaken, sizes[name])
        if name == OURS:
            report.bars.append(Bar("limiter: waiters let in out of order", float(overtaken), 0.0))
            report.bars.append(Bar("limiter: last one in / ideal time", late, 1.05))
            report.bars.append(Bar("limiter: longest stall of the loop in ms", stall, 20.0))
    report.tables.append(table)
    if "aiolimiter" in cpu:
        report.bars.append(Bar("limiter: CPU a waiter / that of aiolimiter", cpu[OURS] / cpu["aiolimiter"], 1 / 4))


def _on_bulkheads(report: Report, count: int) -> None:
    columns = ("", "CPU us a waiter", "longest stall ms", "overtaken", "bytes")
    table = Table(f"{count:,} waiters on one bulkhead of {PERMITS}", columns, chart="CPU us a waiter")
    for name, distribution, make in BULKHEADS:
        crowd, size = _crowd(report, distribution, partial(make, count), count)
        if crowd is not None:
            table.add(name, crowd.cpu / count * 1e6, crowd.stall * 1000, crowd.overtaken, size)
            if name == OURS:
                report.bars.append(Bar("bulkhead: waiters let in out of order", float(crowd.overtaken), 0.0))
    report.tables.append(table)


def _crowd(
    report: Report, distribution: str, make: Callable[[], Enter], count: int, size: float | None = None
) -> tuple[Crowd | None, float]:
    """One crowd, then, unless that `size` is known, a smaller one for its memory."""
    try:
        crowd = asyncio.run(_pass_through(make, count))
        if size is None:
            size = asyncio.run(_bytes_of_a_waiter(make, max(BURST, count // 10)))
    except MissingError as reason:
        report.missing[distribution] = str(reason)
        return None, 0.0
    if version := installed(distribution):
        report.peers[distribution] = version
    assert len(crowd.admitted) == count
    return crowd, size


async def _pass_through(make: Callable[[], Enter], count: int) -> Crowd:
    crowd = Crowd()

    async def inside(order: int) -> None:
        crowd.admitted.append(order)
        await asyncio.sleep(0)

    guarded = make()(inside)
    gc.collect()
    gc.disable()
    watch = asyncio.ensure_future(_watch(crowd))
    await asyncio.sleep(0)
    try:
        cpu, start = process_time(), perf_counter()
        tasks: list[asyncio.Future[None]] = []
        for order in range(count):
            tasks.append(asyncio.ensure_future(guarded(order)))
            if order % CHUNK == CHUNK - 1:
                await asyncio.sleep(0)
        for task in tasks:
            await task
        crowd.elapsed, crowd.cpu = perf_counter() - start, process_time() - cpu
    finally:
        gc.enable()
        watch.cancel()
    return crowd


async def _watch(crowd: Crowd) -> None:
    """Notes how late it is woken, beside what a timer is late anyway."""
    while True:
        before = perf_counter()
        await asyncio.sleep(0.001)
        crowd.stall = max(crowd.stall, perf_counter() - before - 0.001)


async def _bytes_of_a_waiter(make: Callable[[], Enter], count: int) -> float:
    """Memory of a task that waits, with all that belongs to it."""
    hold = asyncio.Event()

    async def inside(order: int) -> None:
        await hold.wait()

    guarded = make()(inside)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    tasks = [asyncio.ensure_future(guarded(order)) for order in range(count)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return (after - before) / count


def _cancelled(report: Report, count: int) -> None:
    """What it costs to cancel everybody in a line that would take hours."""
    columns = ("", "CPU us a waiter")
    table = Table(f"{count:,} cancelled waiters", columns, chart="CPU us a waiter")
    makes: list[tuple[str, str, Callable[[], Enter]]] = [
        ("a future, no limiter", "", lambda: _nothing_to_wait_for),
        (f"{OURS} limiter", OURS, lambda: RateLimiter("1/h", burst=1)),
        (f"{OURS} bulkhead", OURS, lambda: Bulkhead(1, queue=count)),
        ("aiolimiter", "aiolimiter", lambda: _aiolimiter(1, 3600.0)),
        ("asyncio Semaphore", "", lambda: _semaphore(1)),
    ]
    for name, distribution, make in makes:
        try:
            cost = asyncio.run(_cancel_all(make, count)) / count * 1e6
        except MissingError as reason:
            report.missing[distribution] = str(reason)
            continue
        table.add(name, cost)
        if distribution == OURS:
            report.bars.append(Bar(f"{name}: CPU us of a cancelled waiter", cost, 10.0))
    report.tables.append(table)


async def _cancel_all(make: Callable[[], Enter], count: int) -> float:
    async def inside(order: int) -> None:
        await asyncio.Event().wait()

    guarded = make()(inside)
    tasks = [asyncio.ensure_future(guarded(order)) for order in range(count)]
    for _ in range(5):
        await asyncio.sleep(0)
    gc.collect()
    gc.disable()
    try:
        cpu = process_time()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return process_time() - cpu
    finally:
        gc.enable()


def _nothing_to_wait_for(inside: Callable[[int], Awaitable[None]]) -> Callable[[int], Awaitable[None]]:
    return inside


def _blocks(make: Callable[[], Any]) -> Enter:
    """Around the waiter as a block."""
    guard = make()

    def enter(inside: Callable[[int], Awaitable[None]]) -> Callable[[int], Awaitable[None]]:
        async def guarded(order: int) -> None:
            async with guard:
                await inside(order)

        return guarded

    return enter


def _aiolimiter(rate: float, per: float) -> Enter:
    return _blocks(lambda: module("aiolimiter").AsyncLimiter(rate, per))


def _semaphore(permits: int) -> Enter:
    return _blocks(lambda: asyncio.Semaphore(permits))


def _nopanic(policy: str, *args: Any, **options: Any) -> Enter:
    guard: Enter = getattr(module("nopanic"), policy)(*args, **options)
    return guard


def _bulklink(waiting: int) -> Enter:
    guard: Enter = module("bulklink").AsyncBulkhead(label="bench", parallelism=PERMITS, waiting_room=waiting)
    return guard


def _hyx(waiting: int) -> Enter:
    guard: Enter = module("hyx", "bulkhead").bulkhead(PERMITS, PERMITS + waiting)
    return guard


LIMITERS: list[tuple[str, str, Callable[[], Enter]]] = [
    ("tasks alone, no limiter", "", lambda: _nothing_to_wait_for),
    (OURS, OURS, lambda: RateLimiter(f"{RATE}/s", burst=BURST)),
    ("aiolimiter", "aiolimiter", lambda: _aiolimiter(BURST, BURST / RATE)),
    ("nopanic", "nopanic", lambda: _nopanic("rate_limit", RATE, 1.0, burst=BURST)),
]
BULKHEADS: list[tuple[str, str, Callable[[int], Enter]]] = [
    ("tasks alone, no bulkhead", "", lambda count: _nothing_to_wait_for),
    (OURS, OURS, lambda count: Bulkhead(PERMITS, queue=count)),
    ("asyncio Semaphore", "", lambda count: _semaphore(PERMITS)),
    ("nopanic", "nopanic", lambda count: _nopanic("bulkhead", PERMITS)),
    ("hyx", "hyx", _hyx),
    ("bulklink", "bulklink", _bulklink),
]
