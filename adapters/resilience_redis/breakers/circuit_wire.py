"""The language of `breaker.lua`: what a process asks about its circuits, and what it is told.

    rule = rule_line(BreakerRule(), lifetime=30.0)
    identity, view = parse_view("db: 1 1700000000000000 1700000000000001 1 1700000005000000 0 0")

Times in a view are the server's, in microseconds.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

from resilience.machines.breaker_records import BreakerRule, BreakerState
from resilience.machines.fleet_breaker import FleetView
from resilience.machines.rate_limiter.rule import text

MICROSECONDS = 1e6

STATES = (BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.ISOLATED)
"""By the numbers that they have in the server."""


def identity_of(name: str, key: str) -> str:
    """Return what a circuit is called in the server: without spaces and braces, whatever the names."""
    return f"{quote(name, '', errors='surrogatepass')}:{quote(key, '', errors='surrogatepass')}"


def name_and_key(identity: str) -> tuple[str, str]:
    """Return what `identity_of` was given."""
    name, _, key = identity.partition(":")
    return unquote(name, errors="surrogatepass"), unquote(key, errors="surrogatepass")


def rule_line(rule: BreakerRule, lifetime: float, unit: float = MICROSECONDS) -> str:
    """Return a rule as the script reads it; `unit` is how many of the server's units are one of the rule's."""
    needed = {"any": 1, "quorum": rule.quorum or 0, "local": -1}[rule.shared]
    return " ".join(
        (
            "-" if rule.failure_rate is None else text(rule.failure_rate),
            "-" if rule.slow_rate is None else text(rule.slow_rate),
            str(rule.minimum_calls),
            text(rule.open_for * unit),
            text(rule.open_max * unit),
            text(rule.open_growth),
            text(rule.jitter),
            str(rule.probes),
            text(rule.probe_lease * unit),
            str(needed),
            text(lifetime * unit),
        )
    )


def view_line(identity: str, view: FleetView) -> str:
    """Return a view as the script writes it."""
    numbers = (view.generation, view.version, view.opens, view.until, view.free, view.probes)
    return " ".join((identity, str(STATES.index(view.state)), *map(text, numbers)))


def parse_view(line: str) -> tuple[str, FleetView]:
    """Return the identity of a circuit, and what the fleet knows of it."""
    identity, state, generation, version, opens, until, free, probes = line.split()
    return identity, FleetView(
        STATES[int(state)], float(generation), float(version), int(opens), float(until), int(free), int(probes)
    )
