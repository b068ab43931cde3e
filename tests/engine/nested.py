"""Random programs of nested timeouts, run with our timeouts or with `asyncio.timeout` in their place."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
from hypothesis import strategies as st

from resilience import Pipeline, TimedOutError, Timeout

from .scripts import spread

Body = Callable[[], Awaitable[None]]
Enclose = Callable[[int, Body], Awaitable[None]]
"""Runs a body under one of the timeouts; raises FiredError with its number."""


class FiredError(Exception):
    """The timeout of that number ended its body."""


@dataclass(frozen=True)
class Node:
    """One step, a sleep of `length` quanta or something around other steps."""

    kind: str
    length: int
    inside: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Victim:
    """A task: when it starts, what it does, and when it is cancelled.

    A cancellation comes `cancel` quanta before or after the deadline of timeout number `near` that begins with it.
    """

    start: int
    steps: tuple[Node, ...]
    near: int
    cancel: int | None


def has_group(node: Node) -> bool:
    """Whether there is more than one task in it."""
    return node.kind == "group" or any(map(has_group, node.inside))


def _around(inside: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    kinds = st.sampled_from(["limit", "limit", "limit", "tolerated", "asyncio", "scope", "group", "stubborn"])
    return st.builds(Node, kinds, st.integers(1, 40), st.lists(inside, min_size=1, max_size=3).map(tuple))


_leaf = st.builds(Node, st.sampled_from(["sleep", "sleep", "yield", "hang", "fail", "tie"]), st.integers(1, 40))
nodes = st.recursive(_leaf, _around, max_leaves=6)
limits = st.lists(st.integers(1, 40), min_size=1, max_size=3)
victims = st.lists(
    st.builds(
        Victim,
        st.integers(0, 60),
        st.lists(nodes, min_size=1, max_size=3).map(tuple),
        st.integers(0, 2),
        st.sampled_from([None, None, None, -8, -1, 0, 0, 1, 8]),
    ),
    min_size=1,
    max_size=6,
)


def ours(limits: list[float]) -> Enclose:
    """Our timeouts, each a pipeline of its own."""
    pipelines = [Pipeline(Timeout(seconds, name=str(number))) for number, seconds in enumerate(limits)]

    async def enclose(number: int, body: Body) -> None:
        try:
            await pipelines[number % len(pipelines)].call(body)
        except TimedOutError as error:
            raise FiredError(int(error.policy)) from None

    return enclose


def model(limits: list[float]) -> Enclose:
    """The standard library's."""

    async def enclose(number: int, body: Body) -> None:
        number %= len(limits)
        try:
            async with asyncio.timeout(limits[number]):
                await body()
        except TimeoutError:
            raise FiredError(number) from None

    return enclose


class Program:
    """Runs victims; `trace` is what came of it and when."""

    def __init__(self, limits: list[float], enclose: Enclose) -> None:
        self.limits = limits
        self.enclose = enclose
        self.trace: list[tuple[Any, ...]] = []

    async def main(self, victims: list[Victim]) -> None:
        """Run all to the end, and let all timers run out."""
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[None]] = []
        for index, victim in enumerate(victims):
            task = loop.create_task(self.victim(index, victim))
            if victim.cancel is not None:
                near = spread(victim.start, index) + self.limits[victim.near % len(self.limits)]
                loop.call_at(max(0.0, near + victim.cancel / 64), task.cancel)
            loop.call_at(100.0 + index, task.cancel)
            loop.call_at(200.0 + index, task.cancel)
            tasks.append(task)
        while waiting := [task for task in tasks if not task.done()]:
            await asyncio.wait(waiting, timeout=50)
            for task in waiting:
                task.cancel()
        for index, task in enumerate(tasks):
            outcome = "cancelled" if task.cancelled() else type(task.exception()).__name__
            self.trace.append((math.inf, index, outcome, task.cancelling()))
        await asyncio.sleep(300)

    async def victim(self, index: int, victim: Victim) -> None:
        """One task."""
        await asyncio.sleep(spread(victim.start, index))
        try:
            await self.row(index * 100, victim.steps)
            self.note(index, "through")
        except BaseException as error:
            self.note(index, type(error).__name__, error.args if isinstance(error, FiredError) else ())
            raise

    async def row(self, mark: int, steps: tuple[Node, ...]) -> None:
        """One step after another."""
        for place, node in enumerate(steps):
            await self.step(mark * 7 + place + 1, node)

    async def child(self, mark: int, node: Node) -> None:
        """One task of a group. Its deadlines shall not come at the moment of its parent's: either may be first."""
        await asyncio.sleep(spread(0, mark + 1))
        await self.step(mark, node)

    async def step(self, mark: int, node: Node) -> None:
        """Do one step."""
        seconds, inside = spread(node.length, mark), partial(self.row, mark, node.inside)
        match node.kind:
            case "sleep":
                await asyncio.sleep(seconds)
            case "yield":
                await asyncio.sleep(0)
            case "tie":
                await asyncio.sleep(self.limits[node.length % len(self.limits)])
            case "hang":
                await asyncio.get_running_loop().create_future()
            case "fail":
                raise ArithmeticError
            case "stubborn":
                try:
                    await inside()
                except asyncio.CancelledError:
                    self.note(mark, "swallows")
                    await asyncio.sleep(seconds)
            # anyio cancels in every turn of the loop until its tasks are out; a child of a TaskGroup that goes on
            # for a while would keep virtual time from passing.
            case "scope" if not has_group(node):
                with anyio.move_on_after(seconds):
                    await inside()
            case "asyncio" | "scope":
                try:
                    async with asyncio.timeout(seconds):
                        await inside()
                except TimeoutError:
                    self.note(mark, "inner timeout")
            case "group":
                try:
                    async with asyncio.TaskGroup() as group:
                        for place, child in enumerate(node.inside):
                            group.create_task(self.child(mark * 11 + place, child))
                except* (ArithmeticError, FiredError) as errors:
                    self.note(mark, "group", sorted(type(error).__name__ for error in errors.exceptions))
            case "tolerated":
                try:
                    await self.enclose(node.length, inside)
                except FiredError as fired:
                    self.note(mark, "fired", fired.args)
            case _:
                await self.enclose(node.length, inside)

    def note(self, mark: int, *what: Any) -> None:
        """Add to the trace, with the time and what of the task's cancellations is not yet answered."""
        task = asyncio.current_task()
        assert task is not None
        self.trace.append((asyncio.get_running_loop().time(), mark, *what, task.cancelling()))
