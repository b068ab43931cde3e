"""The pool: all endpoints of one service, who is left to choose from, and what outcomes change.

    pool = Pool(chooser("two_choices"), outliers=OutlierRule(), panic=0.5, slow_start=10.0)
    added, removed = pool.replace({"http://a": 1, "http://b": 1}, now)
    endpoint = pool.pick(now, draws=(random(), random()))
    ticket = pool.begin(endpoint, now)
    pool.end(ticket, now, success=False)    # "ejected" after the fifth in a row

Invariants: an endpoint's requests under way are those begun and not ended, however they ended; when there is an
endpoint and `panic` is above 0, there is one to pick.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, TypeAlias

from resilience._validate import check_number

from .choosers import Chooser
from .endpoint import EndpointState, Ticket
from .hashing import fraction
from .outliers import OutlierRule

Transition: TypeAlias = Literal["ejected", "restored"]


class Pool:
    """Endpoints by name, in the order in which they joined.

    `outliers` ejects by failures (None: never). When less than the part `panic` (0.5) of all endpoints is fit for
    use, health is ignored: the few that are left would be overrun. For `slow_start` seconds (0) after it joined
    or recovered, an endpoint takes part in a growing part of the choices. `decay` is the memory of latencies, 10 s.

    Raises TypeError or ValueError for values out of range.
    """

    def __init__(
        self,
        chooser: Chooser,
        *,
        outliers: OutlierRule | None = None,
        panic: float = 0.5,
        slow_start: float = 0.0,
        decay: float = 10.0,
    ) -> None:
        check_number("panic", panic, least=0, most=1)
        check_number("slow_start", slow_start, least=0)
        check_number("decay", decay, above=0)
        self.endpoints: dict[str, EndpointState] = {}
        self.panicking: bool = False
        """Whether the last choice had to ignore health."""
        self._chooser = chooser
        self._outliers = outliers
        self._panic = panic
        self._slow_start = slow_start
        self._decay = decay

    def replace(self, weights: Mapping[str, float], now: float) -> tuple[list[EndpointState], list[EndpointState]]:
        """Let these endpoints be all there are; those that stay keep what is known of them. Returns (added, removed).

        The very first ones do not start slowly: there is nobody else to do their work.
        """
        before = self.endpoints
        removed = [each for name, each in before.items() if name not in weights]
        added = [EndpointState(name) for name in weights if name not in before]
        for endpoint in removed:
            endpoint.retired = True
        if before:
            for endpoint in added:
                endpoint.warming_since = now
        new = {each.name: each for each in added}
        self.endpoints = {name: before.get(name) or new[name] for name in weights}
        for name, weight in weights.items():
            self.endpoints[name].weight = weight
        return added, removed

    def pick(
        self, now: float, draws: tuple[float, float], key: str | None = None, avoid: Collection[str] = ()
    ) -> EndpointState | None:
        """The endpoint for the next request, none of `avoid` if there is another; None if there is none.

        `draws` are uniform in [0, 1). Nothing is counted before `begin`.
        """
        usable = self._usable(now)
        preferred = [each for each in usable if each.name not in avoid] if avoid else usable
        candidates = self._warm(preferred or usable, now, draws[1], key)
        return self._chooser.choose(candidates, now, draws[0], key) if candidates else None

    def begin(self, endpoint: EndpointState, now: float) -> Ticket:
        """Count a request that starts; on probation it is the probe."""
        ticket = endpoint.begin(now)
        if endpoint.ejected_until is not None and now >= endpoint.ejected_until:
            endpoint.probe = (ticket.number, now)
        return ticket

    def end(self, ticket: Ticket, now: float, success: bool | None, measured: float | None = None) -> Transition | None:
        """Count the end of a request, once; None as `success` says nothing (a cancellation, a 429).

        `measured` is its latency, by default the time since it began. A failure never makes an endpoint look fast.
        Returns what became of the endpoint, if that changes.
        """
        endpoint = ticket.endpoint
        if not endpoint.finish(ticket):
            return None
        transition = None
        if success is not None:
            latency = max(0.0, now - ticket.started) if measured is None else measured
            if not success:
                latency = max(latency, self._believed(endpoint, now))
            endpoint.observe(latency, now, self._decay)
            transition = self._judge(ticket, now, success)
        if endpoint.probe is not None and endpoint.probe[0] == ticket.number:
            endpoint.probe = None
        return transition

    def answered(self, ticket: Ticket, now: float) -> float:
        """The latency is to be that of a request's headers, which came just now; returns it, for `end`."""
        ticket.endpoint.answered(ticket)
        return max(0.0, now - ticket.started)

    def _believed(self, endpoint: EndpointState, now: float) -> float:
        """The latency of one that fails: what it was, or the worst of the others, but never that of its errors."""
        known = [endpoint] if endpoint.known else self.endpoints.values()
        return max((each.latency(now, self._decay) for each in known), default=0.0)

    def _judge(self, ticket: Ticket, now: float, success: bool) -> Transition | None:
        endpoint, rule = ticket.endpoint, self._outliers
        if rule is None or endpoint.retired or ticket.epoch != endpoint.epoch:
            return None
        if success:
            return "restored" if rule.succeeded(endpoint, now) else None
        return "ejected" if rule.failed(endpoint, ticket, self.endpoints.values(), now) else None

    def fit(self, now: float) -> list[EndpointState]:
        """The endpoints that are healthy and not ejected."""
        rule = self._outliers
        return [each for each in self.endpoints.values() if each.healthy and (rule is None or rule.admits(each, now))]

    def _usable(self, now: float) -> list[EndpointState]:
        fit = self.fit(now)
        self.panicking = len(fit) < self._panic * len(self.endpoints)
        return list(self.endpoints.values()) if self.panicking else fit

    def _warm(self, endpoints: list[EndpointState], now: float, draw: float, key: str | None) -> list[EndpointState]:
        """Leave out those that start slowly, as often as they are cold; per key always the same."""
        if not self._slow_start:
            return endpoints
        slow = self._slow_start
        warm = [
            each
            for each in endpoints
            if (draw if key is None else fraction(f"{each.name} {key}")) < each.warmth(now, slow)
        ]
        return warm or endpoints
