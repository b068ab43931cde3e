"""Processes with slices, a ledger and messages between them, in virtual seconds; and how far a record of uses went.

world = World([GCRA(1000, 1.0)], surplus=0.05, processes=8, seed=1)
world.run(seconds=2.0, load=3.0)
excess(world.used, rate=1000.0)        # at most burst + surplus * limit
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

from resilience.machines.leased_ledger import Grant, Request, SliceLedger
from resilience.machines.leased_slice import INTERVAL, LIFETIME, Answer, Gift, Slice, Verdict
from resilience.machines.rate_limiter import decide

TICK = 0.001


def excess(used: Sequence[tuple[float, float]], rate: float) -> float:
    """The most units in any window beyond what comes back in it; `used` are moments and units."""
    worst = total = 0.0
    least = math.inf
    for moment, units in sorted(used):
        least = min(least, total - rate * moment)
        total += units
        worst = max(worst, total - rate * moment - least)
    return worst


class Process:
    """Calls with patience or none, in front of a slice."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.slice = Slice(world.interval, world.now)
        self.serial = 0
        self.waiting: list[tuple[float, float]] = []
        self.used = 0.0
        self.refused = 0

    def call(self, cost: float, patience: float) -> None:
        """Make a call of a fleet: what comes of it is on record in the world."""
        if self.slice.quick(self.world.now, cost):
            self.go(0.0, cost)
            return
        answer = self.slice.decide(self.world.now, cost, patience)
        if answer.verdict is Verdict.ASK:
            self.waiting.append((cost, patience))
            if not self.slice.asking:
                self.ask()
            return
        if self.slice.wanting(self.world.now):
            self.ask()
        self.settle(answer, cost, patience)

    def settle(self, answer: Answer, cost: float, patience: float) -> None:
        """Go, or be refused, or ask the store for this call alone."""
        verdict, wait, lot = answer
        if verdict is Verdict.TAKEN:
            if wait and self.world.random.random() < self.world.cancelled:
                self.world.after(
                    self.world.random.random() * wait, lambda: self.slice.give_back(self.world.now, cost, lot)
                )
            else:
                self.go(wait, cost)
        elif verdict is Verdict.REFUSED:
            self.refused += 1
        else:
            self.world.strict(self, cost, patience)

    def go(self, wait: float, cost: float) -> None:
        """Use the units after the wait."""
        self.used += cost
        self.world.used.append((self.world.now + wait, cost))

    def ask(self) -> None:
        """Send what the slice wants to know; the answer may be late, or lost on either way."""
        world, sent = self.world, self.world.now
        ask = self.slice.ask(sent)
        self.serial += 1
        request = Request(self.name, self.serial, ask.left, ask.returned, ask.want, LIFETIME, ask.ahead)
        world.asked += 1
        if world.random.random() < world.lost:
            arrives = world.random.random() < 0.5
            world.after(world.latency(), lambda: arrives and world.ledger.lease(world.now, request))
            world.after(0.05, self.fail)
        else:
            world.after(world.latency(), lambda: self.answer(sent, world.ledger.lease(world.now, request)))

    def fail(self) -> None:
        """No answer came."""
        self.slice.failed(self.world.now)
        self.serve()

    def answer(self, sent: float, grant: Grant | None) -> None:
        """Hear it, after another while."""
        assert grant is not None

        def heard() -> None:
            self.slice.granted(sent, self.world.now, Gift(*grant[:5]))
            self.serve()

        self.world.after(self.world.latency(), heard)

    def serve(self) -> None:
        """Answer those who wait."""
        while self.waiting:
            cost, patience = self.waiting[0]
            answer = self.slice.again(self.world.now, cost, patience)
            if answer.verdict is Verdict.ASK:
                self.ask()
                return
            self.waiting.pop(0)
            self.settle(answer, cost, patience)

    def roll(self) -> None:
        """End an interval."""
        self.slice.roll(self.world.now)
        if self.slice.excess(self.world.now) and not self.slice.asking:
            self.ask()
        self.world.after(INTERVAL, self.roll)


class World:
    """A fleet of processes on one key."""

    def __init__(
        self,
        rules: Sequence[Any],
        surplus: float,
        processes: int,
        seed: int,
        lost: float = 0.0,
        cancelled: float = 0.0,
        slowest: float = 0.002,
    ) -> None:
        self.random = random.Random(seed)
        self.rules = rules
        self.interval = min(rule.period / rule.limit for rule in rules)
        self.rate = min(rule.limit / rule.period for rule in rules)
        self.ledger = SliceLedger(rules, surplus)
        self.now = 1000.0
        self.lost = lost
        self.cancelled = cancelled
        self.slowest = slowest
        self.used: list[tuple[float, float]] = []
        self.asked = 0
        self.strictly = 0
        self._events: list[tuple[float, int, Callable[[], Any]]] = []
        self._order = itertools.count()
        self.fleet = [Process(self, f"process-{index}") for index in range(processes)]
        for process in self.fleet:
            self.after(self.random.random() * INTERVAL, process.roll)

    def latency(self) -> float:
        """How long a message takes."""
        return self.random.uniform(0.0001, self.slowest)

    def after(self, seconds: float, work: Callable[[], Any]) -> None:
        """Do it later."""
        heapq.heappush(self._events, (self.now + seconds, next(self._order), work))

    def strict(self, process: Process, cost: float, patience: float) -> None:
        """Let a call be decided by the limit itself."""
        self.strictly += 1

        def decided() -> None:
            costs = (cost,) * len(self.rules)
            decision, states = decide(self.rules, self.ledger.states, self.now, costs, patience)
            self.ledger.states = list(states)
            if decision.allowed:
                process.go(decision.wait, cost)
            else:
                process.refused += 1
                process.slice.refused(self.now, cost, decision.wait)

        self.after(self.latency(), decided)

    def run(
        self, seconds: float, load: float, patience: float = 0.0, shares: Sequence[float] = (), cost: float = 1.0
    ) -> None:
        """Have the fleet ask for `load` times the rate, in equal shares or others, for so long."""
        end = self.now + seconds
        weights = shares or (1.0,) * len(self.fleet)
        due = [self.random.random() * cost for _ in self.fleet]
        while self.now < end:
            for index, process in enumerate(self.fleet):
                due[index] += load * self.rate * TICK * weights[index] / sum(weights)
                while due[index] >= cost:
                    due[index] -= cost
                    process.call(cost, patience)
            tick = self.now + TICK
            while self._events and self._events[0][0] <= tick:
                self.now, _, work = heapq.heappop(self._events)
                work()
            self.now = tick
