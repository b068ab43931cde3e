"""A cache that processes share: one of them fetches for all, and each works alone while the store is away.

    shared = SharedCache(judge, remote, codec, local, lease=10.0, known={"app.NotFound": NotFound})
    value = await shared.answer(call, key, proceed)

All callers of a key in this process share one flight, which asks the store: serve what is there, wait for whoever
fetches, or fetch, with a lease that is renewed until the value is stored. A process that gives up releases its lease;
that of one that crashed ends by itself.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

from .._outage import Outage
from ..call import Call, Handler
from ..errors import StoreUnavailableError
from ..machines.cache import SPARE
from ..machines.cache_lease import Look
from ..outcome import Outcome
from ..running._jobs import begin
from ._cache_judge import Fetched, Judge, Kind
from ._cache_letters import Letters, UnreadableError
from ._flight import Flight, Flights
from ._local_cache import LocalCache
from .cache_state import Life, RemoteCache, Watch

if TYPE_CHECKING:
    from .codecs import Codec

FIRST_NAP = 0.05
LONGEST_NAP = 1.0
"""Seconds between two looks for what another process fetches, at first and at last. The news come sooner."""

PATIENCE = 1.0
"""Seconds for giving a lease back, should the store's own timeout not end it."""

_SERVED = {"fresh": "fresh", "early": "fresh", "refresh": "stale", "stale": "stale", "spare": "spare"}


