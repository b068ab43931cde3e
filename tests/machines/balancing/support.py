"""Pools for tests."""

from __future__ import annotations

from typing import Any

from resilience.machines.balancing import EndpointState, Pool, chooser


def endpoints(*weights: float) -> list[EndpointState]:
    """Endpoints a, b, c ... of these weights."""
    return [EndpointState("abcdefghij"[number], weight) for number, weight in enumerate(weights)]


def pool(count: int, strategy: Any = "round_robin", **options: Any) -> Pool:
    """A pool of so many endpoints a, b, c ..., all joined at 0."""
    made = Pool(chooser(strategy), **options)
    made.replace(dict.fromkeys("abcdefghij"[:count], 1.0), 0.0)
    return made


def send(made: Pool, name: str, success: bool | None, now: float = 0.0, took: float = 0.0) -> Any:
    """One request to an endpoint, begun at `now`; what became of it."""
    ticket = made.begin(made.endpoints[name], now)
    return made.end(ticket, now + took, success)


def picks(made: Pool, count: int, now: float = 0.0, **options: Any) -> str:
    """The names of the next picks, with evenly spread draws."""
    chosen = [made.pick(now, ((step + 0.5) / count, (step * 7 % count) / count), **options) for step in range(count)]
    return "".join(each.name if each else "-" for each in chosen)
