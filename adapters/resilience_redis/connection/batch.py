"""Acquires on one key in one script call: each is answered as if it had come alone, in order of arrival.

    cargo = load(groups)                        # as few calls as the meaning allows
    commands = [script.by_sha(keys, arguments) for script, keys, arguments in (each.call() for each in cargo)]
    for each, reply in zip(cargo, replies):
        for _ in each.settle(reply, late): ...  # large batches pause here

A batch tells the rules once and equal requests once, with their number; the script loads the states once, decides
and books one after the other, and saves once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from resilience.limits.limiter_state import Booking
from resilience.machines.rate_limiter.rule import text
from resilience_redis.connection.outage import as_outage
from resilience_redis.connection.target import MICROSECONDS, Answer, Target
from resilience_redis.scripts import Call

_LONGEST = 9e15

_SMALLEST_HALF = 32
"""Fewer requests than that do not earn a call of their own."""


class Group:
    """Equal requests that came one after the other, and who waits for their answers.

    Those of acquires are for `Target.read`, of other operations the bare reply. `arguments` are the costs first.
    """

    __slots__ = ("arguments", "futures", "max_wait", "operation", "target")

    def __init__(
        self,
        target: Target,
        operation: str,
        arguments: tuple[str, ...],
        max_wait: float,
        futures: list[asyncio.Future[Any]],
    ) -> None:
        self.target = target
        self.operation = operation
        self.arguments = arguments
        self.max_wait = max_wait
        self.futures = futures

    def fail(self, error: Exception) -> None:
        """Let go whoever still waits, each with an exception of its own if time may cure it."""
        for future in self.futures:
            if not future.done():
                future.set_exception(as_outage(error))


class Errand:
    """A call of any script for one who waits; it joins no batch."""

    __slots__ = ("_call", "futures", "keys")

    def __init__(self, call: Call, future: asyncio.Future[Any]) -> None:
        self._call = call
        self.keys = call[1]
        self.futures = [future]

    def call(self, *, packed: bool = False) -> Call:
        """Return the script call."""
        return self._call

    def settle(self, reply: Any, late: list[Grant]) -> Iterable[None]:
        """Tell the one who asked."""
        if isinstance(reply, Exception):
            self.fail(reply)
        elif not self.futures[0].done():
            self.futures[0].set_result(reply)
        return ()

    def fail(self, error: Exception) -> None:
        """Let go whoever still waits."""
        if not self.futures[0].done():
            self.futures[0].set_exception(as_outage(error))


class Grant(NamedTuple):
    """What was booked."""

    target: Target
    costs: tuple[str, ...]
    booking: Booking


class Batch:
    """Acquires on one key, with the same rules."""

    __slots__ = ("groups", "size", "target")

    def __init__(self, target: Target) -> None:
        self.target = target
        self.groups: list[Group] = []
        self.size = 0

    def add(self, group: Group, futures: list[asyncio.Future[Any]]) -> None:
        """Append those requests of a group."""
        self.groups.append(Group(group.target, group.operation, group.arguments, group.max_wait, futures))
        self.size += len(futures)

    def call(self, *, packed: bool = False) -> Call:
        """Return the script call that carries all of them; its answer may be bytes that are no text, if `packed`."""
        arguments: list[str] = []
        for group in self.groups:
            arguments += (str(len(group.futures)), patience(group.max_wait), *group.arguments)
        return self.target.call("acquire_packed" if packed else "acquire", arguments)

    def settle(self, reply: Any, late: list[Grant]) -> Iterator[None]:
        """Tell everybody; append the grants that nobody waits for any more, in the order they were booked.

        Pauses after the first half of a large batch. Those told ask again while the others hear: from then on there
        are two batches, and the server works on one while the callers of the other are at work.
        """
        if isinstance(reply, Exception):
            self.fail(reply)
            return
        answers = self.target.answers(reply)
        following = iter(answers if len(answers) == self.size else self._spread(answers))
        for number, part in enumerate(self._parts()):
            if number:
                yield
            for group in part:
                for future, answer in zip(group.futures, following, strict=False):
                    try:
                        future.set_result(answer)
                    except asyncio.InvalidStateError:  # has left
                        booking = self.target.read(answer)
                        if booking.decision.allowed:
                            late.append(Grant(group.target, group.arguments, booking))

    def fail(self, error: Exception) -> None:
        """Let go whoever still waits."""
        for group in self.groups:
            group.fail(error)

    def _parts(self) -> list[list[Group]]:
        if self.size < 2 * _SMALLEST_HALF:
            return [self.groups]
        halves: list[list[Group]] = [[], []]
        room = self.size // 2
        for group in self.groups:
            for half, futures in zip(halves, (group.futures[:room], group.futures[room:]), strict=True):
                if futures:
                    half.append(Group(group.target, group.operation, group.arguments, group.max_wait, futures))
            room = max(0, room - len(group.futures))
        return halves

    def _spread(self, answers: Iterable[Answer]) -> Iterable[Answer]:
        """Give every request its answer: a refusal speaks for the rest of its group."""
        following = iter(answers)
        for group in self.groups:
            answer: Answer | None = None
            for _ in group.futures:
                if answer is None or self.target.read(answer).decision.allowed:
                    answer = next(following)
                yield answer


class Single:
    """Any other operation."""

    __slots__ = ("group",)

    def __init__(self, group: Group) -> None:
        self.group = group

    def call(self, *, packed: bool = False) -> Call:
        """Return the script call."""
        return self.group.target.call(self.group.operation, self.group.arguments)

    def settle(self, reply: Any, late: list[Grant]) -> Iterable[None]:
        """Tell the one who asked."""
        if isinstance(reply, Exception):
            self.fail(reply)
        elif not self.group.futures[0].done():
            self.group.futures[0].set_result(reply)
        return ()

    def fail(self, error: Exception) -> None:
        """Let go whoever still waits."""
        self.group.fail(error)


def load(groups: Iterable[Group | Errand]) -> list[Batch | Single | Errand]:
    """Put requests that somebody still waits for into as few calls as their meaning allows.

    An acquire joins the acquires on its key before it, unless another operation on that key came in between.
    """
    cargo: list[Batch | Single | Errand] = []
    open_batches: dict[str, Batch] = {}
    for group in groups:
        if isinstance(group, Errand):
            for key in group.keys:
                open_batches.pop(key, None)
            cargo.append(group)
            continue
        futures = [future for future in group.futures if not future.done()]
        target = group.target
        if futures and group.operation != "acquire":
            open_batches.pop(target.identity, None)
            cargo.append(Single(group))
            continue
        while futures:
            batch = open_batches.get(target.identity)
            if batch is None or batch.size >= target.script.largest or not batch.target.accepts(target):
                batch = open_batches[target.identity] = Batch(target)
                cargo.append(batch)
            room = target.script.largest - batch.size
            batch.add(group, futures[:room])
            futures = futures[room:]
    return cargo


def patience(max_wait: float) -> str:
    """Return how long a request may wait, as the scripts are told."""
    return "0" if max_wait == 0.0 else text(max(-_LONGEST, min(max_wait * MICROSECONDS, _LONGEST)))
