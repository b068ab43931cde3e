"""One request at one endpoint, from the choice to the end of its body; and which endpoints its attempts have met."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from resilience import clock, current_deadline
from resilience.events import EndpointAnswered, EndpointEjected, EndpointRestored
from resilience.machines.balancing import Pool, Ticket
from resilience.verdict import FAILURE, IGNORED, SUCCESS, Classifier, Verdict

from .base import Announcer
from .members import Member

_EARLY = 0.001
"""Timers of event loops may be early by that many seconds."""


class Tried:
    """The endpoints at which attempts at one request are under way or have failed.

    The attempts of a retry or a hedge are copies of one request that share its body, and nothing else: the body
    tells which belong together.
    """

    def __init__(self) -> None:
        self._by_body: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()

    def of(self, request: Any) -> set[str]:
        """The names of those endpoints; to be added to."""
        try:
            return self._by_body.setdefault(request.stream, set())
        except TypeError:  # a body that cannot be referenced weakly: its attempts do not know of each other
            return set()


class Passage:
    """Counts one request and judges it, once.

    A cancelled request says nothing, unless what cancelled it is a deadline that was known when it began: an endpoint
    that hangs under a `Timeout` outside must be found out. Under trio that includes deadlines of the caller's scopes.
    """

    __slots__ = (
        "_announcer",
        "_classifier",
        "_deadline",
        "_measured",
        "_over",
        "_pool",
        "_ticket",
        "_tried",
        "_verdict",
        "member",
    )

    def __init__(
        self,
        member: Member,
        ticket: Ticket,
        pool: Pool,
        tried: set[str],
        classifier: Classifier,
        announcer: Announcer,
    ) -> None:
        self.member = member
        self._ticket = ticket
        self._pool = pool
        self._tried = tried
        self._classifier = classifier
        self._announcer = announcer
        self._verdict: Verdict = SUCCESS
        self._measured: float | None = None
        self._over = False
        deadline = current_deadline()
        # One that has passed already is none of this request's; a trio scope that is cancelled has such a one.
        self._deadline = deadline if deadline is not None and deadline > ticket.started else None
        tried.add(member.state.name)

    def answered(self, response: Any, whole: bool) -> None:
        """The headers are there. Unless the latency of the `whole` is wanted, it is the time until now."""
        judge = self._classifier.result
        self._verdict = SUCCESS if judge is None else judge(response)
        if not whole:
            self._measured = self._pool.answered(self._ticket, clock.now())

    def end(self, error: BaseException | None = None) -> None:
        """The body was read or closed, or something broke with `error`. Again does nothing."""
        if self._over:
            return
        self._over = True
        now, state = clock.now(), self.member.state
        verdict = self._verdict
        if error is not None:
            verdict = self._classifier.error(error) if isinstance(error, Exception) else self._cancelled(now)
        success = None if verdict is IGNORED else verdict is SUCCESS
        if success:
            self._tried.discard(state.name)
        transition = self._pool.end(self._ticket, now, success, self._measured)
        tell = self._announcer
        tell.emit(EndpointAnswered, state.name, now - self._ticket.started, verdict.value)
        if transition == "ejected":
            tell.emit(EndpointEjected, state.name, (state.ejected_until or now) - now)
        elif transition == "restored":
            tell.emit(EndpointRestored, state.name)

    def _cancelled(self, now: float) -> Verdict:
        late = self._deadline is not None and now >= self._deadline - _EARLY
        return FAILURE if late else IGNORED

    async def settle(self) -> None:
        """Close the connections of an endpoint that was removed, after the last request."""
        if self.member.over:
            await self.member.aclose()
