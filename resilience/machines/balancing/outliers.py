"""Passive outlier ejection: an endpoint that fails again and again gets no requests for a while.

    rule = OutlierRule(failures=5, ejection=30.0)
    rule.failed(endpoint, ticket, endpoints, now)    # True: ejected
    rule.succeeded(endpoint, now)                    # True: it was ejected and is back

The life of an endpoint:

    in use   --`failures` in a row, and few enough others are ejected-->  ejected
    ejected  --`ejection` * ejections seconds-->  on probation: one request at a time
    on probation  --it succeeds-->  in use
    on probation  --it fails-->  ejected

The rules are Envoy's (outlier detection, consecutive 5xx) but for probation: there an endpoint comes back with all its
traffic and must fail `failures` times again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from resilience._validate import check_integer, check_number

from .endpoint import EndpointState, Ticket


@dataclass(frozen=True, slots=True)
class OutlierRule:
    """When an endpoint is ejected for its failures, and for how long.

    After `failures` (5) in a row, for `ejection` (30 s) times how often it was ejected lately, at most `longest`
    (300 s); the count falls by one for every `ejection` seconds in use. At most the part `share` (0.1) of all
    endpoints, but always one, is ejected at a time. Raises TypeError or ValueError for values out of range.
    """

    failures: int = 5
    ejection: float = 30.0
    longest: float = 300.0
    share: float = 0.1

    def __post_init__(self) -> None:
        check_integer("failures", self.failures, 1)
        check_number("ejection", self.ejection, above=0)
        check_number("longest", self.longest, least=self.ejection)
        check_number("share", self.share, least=0, most=1)

    def admits(self, endpoint: EndpointState, now: float) -> bool:
        """Whether it may get a request: it is not ejected, or it is on probation and nothing tries it."""
        until = endpoint.ejected_until
        if until is None:
            return True
        if now < until:
            return False
        # A probe that does not come back (a stream without end) holds up others for a while, not for ever.
        return endpoint.probe is None or now - endpoint.probe[1] >= self.ejection

    def failed(self, endpoint: EndpointState, ticket: Ticket, endpoints: Collection[EndpointState], now: float) -> bool:
        """Count a failure; True if it ejects the endpoint."""
        endpoint.failures += 1
        if endpoint.ejected_until is not None:
            # Of the requests that reach an ejected endpoint, those in a panic prove nothing new.
            if endpoint.probe is None or endpoint.probe[0] != ticket.number:
                return False
        elif endpoint.failures < self.failures or self._full(endpoints):
            return False
        self._eject(endpoint, now)
        return True

    def succeeded(self, endpoint: EndpointState, now: float) -> bool:
        """Count a success; True if it brings an ejected endpoint back."""
        endpoint.failures = 0
        if endpoint.ejected_until is None:
            return False
        endpoint.ejected_until = endpoint.probe = None
        endpoint.restored = endpoint.warming_since = now
        return True

    def _full(self, endpoints: Collection[EndpointState]) -> bool:
        ejected = sum(each.ejected_until is not None for each in endpoints)
        return ejected >= max(1, int(self.share * len(endpoints)))

    def _eject(self, endpoint: EndpointState, now: float) -> None:
        if endpoint.ejected_until is None:
            forgiven = int(max(0.0, now - endpoint.restored) / self.ejection)
            endpoint.ejections = max(0, endpoint.ejections - forgiven)
        endpoint.ejections += 1
        endpoint.epoch += 1
        endpoint.failures = 0
        endpoint.probe = None
        endpoint.ejected_until = now + min(self.longest, self.ejection * endpoint.ejections)
