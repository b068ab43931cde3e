"""The slices of one leased limiter in one event loop: which keys have one, who waits, what is asked of the store.

    desk = Desk(terms, link)
    held = desk.held.get(key)                 # of keys in demand
    booking = held.decide(cost, max_wait)     # or None, or something to await
    desk.close()                              # everything goes back

Answers come as callbacks, so a question outlives whoever caused it, and callers wait for it without tasks.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from resilience import clock
from resilience.limits.limiter_state import Booking
from resilience.machines.leased_slice import INTERVAL, LEAST, LIFETIME, Answer, Ask, Gift, Slice, Verdict
from resilience.machines.rate_limiter.decide import Decision
from resilience.machines.rate_limiter.rule import text
from resilience_redis.connection.replies import as_text
from resilience_redis.connection.target import MICROSECONDS
from resilience_redis.scripts import Script

if TYPE_CHECKING:
    from resilience_redis.link import Link

# NamedTuples by the constructor that theirs wraps, at half the price: this is the path of most calls.
_new_decision: Callable[[type[Decision], tuple[object, ...]], Decision] = vars(tuple)["__new__"]
_new_booking: Callable[[type[Booking], tuple[object, ...]], Booking] = vars(tuple)["__new__"]

_number = itertools.count()


class Terms(NamedTuple):
    """What all slices of a limiter have in common."""

    script: Script
    arguments: tuple[str, ...]
    keys: Callable[[str], Sequence[str]]
    interval: float
    """How long a unit takes to come back, of the fastest limit."""
    limits: int
    """How many of them."""


class Desk:
    """The slices of one event loop, of the keys that are in demand there."""

    def __init__(self, terms: Terms, link: Link) -> None:
        self.terms = terms
        self.held: dict[str, Held] = {}
        self._link = link
        # Two limiters of one name may be in one process: each has its own slices.
        self._holder = f"{link.process}:{next(_number)}"
        self._serials = itertools.count(1)
        self._loop = asyncio.get_running_loop()
        self._asked: dict[str, float] = {}  # of keys without a slice, in this interval
        self._timer: asyncio.TimerHandle | None = None

    def notice(self, key: str) -> None:
        """Count a call of a key that has no slice; in demand is what is asked for more than once in an interval."""
        asked = self._asked[key] = self._asked.get(key, 0.0) + 1.0
        if asked >= LEAST and key not in self.held:
            self.held[key] = Held(self, key)
        if self._timer is None:
            self._timer = self._loop.call_later(INTERVAL, self._roll)

    def post(self, keys: Sequence[str], ask: Ask) -> asyncio.Future[Any]:
        """Send a question to the store."""
        micro = LIFETIME * MICROSECONDS, ask.ahead * MICROSECONDS
        numbers = (next(self._serials), ask.left, ask.returned, ask.want, *micro)
        arguments = (*self.terms.arguments, self._holder, *map(text, numbers))
        return self._link.post(self.terms.script, keys, arguments)

    def drop(self, key: str) -> None:
        """Use nothing of a key's slice any more."""
        held = self.held.pop(key, None)
        if held is not None:
            held.slice.drop()

    def close(self) -> None:
        """Give everything back."""
        if self._timer is not None:
            self._timer.cancel()
        for held in self.held.values():
            held.close()
        self.held.clear()

    def _roll(self) -> None:
        """End an interval: look at demand anew, give back what lies unused, forget what is not used at all."""
        self._asked.clear()
        now = clock.now()
        for key, held in list(self.held.items()):
            held.slice.roll(now)
            if not held.slice.active:
                del self.held[key]
            elif held.slice.excess(now) and not held.slice.asking:
                held.ask(now)
        self._timer = self._loop.call_later(INTERVAL, self._roll) if self.held else None


