"""The waiting line of a rate limiter: first come, first served, one timer for the head.

Only the head of a line has a booking; so a waiter that gives up, wherever it stands, leaves nothing behind, and
the head's booking is the last of its key and can be given back exactly.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

from . import clock
from ._parking import Timer, Waiter, call_later, park, wake
from .limiter_state import Booking, LocalLimiter
from .machines.rate_limiter import Decision, Rule, check_cost

_SLICE = 500
"""How many calls are served in one turn of the event loop, a few milliseconds' worth."""


class _Place:
    """One call in a line. It has a `decision` once it has been served."""

    __slots__ = ("costs", "decision", "gone", "since", "until", "waiter", "weight")

    def __init__(self, costs: Sequence[float], weight: float, since: float, until: float, waiter: Waiter) -> None:
        self.costs = costs
        self.weight = weight
        self.since = since
        self.until = until
        self.waiter = waiter
        self.decision: Decision | None = None
        self.gone = False


class _Queue:
    """The line of one key; `ahead` is what those who have no booking yet will take together.

    `served` is when the last booking became valid. The next in line is booked as of then, or of its own arrival,
    not of the moment at which a timer got round to it: so late timers cost no permits.
    """

    __slots__ = ("ahead", "booking", "places", "served", "timer")

    def __init__(self) -> None:
        self.places: deque[_Place] = deque()
        self.ahead = 0.0
        self.served = -math.inf
        self.booking: Booking | None = None
        self.timer: Timer | None = None


class Line:
    """Lines of waiting calls, one per key that has any, in front of a limiter in this process."""

    def __init__(self, limiter: LocalLimiter, rules: Sequence[Rule[Any]]) -> None:
        self.limiter = limiter
        self._rules = rules
        self._interval = max(rule.period / rule.limit for rule in rules)
        self.queues: dict[str, _Queue] = {}
        """The lines that somebody stands in."""

    def try_take(self, key: str, costs: Sequence[float]) -> bool:
        """Take the costs if they may go at once and nobody waits."""
        return key not in self.queues and self.limiter.take(key, costs)

    def peek(self, key: str, costs: Sequence[float]) -> Decision:
        """What a newcomer would be told; its wait behind the others is exact for limits that refill evenly."""
        decision = self.limiter.peek(key, costs)
        queue = self.queues.get(key)
        if queue is None:
            return decision
        return decision._replace(allowed=False, wait=queue.ahead * self._interval + decision.wait)

    async def take(self, key: str, costs: Sequence[float], patience: float, task: asyncio.Task[Any] | None) -> Decision:
        """Wait in line until the costs may go; a refusal at the latest when `patience` seconds cannot suffice.

        `task` is the current one, None under trio.
        """
        weight = self._weight(costs)
        if patience < math.inf and (refusal := self.peek(key, costs)).wait > patience:
            return refusal._replace(allowed=False)
        now = clock.now()
        place = _Place(costs, weight, now, now + patience, park(task))
        queue = self.queues.get(key)
        if queue is None:
            queue = self.queues[key] = _Queue()
        queue.places.append(place)
        queue.ahead += weight
        if queue.timer is None:  # a new line; every other has a timer that will serve it
            self._serve(key, queue)
        try:
            await place.waiter
        except BaseException:
            self._abandon(key, queue, place)
            raise
        assert place.decision is not None
        return place.decision

    def _weight(self, costs: Sequence[float]) -> float:
        """The largest of the costs. In the line an impossible one would be found only in its turn, by nobody's call."""
        rules = self._rules
        if len(rules) == 1:
            return check_cost(rules[0], costs[0])
        return max(check_cost(rule, cost) for rule, cost in zip(rules, costs, strict=True))

    def _serve(self, key: str, queue: _Queue) -> None:
        """Serve from the head everybody whose time has come; a timer brings us back for the next."""
        queue.timer = None
        known = clock.now()  # what lies before it has come, whatever the time is by now
        places, acquire = queue.places, self.limiter.acquire
        for _ in range(_SLICE):
            if not places:
                break
            head = places[0]
            if not head.gone:
                booking = queue.booking
                if booking is None:
                    queue.ahead -= head.weight
                    at = head.since if head.since > queue.served else queue.served
                    booking = acquire(key, head.costs, head.until - at, at)
                    decision = booking.decision
                    if decision.allowed:
                        queue.served = served = at + decision.wait
                        if served > known and (wait := served - (known := clock.now())) > 0.0:
                            queue.booking = booking
                            queue.timer = call_later(wait, partial(self._serve, key, queue))
                            return
                queue.booking = None
                head.decision = booking.decision
                wake(head.waiter)
            places.popleft()
        if places:  # many at once: let the event loop breathe in between
            queue.timer = call_later(0.0, partial(self._serve, key, queue))
        else:
            del self.queues[key]

    def _abandon(self, key: str, queue: _Queue, place: _Place) -> None:
        """The caller is gone: everything as if it had never come."""
        place.gone = True
        served = place.decision is not None
        if served:  # it was the last of its line, perhaps, and others stand in a new one
            queue = self.queues.get(key, queue)
        head = queue.places[0] if queue.places else None
        if not served and place is not head:
            queue.ahead -= place.weight
            return
        booked, queue.booking = queue.booking, None
        queue.served = clock.now()
        if booked is not None and head is not None:
            self.limiter.refund(key, head.costs, booked.stamp)
            if place is not head:
                queue.ahead += head.weight
        elif not served:
            queue.ahead -= place.weight
        if place.decision is not None and place.decision.allowed:
            self.limiter.refund(key, place.costs)
        if queue.places:
            # Not at once: of many that go in the same turn, only the last makes the next one's booking.
            if queue.timer is not None:
                queue.timer.cancel()
            queue.timer = call_later(0.0, partial(self._serve, key, queue))
