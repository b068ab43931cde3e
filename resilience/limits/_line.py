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

from .. import clock
from ..machines.rate_limiter import Decision, Rule, check_cost
from ..running._parking import Timer, Waiter, call_later, park
from .limiter_state import Booking, LocalLimiter

_SLICE = 500
"""How many calls are served in one turn of the event loop, a few milliseconds' worth."""


class Place:
    """One call in a line, since a moment. It has a `decision` once it has been served; its waiter is woken with it."""

    __slots__ = ("costs", "decision", "gone", "key", "patience", "since", "waiter", "weight")

    def __init__(
        self, key: str, costs: Sequence[float], weight: float, since: float, patience: float, waiter: Waiter
    ) -> None:
        self.key: str = key
        self.costs: Sequence[float] = costs
        self.weight: float = weight
        self.since: float = since
        self.patience: float = patience
        self.waiter: Waiter = waiter
        self.decision: Decision | None = None
        self.gone: bool = False


class _Queue:
    """The line of one key; `ahead` is what those who have no booking yet will take together.

    `served` is when the last booking became valid. The next in line is booked as of then, or of its own arrival,
    not of the moment at which a timer got round to it: so late timers cost no permits.
    """

    __slots__ = ("ahead", "booking", "places", "served", "timer")

    def __init__(self) -> None:
        self.places: deque[Place] = deque()
        self.ahead = 0.0
        self.served = -math.inf
        self.booking: Booking | None = None
        self.timer: Timer | None = None


class Line:
    """Lines of waiting calls, one per key that has any, in front of a limiter in this process."""

    def __init__(self, limiter: LocalLimiter, rules: Sequence[Rule[Any]]) -> None:
        self.limiter = limiter
        self.rescale(rules)
        self.queues: dict[str, _Queue] = {}
        """The lines that somebody stands in."""

    def rescale(self, rules: Sequence[Rule[Any]]) -> None:
        """Go on with other limits, which the limiter has already."""
        self._rules = rules
        self._interval = max(rule.period / rule.limit for rule in rules)

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
        place = self.join(key, costs, patience, task)
        try:
            decision: Decision = place.decision or await place.waiter
            return decision
        except BaseException:
            self.abandon(place)
            raise

    def join(self, key: str, costs: Sequence[float], patience: float, task: asyncio.Task[Any] | None) -> Place:
        """The part of `take` before it waits, for those who do the rest of it themselves."""
        rules = self._rules
        weight = check_cost(rules[0], costs[0]) if len(rules) == 1 else self._weight(costs)
        place = Place(key, costs, weight, clock.now(), patience, park(task))
        if patience < math.inf and (refusal := self.peek(key, costs)).wait > patience:
            place.decision = refusal._replace(allowed=False)
            return place
        queue = self.queues.get(key)
        if queue is None:
            queue = self.queues[key] = _Queue()
        queue.places.append(place)
        queue.ahead += weight
        if queue.timer is None:  # a new line; every other has a timer that will serve it
            self._serve(key, queue)
        return place

    def _weight(self, costs: Sequence[float]) -> float:
        """The largest of the costs. In the line an impossible one would be found only in its turn, by nobody's call."""
        return max(check_cost(rule, cost) for rule, cost in zip(self._rules, costs, strict=True))

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
                    booking = acquire(key, head.costs, head.patience - (at - head.since), at)
                    decision = booking.decision
                    if decision.allowed:
                        queue.served = served = at + decision.wait
                        if served > known and (wait := served - (known := clock.now())) > 0.0:
                            queue.booking = booking
                            queue.timer = call_later(wait, partial(self._serve, key, queue))
                            return
                queue.booking = None
                head.decision = decision = booking.decision
                waiter = head.waiter
                if not waiter.done():
                    waiter.set_result(decision)
            places.popleft()
        if places:  # many at once: let the event loop breathe in between
            queue.timer = call_later(0.0, partial(self._serve, key, queue))
        else:
            del self.queues[key]

    def abandon(self, place: Place) -> None:
        """The caller is gone: everything as if it had never come."""
        place.gone = True
        key, served = place.key, place.decision is not None
        queue = self.queues.get(key) or _Queue()  # it may have been the last of its line
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
