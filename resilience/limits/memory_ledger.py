"""The account of one rate limiter in memory: reservations by id, and what others have counted.

    ledger = MemoryLedger((GCRA(20_000, 60.0),))
    ledger.reserve("tenant-7", "order-1", (1800,), max_wait=0.0, ttl=600.0)
    ledger.settle("tenant-7", "order-1", (1234,), ttl=600.0)

An id is remembered for the seconds it was given, counted from when its permit became valid or it was settled; of
more than `max_keys` the oldest are forgotten earlier.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import clock
from ..machines.rate_limiter import Decision, Rule, check_costs
from ..machines.rate_limiter.reserve import Record, reserve, settle
from .limiter_state import LocalLedger, Observation, Reserved
from .memory_limiter import MemoryLimiter


class MemoryLedger(MemoryLimiter, LocalLedger):
    """A limiter in memory that also keeps account."""

    def __init__(self, rules: Sequence[Rule[Any]], max_keys: int = 1_000_000, common: Sequence[int] = ()) -> None:
        super().__init__(rules, max_keys, common)
        # By key and id, with the time until which it is remembered; the oldest first.
        self._records: dict[tuple[str, str], tuple[float, Record]] = {}

    def observe(self, key: str, said: Sequence[Observation]) -> None:
        """Lower what remains to what somebody else says."""
        now = clock.now()
        states = [
            state if each is None else rule.observe(state, now, *each)
            for rule, state, each in zip(self._rules, self._states(key), said, strict=True)
        ]
        self._keep(key, states)

    def drain(self, key: str, seconds: Sequence[float | None]) -> None:
        """Leave nothing, and let nothing go for so many seconds."""
        now = clock.now()
        states = [
            state if each is None else rule.drain(state, now, each)
            for rule, state, each in zip(self._rules, self._states(key), seconds, strict=True)
        ]
        self._keep(key, states)

    def recall(self, key: str, id: str) -> Reserved | None:
        """What `reserve` would answer for an id that is known."""
        now, record = clock.now(), self._record(key, id)
        if record is None:
            return None
        return _reserved(reserve(self._rules, self._states(key), record, now, (), 0.0)[0], record)

    def enter(self, key: str, id: str, costs: Sequence[float], ttl: float) -> None:
        """Remember a reservation whose units have been taken by other means, and whose permit is valid."""
        marks = (None,) * len(self._rules)  # a valid permit is given back whatever was booked after it
        self._remember(key, id, Record(tuple(costs), clock.now(), 0, marks), ttl)

    def reserve(self, key: str, id: str, costs: Sequence[float], max_wait: float, ttl: float) -> Reserved:
        """Book like `acquire`, and remember the id. Raises ValueError for impossible costs."""
        check_costs(self._rules, costs)
        now, known = clock.now(), self._record(key, id)
        decision, states, record = reserve(self._rules, self._states(key), known, now, costs, max_wait)
        if record is None:
            return Reserved(decision)
        if record is not known:
            self._keep(key, states)
            self._remember(key, id, record, ttl)
        return _reserved(decision, record)

    def settle(self, key: str, id: str, actual: Sequence[float | None], ttl: float, known: bool = False) -> bool:
        """Charge the difference to what was reserved, or give it back; returns whether this settled it."""
        settled, states, record = settle(
            self._rules, self._states(key), self._record(key, id), clock.now(), actual, known
        )
        if settled and record is not None:
            self._keep(key, states)
            self._remember(key, id, record, ttl)
        return settled

    def _keep(self, key: str, states: Sequence[Any]) -> None:
        """Put back states that may lie far ahead: no generation that they are in may turn before that."""
        self._put_all(key, states)
        moments = [rule.fresh_at(one) for rule, one in zip(self._rules, states, strict=True) if one is not None]
        self._turn_at = max(self._turn_at, *moments, 0.0)

    def _record(self, key: str, id: str) -> Record | None:
        """What is known of an id."""
        known = self._records.get((key, id))
        return known[1] if known is not None and known[0] > clock.now() else None

    def _remember(self, key: str, id: str, record: Record, ttl: float) -> None:
        """Keep a record in the place of the newest, and let go of those whose time is over."""
        now, records = clock.now(), self._records
        records.pop((key, id), None)
        records[key, id] = max(record.valid_at, now) + ttl, record
        while len(records) > self._max_keys or next(iter(records.values()))[0] <= now:
            del records[next(iter(records))]


def _reserved(decision: Decision, record: Record) -> Reserved:
    return Reserved(decision, record.costs, record.settled)