class Held:
    """The slice of one key, and the calls that wait for the answer to the question under way, in order."""

    __slots__ = ("_closed", "_desk", "_keys", "_waiting", "binding", "key", "slice")

    def __init__(self, desk: Desk, key: str) -> None:
        self.key = key
        self.binding = 0
        """The index of the limit that refuses, as the store has last said."""
        self.slice: Slice = Slice(desk.terms.interval, clock.now())
        self._desk = desk
        self._keys = desk.terms.keys(key)
        self._closed = False
        self._waiting: deque[tuple[float, float, asyncio.Future[Booking | None]]] = deque()

    def decide(self, cost: float, patience: float) -> Booking | asyncio.Future[Booking | None] | None:
        """Answer a call: a booking, None if it has to ask the store for itself, or what it has to wait for."""
        now = clock.now()
        answer = self.slice.decide(now, cost, patience)
        if answer.verdict is not Verdict.ASK:
            if self.slice.wanting(now):
                self.ask(now)
            return self._booking(answer)
        future: asyncio.Future[Booking | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((cost, patience, future))
        if not self.slice.asking:
            self.ask(now)
        return future

    async def answer(self, future: asyncio.Future[Booking | None], cost: float) -> Booking | None:
        """Wait for the answer; what a cancelled caller was given goes back into the slice."""
        try:
            return await future
        except asyncio.CancelledError:
            booking = None if future.cancelled() or future.exception() else future.result()
            if booking is not None and booking.decision.allowed:
                self.slice.give_back(clock.now(), cost, booking.stamp)
            raise

    def refused(self, cost: float, decision: Decision) -> None:
        """Remember what the store has said to a call of its own."""
        self.binding = decision.binding
        self.slice.refused(clock.now(), cost, decision.wait)

    def ask(self, now: float) -> None:
        """Ask the store for as much as is in demand; give back what is not."""
        self._desk.post(self._keys, self.slice.ask(now)).add_done_callback(functools.partial(self._answered, now))

    def close(self) -> None:
        """Give back what can be used at once, and want no more; with the answer under way the same once it is here."""
        self._closed = True
        left = self.slice.held(clock.now())
        returned = float(math.floor(self.slice.loose))
        self.slice.drop()
        if returned:
            self._desk.post(self._keys, Ask(float(math.ceil(left - returned)), returned, 0.0, 0.0))

    def _answered(self, sent: float, future: asyncio.Future[Any]) -> None:
        now = clock.now()
        error = None if future.cancelled() else future.exception()
        reply = "stale" if future.cancelled() or error else as_text(future.result())
        if reply == "stale":
            self.slice.failed(now)
        else:
            loose, lease, fresh, wait, others, binding = map(float, reply.split(","))
            self.binding = int(binding)
            gift = Gift(loose, lease / MICROSECONDS, fresh, _seconds(wait), _seconds(others))
            self.slice.granted(sent, now, gift)
        self._serve(now, error)
        if self._closed:
            self.close()

    def _serve(self, now: float, error: BaseException | None) -> None:
        """Answer those who wait, first come first served, as far as the slice goes; the rest asks for itself."""
        waiting, self._waiting = self._waiting, deque()
        while waiting:
            cost, patience, future = waiting[0]
            if not future.done():
                answer = self.slice.again(now, cost, patience)
                if answer.verdict is Verdict.ASK:
                    self._waiting = waiting
                    self.ask(now)
                    return
                booking = self._booking(answer)
                if booking is None and error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(booking)
            waiting.popleft()

    def _booking(self, answer: Answer) -> Booking | None:
        verdict, wait, lot = answer
        if verdict is Verdict.STRICT:
            return None
        count = self._desk.terms.limits
        if verdict is Verdict.TAKEN:
            return Booking(Decision(True, wait, 0, (self.slice.loose,) * count), lot)
        return Booking(Decision(False, wait, self.binding, (0.0,) * count))


def booked(source: Slice, count: int) -> Booking:
    """Return a booking at once from a slice; its stamp is the lot into which it can be put back."""
    loose = source.loose
    decision = _new_decision(Decision, (True, 0.0, 0, (loose,) if count == 1 else (loose,) * count))
    return _new_booking(Booking, (decision, source.lots.all[0]))


def _seconds(microseconds: float) -> float:
    """Rounded up to the next microsecond: never early."""
    return math.ceil(microseconds) / MICROSECONDS
