"""The waiting line of a rate limiter: first come, first served, one timer for the head.

Only the head of a line has a booking; so a waiter that gives up, wherever it stands, leaves nothing behind, and
its booking, if it had one, is the last of its key and can be given back exactly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import anyio

from . import clock
from .limiter_state import LocalLimiter
from .machines.rate_limiter import Decision, Rule


class _Waiter:
    __slots__ = ("cost", "gone", "turn")

    def __init__(self, cost: float) -> None:
        self.cost = cost
        self.gone = False
        self.turn = anyio.Event()


class _Queue:
    """The waiters of one key; `ahead` is what they will take together."""

    __slots__ = ("ahead", "waiters")

    def __init__(self) -> None:
        self.waiters: deque[_Waiter] = deque()
        self.ahead = 0.0

    def join(self, cost: float) -> _Waiter:
        waiter = _Waiter(cost)
        if not self.waiters:
            waiter.turn.set()
        self.waiters.append(waiter)
        self.ahead += cost
        return waiter

    def leave(self, waiter: _Waiter) -> bool:
        """Take a waiter out, wherever it stands; True if nobody is left."""
        waiter.gone = True
        self.ahead -= waiter.cost
        was_head = self.waiters[0] is waiter
        while self.waiters and self.waiters[0].gone:
            self.waiters.popleft()
        if was_head and self.waiters:
            self.waiters[0].turn.set()
        return not self.waiters


class Line:
    """Lines of waiters, one per key that has any, in front of a limiter in this process."""

    def __init__(self, limiter: LocalLimiter, rules: Sequence[Rule[Any]]) -> None:
        self.limiter = limiter
        self._interval = max(rule.period / rule.limit for rule in rules)
        self.queues: dict[str, _Queue] = {}
        """The lines that somebody stands in."""

    def try_take(self, key: str, costs: Sequence[float]) -> bool:
        """Take the costs if they may go at once and nobody waits."""
        return key not in self.queues and self.limiter.acquire(key, costs, 0.0).decision.allowed

    def estimate(self, key: str, costs: Sequence[float]) -> float:
        """Seconds that a newcomer will wait; exact for limits that refill evenly."""
        queue = self.queues.get(key)
        ahead = 0.0 if queue is None else queue.ahead * self._interval
        return ahead + self.limiter.peek(key, costs).wait

    async def take(self, key: str, costs: Sequence[float], patience: float) -> Decision:
        """Wait in line until the costs may go; a refusal at the latest when `patience` seconds cannot suffice."""
        wait = self.estimate(key, costs)
        if wait > patience:
            return self.limiter.peek(key, costs)._replace(allowed=False, wait=wait)
        until = clock.now() + patience
        queue = self.queues.setdefault(key, _Queue())
        waiter = queue.join(max(costs))
        try:
            await waiter.turn.wait()
            booking = self.limiter.acquire(key, costs, until - clock.now())
            if booking.decision.allowed and booking.decision.wait > 0.0:
                try:
                    await anyio.sleep(booking.decision.wait)
                except BaseException:
                    self.limiter.refund(key, costs, booking.stamp)
                    raise
            return booking.decision
        finally:
            if queue.leave(waiter):
                del self.queues[key]