class SharedCache:
    """Answers calls from `remote`, and from `local` while that does not answer.

    `known` are the errors that may be kept, by name.
    """

    def __init__(
        self,
        judge: Judge,
        remote: RemoteCache,
        codec: Codec,
        local: LocalCache,
        lease: float,
        known: Mapping[str, type[Exception]],
    ) -> None:
        self.outage = Outage(judge.policy, "local")
        self._judge = judge
        self._remote = remote
        self._letters = Letters(codec, known)
        self._local = local
        self._lease = lease
        self._flights = Flights()
        self._refreshes = Flights()
        self._unanswered: deque[tuple[str, str]] = deque(maxlen=1000)

    async def answer(self, call: Call, key: str, proceed: Handler) -> Any:
        """The value for a call."""
        if key in self._judge.pending:
            self._judge.hit(call, "fresh")
            return self._judge.pending[key]
        flight = self._flights.find(key)
        if flight is not None:
            self._judge.joined(call, flight)
            return await flight.join(call)

        async def ask(flight: Flight) -> Any:
            return await self._ask(flight, key, proceed)

        flight = self._flights.start(key, call, ask, discard=call.operation.discard)
        try:
            return await flight.join(call)
        finally:
            call.attempt = flight.call.attempt

    async def peek(self, key: str) -> Outcome[Any] | None:
        """What is kept; None if there is nothing. Raises StoreUnavailableError."""
        look = await self._remote.look(key, "", self._lease, 0.0)
        if look.state == "none":
            return None
        try:
            return Outcome(self._letters.value_of(look))
        except UnreadableError:
            return None
        except Exception as kept:
            return Outcome(error=kept)

    async def put(self, key: str, value: Any) -> None:
        """Keep a value that was not fetched. Raises StoreUnavailableError, and what the codec raises."""
        payload = self._letters.codec.encode(value)
        self._flights.detach(key)
        self._refreshes.detach(key)
        self._local.drop(key)
        await self._remote.store(key, "", Kind.GOOD.value, payload, self._life(0.0))

    async def drop(self, key: str) -> bool:
        """Forget an entry everywhere. Raises StoreUnavailableError."""
        self._flights.detach(key)
        self._refreshes.detach(key)
        self._local.drop(key)
        return await self._remote.drop(key)

    async def clear(self) -> None:
        """Forget all entries everywhere. Raises StoreUnavailableError."""
        self._flights.detach_all()
        self._refreshes.detach_all()
        self._local.clear()
        await self._remote.clear()

    async def _ask(self, flight: Flight, key: str, proceed: Handler) -> Any:
        token, nap = uuid.uuid4().hex, FIRST_NAP
        watch: Watch | None = None
        try:
            while True:
                look = await self._look(flight.call, key, token)
                if look is None:
                    return await self._alone(flight, key, proceed)
                if look.state == "lease":
                    return await self._lead(flight, key, token, look, proceed)
                if look.state != "wait":
                    try:
                        return self._serve(flight.call, key, token, look, proceed)
                    except UnreadableError:
                        await self._forget(key)
                elif watch is None:
                    watch = self._remote.watch(key)  # and look again: it may have ended in between
                else:
                    await watch.wait(min(nap, look.left + 0.001))
                    nap = min(2 * nap, LONGEST_NAP)
        finally:
            if watch is not None:
                watch.close()

    async def _look(self, call: Call, key: str, token: str) -> Look | None:
        """What the store says; None while it is away."""
        try:
            look = await self._remote.look(key, token, self._lease, self._judge.draw())
        except StoreUnavailableError as error:
            self.outage.began(call.operation.name, error)
            self._unanswered.append((key, token))
            return None
        except BaseException:  # cancelled: the lease that the store may be about to give is nobody's
            await self._release(key, token)
            raise
        if self.outage.degraded:
            self._back(call)
        return look

    def _back(self, call: Call) -> None:
        """The store answers again."""
        self.outage.ended(call.operation.name)
        self._local.clear()  # the next outage begins with nothing from this one
        if self._unanswered:
            begin(self._release_unanswered)

    async def _release_unanswered(self) -> None:
        """What was asked last may have been granted, although nobody heard of it."""
        while self._unanswered:
            await self._release(*self._unanswered.popleft())

    async def _release(self, key: str, token: str, pause: float = 0.0) -> None:
        """End a lease. In its flight, so that nothing is left over; whoever is cancelled waits for it, for a while."""
        with suppress(StoreUnavailableError):  # then it ends by itself
            with anyio.move_on_after(PATIENCE, shield=True):
                await self._remote.release(key, token, pause)

    def _serve(self, call: Call, key: str, token: str, look: Look, proceed: Handler) -> Any:
        if look.state in ("early", "refresh"):
            self._refresh(call, key, token, look, proceed)
        self._judge.hit(call, _SERVED[look.state], look.kind != Kind.GOOD.value)
        return self._letters.value_of(look)

    async def _alone(self, flight: Flight, key: str, proceed: Handler) -> Any:
        """What a cache of this process would do."""
        self.outage.admitted += 1
        return await self._local.within(flight, key, proceed)

    async def _lead(
        self, flight: Flight, key: str, token: str, look: Look, proceed: Handler, reason: str | None = None
    ) -> Any:
        """Fetch for all, with a lease that is renewed meanwhile."""
        call, judge = flight.call, self._judge
        if reason is None:
            judge.missed(call)
        # Who comes after the entry was put or dropped elsewhere does not join what began before.
        stop = self._remote.renewing(key, token, self._lease, lost=flight.detach)
        pause, stored = 0.0, False
        try:
            fetched = await judge.fetch(call, proceed)
            if fetched.kind in (Kind.GOOD, Kind.NEGATIVE):
                fetched, stored = await self._keep(call, key, token, fetched)
            if reason is not None:
                judge.refreshed(call, reason, fetched)
            if fetched.kind is Kind.FAILED or reason is not None:
                pause = judge.pause
            return await self._given(call, look, fetched, reason)
        finally:
            stop()
            if not stored:
                await self._release(key, token, pause)

    async def _keep(self, call: Call, key: str, token: str, fetched: Fetched) -> tuple[Fetched, bool]:
        """Store what is worth it, which ends the lease; a value that cannot be encoded is an error in its place."""
        try:
            kind, payload = self._letters.encode(fetched)
        except Exception as unfit:
            if fetched.error is not None:
                fetched.error.add_note(f"{self._judge.policy.name} could not keep it: {unfit}")
                return fetched, False
            await call.operation.discard(fetched.value)
            return Fetched(Kind.PASSED, None, unfit, fetched.duration), False
        life = self._life(fetched.duration)
        if fetched.kind is Kind.NEGATIVE:
            life = Life(self._judge.rule.life(self._judge.random(), negative=True))
        try:
            await self._remote.store(key, token, kind, payload, life)
        except StoreUnavailableError as error:
            self.outage.began(call.operation.name, error)
            return fetched, False
        return fetched, True

    async def _given(self, call: Call, look: Look, fetched: Fetched, reason: str | None) -> Any:
        """The value, the error, or the spare value that went along with the lease."""
        if fetched.kind is not Kind.FAILED or not look.payload:
            return fetched.given()
        try:
            spare = self._letters.value_of(look)
        except UnreadableError:
            return fetched.given()
        if fetched.error is None:
            await call.operation.discard(fetched.value)
        if reason is None:
            self._judge.hit(call, SPARE.value)
        return spare

    def _refresh(self, call: Call, key: str, token: str, look: Look, proceed: Handler) -> None:
        reason = "early" if look.state == "early" else "stale"

        async def refresh(flight: Flight) -> Any:
            return await self._lead(flight, key, token, look, proceed, reason)

        self._refreshes.start(key, call, refresh, kept=True)

    async def _forget(self, key: str) -> None:
        try:
            await self._remote.drop(key)
        except StoreUnavailableError:
            return  # the next look finds out

    def _life(self, duration: float) -> Life:
        rule = self._judge.rule
        return Life(rule.life(self._judge.random()), rule.stale_for, rule.stale_if_error, duration)
