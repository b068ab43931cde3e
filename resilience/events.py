"""What happens, as frozen records; who wants to know, as plain callables.

    def listener(event: Event) -> None:
        print(event.kind, event)

    payments.listen(listener)

Logging, metrics and traces are listeners. A listener that raises is logged and never breaks a call; while
nobody listens no event is built at all.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, TypeAlias

logger: logging.Logger = logging.getLogger("resilience")


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events. `operation` names the call (empty when no call is involved), `policy` the policy."""

    operation: str
    policy: str

    @property
    def kind(self) -> str:
        """The event's name in snake case, such as `circuit_opened`."""
        return _snake(type(self).__name__)

    def as_dict(self) -> dict[str, Any]:
        """The fields as a plain dictionary, for loggers."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


Listener: TypeAlias = Callable[[Event], object]


@cache
def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def emit(listeners: Sequence[Listener], event: Event) -> None:
    """Tell every listener; one that raises is logged and skipped."""
    for listener in tuple(listeners):
        try:
            listener(event)
        except Exception:
            logger.exception("listener %r failed on %r", listener, event)


@dataclass(frozen=True, slots=True)
class CallSucceeded(Event):
    """A pipeline's call returned. `duration` in seconds; `attempts` counts the tries that were made."""

    duration: float
    attempts: int


@dataclass(frozen=True, slots=True)
class CallFailed(Event):
    """A pipeline's call raised: the call's own error, a rejection or a timeout."""

    duration: float
    attempts: int
    error: Exception


@dataclass(frozen=True, slots=True)
class CallRejected(Event):
    """A policy refused a call before it ran; with `shadow`, it would have refused and let the call pass."""

    error: Exception
    retry_after: float | None
    shadow: bool


@dataclass(frozen=True, slots=True)
class CallTimedOut(Event):
    """The deadline of a `Timeout` passed and the call was cancelled."""

    seconds: float


@dataclass(frozen=True, slots=True)
class RetryScheduled(Event):
    """Attempt number `attempt` failed; the next one starts in `delay` seconds."""

    attempt: int
    delay: float
    error: Exception | None
    """None when the attempt returned a value that counts as a failure."""


@dataclass(frozen=True, slots=True)
class RetryGaveUp(Event):
    """A failed call is not tried again: `reason` says whether attempts, deadline, budget or advice end it."""

    attempt: int
    reason: str
    error: Exception | None


@dataclass(frozen=True, slots=True)
class HedgeStarted(Event):
    """The call had no answer for `waited` seconds, and attempt number `attempt` starts beside those under way."""

    key: str
    attempt: int
    waited: float


@dataclass(frozen=True, slots=True)
class HedgeWon(Event):
    """Attempt number `attempt` of a hedged call (1: the first) answered first, after `duration` seconds in all."""

    key: str
    attempt: int
    duration: float


@dataclass(frozen=True, slots=True)
class ChaosInjected(Event):
    """A fault was made on purpose: `latency` seconds of delay, an `error`, or another `fault`; empty for none."""

    key: str
    fault: str
    latency: float
    error: Exception | None


@dataclass(frozen=True, slots=True)
class CircuitOpened(Event):
    """The circuit of `key` opened for `open_for` seconds."""

    key: str
    generation: int
    open_for: float


@dataclass(frozen=True, slots=True)
class CircuitHalfOpened(Event):
    """The circuit of `key` lets its first probe through."""

    key: str
    generation: int


@dataclass(frozen=True, slots=True)
class CircuitClosed(Event):
    """The circuit of `key` closed: probes succeeded, or it was reset by hand."""

    key: str
    generation: int


@dataclass(frozen=True, slots=True)
class CircuitIsolated(Event):
    """The circuit of `key` was opened by hand and stays open until it is reset."""

    key: str
    generation: int


@dataclass(frozen=True, slots=True)
class PermitAwaited(Event):
    """A call was admitted after waiting `waited` seconds for a bulkhead permit or a rate limit."""

    key: str
    waited: float


@dataclass(frozen=True, slots=True)
class BulkheadResized(Event):
    """A bulkhead's limit was changed while it was in use."""

    limit: int


@dataclass(frozen=True, slots=True)
class PermitLost(Event):
    """The lease of a shared permit ended while its call ran; `cancelled` says whether the call was ended too."""

    key: str
    cancelled: bool


@dataclass(frozen=True, slots=True)
class FallbackUsed(Event):
    """A failed call was answered by a fallback; `source` is `value`, `function` or `last_good`."""

    source: str
    error: Exception | None


@dataclass(frozen=True, slots=True)
class CallCoalesced(Event):
    """A call waits for the result of an equal one that is under way; `waiting` callers do, this one included."""

    waiting: int


@dataclass(frozen=True, slots=True)
class CacheHit(Event):
    """A call was answered by what a cache kept; `freshness` is `fresh`, `stale` or `spare` (in place of an error)."""

    freshness: str
    negative: bool


@dataclass(frozen=True, slots=True)
class CacheMissed(Event):
    """A cache had nothing to answer a call with, and its function runs."""


@dataclass(frozen=True, slots=True)
class CacheRefreshed(Event):
    """A cached value was replaced in the background; `reason` is `early` or `stale`, `duration` in seconds."""

    reason: str
    duration: float


@dataclass(frozen=True, slots=True)
class CacheRefreshFailed(Event):
    """A refresh in the background brought nothing; the cached value stays while it may."""

    reason: str
    error: Exception | None
    """None when it returned a value that counts as a failure."""


@dataclass(frozen=True, slots=True)
class CacheWriteFailed(Event):
    """A write behind a cache was lost: what the cache had of it is forgotten. `waiting` others are still to come."""

    error: BaseException
    waiting: int


@dataclass(frozen=True, slots=True)
class EndpointAnswered(Event):
    """A request to one of several endpoints ended: `success`, `failure` or `ignored`, after `duration` seconds."""

    endpoint: str
    duration: float
    verdict: str


@dataclass(frozen=True, slots=True)
class EndpointEjected(Event):
    """An endpoint failed again and again, and gets no requests for `ejected_for` seconds."""

    endpoint: str
    ejected_for: float


@dataclass(frozen=True, slots=True)
class EndpointRestored(Event):
    """An endpoint that was ejected answers again."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class EndpointHealthChanged(Event):
    """Active checks found an endpoint `healthy` again, or no longer."""

    endpoint: str
    healthy: bool


@dataclass(frozen=True, slots=True)
class EndpointsChanged(Event):
    """The list of endpoints changed: `added` and `removed` name them."""

    added: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EndpointsUnresolved(Event):
    """A new list of endpoints could not be had; the old one stays in use."""

    error: Exception


@dataclass(frozen=True, slots=True)
class EndpointsPanicked(Event):
    """So few endpoints are fit for use (`fit` of `total`) that health is ignored from now on."""

    fit: int
    total: int


@dataclass(frozen=True, slots=True)
class ShadowAnswered(Event):
    """The copy of a request that was sent to `route` ended after `duration` seconds with a `status` or an `error`."""

    route: str
    status: int | None
    duration: float
    error: Exception | None


@dataclass(frozen=True, slots=True)
class ShadowDropped(Event):
    """No copy of a request was sent to `route`: as many as allowed are under way."""

    route: str


@dataclass(frozen=True, slots=True)
class StoreDegraded(Event):
    """The shared store does not answer; until it does, the policy works `locally`, `open` or `closed`."""

    behaviour: str
    error: Exception


@dataclass(frozen=True, slots=True)
class StoreRecovered(Event):
    """The shared store answers again after `degraded_for` seconds."""

    degraded_for: float
