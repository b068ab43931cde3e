"""Active health: what a row of checks says about an endpoint.

rule = HealthRule(healthy_after=2, unhealthy_after=3)
rule.checked(endpoint, passed=False, now=10.0)    # None, None, then "unhealthy"
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from resilience._validate import check_integer

from .endpoint import EndpointState


@dataclass(frozen=True, slots=True)
class HealthRule:
    """How many checks in a row turn an endpoint healthy (2) or unhealthy (3); integers of at least 1."""

    healthy_after: int = 2
    unhealthy_after: int = 3

    def __post_init__(self) -> None:
        check_integer("healthy_after", self.healthy_after, 1)
        check_integer("unhealthy_after", self.unhealthy_after, 1)

    def checked(self, endpoint: EndpointState, passed: bool, now: float) -> Literal["healthy", "unhealthy"] | None:
        """Count one check; what the endpoint has become, if that changes. One that recovers starts slowly."""
        if passed is endpoint.healthy:
            endpoint.streak = 0
            return None
        endpoint.streak += 1
        if endpoint.streak < (self.healthy_after if passed else self.unhealthy_after):
            return None
        endpoint.streak = 0
        endpoint.healthy = passed
        if passed:
            endpoint.warming_since = now
        return "healthy" if passed else "unhealthy"
