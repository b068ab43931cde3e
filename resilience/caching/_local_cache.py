"""A cache in this process: what to do with an entry, and with what a fetch brought.

local = LocalCache(judge, machine, flights, refreshes)
value = await local.answer(call, key, proceed)
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from .. import clock
from ..call import Call, Handler
from ..errors import another
from ..machines.cache import EARLY, FRESH, GONE, SPARE, STALE, CacheMachine, Entry
from ._cache_judge import Fetched, Judge, Kind, bare
from ._flight import Flight, Flights

MISSING: object = object()
"""No value, not even None."""


class LocalCache:
    """Answers calls from `machine`, and by what it lacks from `flights`; refreshes are in a table of their own."""

    def __init__(self, judge: Judge, machine: CacheMachine, flights: Flights, refreshes: Flights) -> None:
        self.machine = machine
        self._judge = judge
        self._flights = flights
        self._refreshes = refreshes

    async def answer(self, call: Call, key: Hashable, proceed: Handler) -> Any:
        """The value for a call: kept, fetched, or from a fetch that is under way."""
        value = self.kept(call, key, proceed)
        if value is not MISSING:
            return value
        flight = self._flights.find(key)
        if flight is not None:
            self._judge.joined(call, flight)
            return await flight.join(call)

        async def fetch(flight: Flight) -> Any:
            return await self.fetch(flight, key, proceed)

        flight = self._flights.start(key, call, fetch, discard=call.operation.discard)
        try:
            return await flight.join(call)
        finally:
            call.attempt = flight.call.attempt

    async def within(self, flight: Flight, key: Hashable, proceed: Handler) -> Any:
        """The value for all who wait for a flight of somebody else's."""
        value = self.kept(flight.call, key, proceed)
        return await self.fetch(flight, key, proceed) if value is MISSING else value

    def kept(self, call: Call, key: Hashable, proceed: Handler) -> Any:
        """What can be served now, or MISSING; begins a refresh if it is time. Raises an error that was kept."""
        judge = self._judge
        if key in judge.pending:
            judge.hit(call, "fresh")
            return judge.pending[key]
        entry = self.machine.get(key)
        if entry is None:
            return MISSING
        now = clock.now()
        freshness = entry.freshness(now, judge.draw())
        if freshness is GONE or (freshness is SPARE and now >= entry.paused_until):
            return MISSING
        if freshness in (EARLY, STALE) and now >= entry.paused_until:
            self._refresh(call, key, proceed, freshness.value)
        judge.hit(call, (FRESH if freshness is EARLY else freshness).value, entry.failed)
        if entry.failed:
            raise another(entry.value)
        return entry.value

    async def fetch(self, flight: Flight, key: Hashable, proceed: Handler, reason: str | None = None) -> Any:
        """Run a call that others may have joined, keep what it brought, and give it, or a spare one."""
        call, judge = flight.call, self._judge
        if reason is None:
            judge.missed(call)
        fetched = self._keep(flight, key, await judge.fetch(call, proceed))
        if reason is not None:
            judge.refreshed(call, reason, fetched)
        if fetched.kind in (Kind.GOOD, Kind.NEGATIVE) or (fetched.kind is Kind.PASSED and reason is None):
            return fetched.given()
        spare = self._spare(key)
        if spare is None:
            return fetched.given()
        if fetched.error is None:
            await call.operation.discard(fetched.value)
        if reason is None:
            judge.hit(call, SPARE.value)
        return spare.value

    def put(self, key: Hashable, value: Any) -> None:
        """Keep a value that was not fetched, in place of what a fetch under way will bring."""
        self.detach(key)
        before = self.machine.find(key)
        now, judge = clock.now(), self._judge
        duration = 0.0 if before is None else before.duration  # what the next fetch may take
        self.machine.put(key, judge.rule.entry(value, now, duration, judge.random()), now)

    def drop(self, key: Hashable) -> bool:
        """Forget what is kept, and what a fetch under way will bring."""
        self.detach(key)
        return self.machine.drop(key)

    def clear(self) -> None:
        """Forget everything."""
        for table in self._tables():
            table.detach_all()
        self.machine.clear()

    def detach(self, key: Hashable) -> None:
        """Nobody joins the fetch of that key any more, and what it brings is not kept."""
        for table in self._tables():
            table.detach(key)

    def _tables(self) -> Sequence[Flights]:
        return self._flights, self._refreshes

    def _refresh(self, call: Call, key: Hashable, proceed: Handler, reason: str) -> None:
        if self._refreshes.find(key) is not None:
            return

        async def refresh(flight: Flight) -> Any:
            return await self.fetch(flight, key, proceed, reason)

        self._refreshes.start(key, call, refresh, kept=True)

    def _keep(self, flight: Flight, key: Hashable, fetched: Fetched) -> Fetched:
        """Keep what is worth it; what a broken `weigh` raised is passed on in its place."""
        if fetched.kind not in (Kind.GOOD, Kind.NEGATIVE) or flight.detached:
            return fetched
        try:
            if self.machine.put(key, self._entry(fetched), clock.now()):
                flight.kept = True  # so that it is not discarded when nobody is left to take it
        except Exception as broken:
            return Fetched(Kind.PASSED, None, broken, fetched.duration)
        return fetched

    def _entry(self, fetched: Fetched) -> Entry:
        rule, now, luck = self._judge.rule, clock.now(), self._judge.random()
        if fetched.kind is Kind.GOOD:
            return rule.entry(fetched.value, now, fetched.duration, luck)
        if fetched.error is None:
            return rule.negative(fetched.value, now, luck, failed=False)
        return rule.negative(bare(fetched.error), now, luck, failed=True)

    def _spare(self, key: Hashable) -> Entry | None:
        """The value that may stand in for an error, for a while without another try."""
        entry, now = self.machine.find(key), clock.now()
        if entry is None or entry.failed or now >= entry.until:
            return None
        entry.paused_until = now + self._judge.pause
        return entry
