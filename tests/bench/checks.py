"""Proof that a contestant guards, before it is timed: each check raises UnguardedError if it does not.

await retries(contestant.make)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeAlias

from tests.bench.contest import Check, Setup, UnguardedError, Wrap
from tests.bench.timing import Work

Make: TypeAlias = Callable[[Setup], Wrap]

PATIENCE = 0.1
"""Seconds after which a call that has not come back is taken to wait."""


async def retries(make: Make, setup: Setup | None = None) -> None:
    """It tries `attempts` times, and raises in the end."""
    setup = setup or Setup()
    calls = 0

    async def fails(order: int) -> int:
        nonlocal calls
        calls += 1
        raise ConnectionError(order)

    await _refused(make(setup)(fails), "gave no error although every attempt failed")
    if calls != setup.attempts:
        raise UnguardedError(f"{calls} attempts instead of {setup.attempts}")


async def opens(make: Make, setup: Setup | None = None) -> None:
    """After `failures` failures calls are refused, and the function is left alone."""
    setup = setup or Setup()
    calls = 0

    async def fails(order: int) -> int:
        nonlocal calls
        calls += 1
        raise ConnectionError(order)

    guarded = make(setup)(fails)
    for _ in range(setup.failures + 10):
        await _refused(guarded, "gave no error although the function raised")
    if calls > setup.failures:
        raise UnguardedError(f"{calls} failures in a row got through instead of {setup.failures}")


async def bounds(make: Make, setup: Setup | None = None) -> None:
    """Of three calls at once with two permits, two are inside; the permits come back."""
    inside = most = 0
    door = asyncio.Event()

    async def stays(order: int) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await door.wait()
        inside -= 1
        return order

    guarded = make(replace(setup or Setup(), permits=2))(stays)
    tasks = [asyncio.ensure_future(guarded(order)) for order in range(3)]
    await asyncio.sleep(PATIENCE)
    found = most
    door.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    if found != 2:
        raise UnguardedError(f"{found} of 3 calls inside with 2 permits")
    if await guarded(7) != 7:
        raise UnguardedError("the permits did not come back")


async def times_out(make: Make, setup: Setup | None = None) -> None:
    """A call that hangs is ended, and its task is cancelled."""
    cancelled = False

    async def hangs(order: int) -> int:
        nonlocal cancelled
        try:
            await asyncio.sleep(0.5)
        except asyncio.CancelledError:
            cancelled = True
            raise
        return order

    guarded = make(replace(setup or Setup(), seconds=0.02))(hangs)
    await _refused(guarded, "gave no error although time was up")
    if not cancelled:
        raise UnguardedError("left the call running")


async def limits(make: Make, setup: Setup | None = None) -> None:
    """Of five calls at a limit of three a minute, three run."""
    ran = 0

    async def counts(order: int) -> int:
        nonlocal ran
        ran += 1
        return order

    guarded = make(replace(setup or Setup(), rate=3, per=60))(counts)
    for order in range(5):
        with suppress(Exception):
            await asyncio.wait_for(guarded(order), PATIENCE)
    if ran != 3:
        raise UnguardedError(f"{ran} of 5 calls ran at a limit of 3 a minute")


async def _refused(guarded: Work, complaint: str) -> None:
    try:
        await guarded(1)
    except Exception:
        return
    raise UnguardedError(complaint)


CHECKS: dict[str, Check] = {
    "timeout": times_out,
    "bulkhead": bounds,
    "retry": retries,
    "breaker": opens,
    "limiter": limits,
}


async def all_five(make: Callable[[Setup], Wrap]) -> None:
    """Everything in one wrap."""
    for check in CHECKS.values():
        await check(make)
