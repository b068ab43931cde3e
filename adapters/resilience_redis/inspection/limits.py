"""What rate limiters have left, as they would be told: their own script is asked, and it changes nothing.

How much the limits allow is in the catalogue of the namespace; of a limiter that is not, only what it has booked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoPermissionError

from resilience.limits.limiter_state import LimiterSpec
from resilience_redis.catalogue import catalogue_key, spec_of
from resilience_redis.inspection.connection import Connection
from resilience_redis.inspection.entry import Entry, Owner, Place, seconds
from resilience_redis.limits.limiter import RedisLimiter

if TYPE_CHECKING:
    from resilience_redis.connection.lane import Lane


class LimitKind:
    """Reads what the scripts of the algorithms write: a key for each limit."""

    kind = "limits"

    def owner(self, place: Place) -> Owner | None:
        """The limiter and the key, whose limits belong together; those that hold for all keys have none."""
        if len(place.tags) != 2 or len(place.rest) not in (4, 5) or place.rest[0] not in _READ:
            return None
        name, key = place.tags
        return Owner(self.kind, name, place.rest[4] if len(place.rest) == 5 else key)

    def read(self, server: Connection, prefix: str, owner: Owner, keys: Sequence[str], now: float) -> Iterable[Entry]:
        """The wait for one unit, and what is left of each limit."""
        spec = _spec(server, prefix, owner.name)
        if spec is not None and (answer := _asked(server, prefix, spec, owner.key, keys)):
            yield Entry(self.kind, owner.name, owner.key, answer, tuple(keys))
            return
        for key in keys:
            algorithm, _, _, period, *_ = key.partition("}:")[2].split(":")
            stored = " ".join(server.ends(key)) if algorithm == "sliding_log" else server.text(key)
            facts: dict[str, Any] = {"algorithm": algorithm, "period": float(period) / 1e6}
            if state := [float(word) for word in stored.split()]:
                facts |= _READ[algorithm](state, float(period), now)
            yield Entry(self.kind, owner.name, owner.key, facts, (key,))


def _spec(server: Connection, prefix: str, name: str) -> LimiterSpec | None:
    [text] = server.fields(catalogue_key(prefix), name)
    try:
        return spec_of(name, text) if text else None
    except (ValueError, TypeError, KeyError):  # of another version
        return None


def _asked(server: Connection, prefix: str, spec: LimiterSpec, key: str, found: Sequence[str]) -> dict[str, Any] | None:
    """What the limiter itself would hear, if those are its keys: a deploy may just be changing the limits."""
    limiter = RedisLimiter(spec, prefix, {}, _no_lane)
    target = limiter._make_target(key)
    if not set(found) & set(target.keys):
        return None
    costs = [str(min(1, rule.capacity)) for rule in spec.rules]
    try:
        decision = target.booking(server.run(target.call("peek", costs))).decision
    except NoPermissionError:  # who may only read, may run no script
        return None
    limits = [
        {"limit": rule.limit, "period": rule.period, "burst": rule.burst, "remaining": math.floor(left * 1000) / 1000}
        for rule, left in zip(spec.rules, decision.remaining, strict=True)
    ]
    return {"algorithm": spec.rules[0].algorithm, "wait": round(decision.wait, 3), "limits": limits}


def _no_lane() -> Lane:
    raise RuntimeError("nothing is sent through here")


def _arrival(state: Sequence[float], period: float, now: float) -> dict[str, float]:
    return {"free_in": max(0.0, seconds(state[0], now))}


def _tokens(state: Sequence[float], period: float, now: float) -> dict[str, float]:
    return {"tokens": round(state[0], 3), "counted": seconds(state[1], now)}


def _window(state: Sequence[float], period: float, now: float) -> dict[str, float]:
    end = (state[0] + 1) * period
    return {"used": state[1] if end > now else 0.0, "free_in": max(0.0, seconds(end, now))}


def _windows(state: Sequence[float], period: float, now: float) -> dict[str, float]:
    return {"used": state[1], "free_in": max(0.0, seconds((state[0] + 2) * period, now))}


def _log(state: Sequence[float], period: float, now: float) -> dict[str, float]:
    total, newest, _ = state
    return {"used": total, "free_in": max(0.0, seconds(newest + period, now))}


_READ: Mapping[str, Callable[[Sequence[float], float, float], dict[str, float]]] = {
    "gcra": _arrival,
    "leaky_bucket": _arrival,
    "token_bucket": _tokens,
    "fixed_window": _window,
    "sliding_window": _windows,
    "sliding_log": _log,
}
