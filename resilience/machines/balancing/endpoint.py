"""What is known of one endpoint: its load, its latency, its health.

endpoint = EndpointState("http://a", weight=1)
ticket = endpoint.begin(now=0.0)
endpoint.finish(ticket)
endpoint.observe(0.02, now=0.02, decay=10.0)
endpoint.cost(now=0.02, decay=10.0)   # 0.02: one request more would take that long
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple

_UNKNOWN = 1e9
"""The cost of an endpoint that owes its first answer: above that of all that are known to work."""


class Ticket(NamedTuple):
    """One request under way."""

    endpoint: EndpointState
    number: int
    started: float
    epoch: int
    """That of the endpoint when the request began; outcomes from before an ejection say nothing about afterwards."""


class EndpointState:
    """One endpoint of a pool. Endpoints are compared by identity: one that comes back begins anew.

    Latency is the peak-sensitive, exponentially weighted moving average of Finagle's `p2cPeakEwma`: what is slower
    than the average replaces it at once, what is faster lowers it by the time that has passed. It fades while
    nothing is observed, so that an endpoint that was slow is asked again some day.
    """

    __slots__ = (
        "_latency",
        "_number",
        "_observed",
        "_reading",
        "_under_way",
        "current",
        "ejected_until",
        "ejections",
        "epoch",
        "failures",
        "healthy",
        "name",
        "probe",
        "restored",
        "retired",
        "streak",
        "warming_since",
        "weight",
    )  # fmt: skip

    def __init__(self, name: str, weight: float = 1.0) -> None:
        self.name: str = name
        self.weight: float = weight
        self.current: float = 0.0
        """The running weight of smooth weighted round robin."""
        self.failures: int = 0
        """Failures in a row."""
        self.ejections: int = 0
        self.ejected_until: float | None = None
        """None unless it was ejected and has not answered well since."""
        self.epoch: int = 0
        """How often it was ejected in all."""
        self.probe: tuple[int, float] | None = None
        """Number and start of the request that tries an ejected endpoint whose time is over."""
        self.restored: float = 0.0
        self.healthy: bool = True
        """What active checks say."""
        self.streak: int = 0
        """Checks in a row that contradict `healthy`."""
        self.warming_since: float = -math.inf
        self.retired: bool = False
        """Removed from its pool; requests under way go on."""
        self._under_way: OrderedDict[int, float] = OrderedDict()
        self._reading: set[int] = set()
        self._number = 0
        self._latency = 0.0
        self._observed: float | None = None

    @property
    def known(self) -> bool:
        """Whether a latency was ever observed."""
        return self._observed is not None

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return len(self._under_way) + len(self._reading)

    def begin(self, now: float) -> Ticket:
        """Count a request that starts."""
        self._number += 1
        self._under_way[self._number] = now
        return Ticket(self, self._number, now, self.epoch)

    def finish(self, ticket: Ticket) -> bool:
        """Count its end; False if it has ended before."""
        if ticket.number in self._reading:
            self._reading.discard(ticket.number)
            return True
        return self._under_way.pop(ticket.number, None) is not None

    def answered(self, ticket: Ticket) -> None:
        """From now on a request is load only: how long it still takes says nothing about latency."""
        if self._under_way.pop(ticket.number, None) is not None:
            self._reading.add(ticket.number)

    def observe(self, latency: float, now: float, decay: float) -> None:
        """Take one latency into the average. `decay` is the time in which the weight of the past falls to 1/e."""
        kept = self._kept(now, decay)
        faded = self._latency * kept
        self._latency = latency if latency >= faded else faded + latency * (1 - kept)
        self._observed = now

    def latency(self, now: float, decay: float) -> float:
        """The average, faded by the time since the last observation; 0 if there was none."""
        return self._latency * self._kept(now, decay)

    def cost(self, now: float, decay: float) -> float:
        """What one more request costs: latency * (requests under way + 1) * (failures in a row + 1) / weight.

        A request under way for longer than the average tells already what its answer will tell. An endpoint that
        was never asked costs nothing, and from then on more than any other until it has answered.
        """
        waiting = self.in_flight
        if self._observed is None:
            return _UNKNOWN + waiting if waiting else 0.0
        latency = self.latency(now, decay)
        if self._under_way:
            latency = max(latency, now - next(iter(self._under_way.values())))
        return latency * (waiting + 1) * (self.failures + 1) / self.weight

    def warmth(self, now: float, slow_start: float) -> float:
        """Which part of its traffic it gets, 0.1 to 1, growing for `slow_start` seconds after it joined."""
        elapsed = now - self.warming_since
        return 1.0 if elapsed >= slow_start else max(0.1, elapsed / slow_start)

    def _kept(self, now: float, decay: float) -> float:
        return 1.0 if self._observed is None else math.exp(-max(0.0, now - self._observed) / decay)
