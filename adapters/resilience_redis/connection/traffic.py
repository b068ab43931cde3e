"""What waits to be sent to one server, and what is under way.

    traffic = Traffic(wire, guard, timeout=0.04, connect_timeout=1.0, give_back=refund)
    traffic.add(groups)     # of one turn of the event loop

A few round trips may be under way at once; what comes meanwhile waits and travels together. A command is never
cancelled with its caller: it ends by itself, or is given up after the time that connecting may take.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, TypeAlias

from redis.exceptions import InvalidResponse, NoScriptError

from resilience.errors import StoreUnavailableError
from resilience_redis.connection.batch import Batch, Errand, Grant, Group, Single, load
from resilience_redis.connection.guard import Guard
from resilience_redis.connection.outage import means_away
from resilience_redis.connection.trips import Cargo, Trip, Turn
from resilience_redis.connection.wire import Wire
from resilience_redis.scripts import Script

WIDTH = 8
"""Round trips of one event loop that may be under way at once."""

_TICK = 0.001
"""Seconds between two looks at the clock, at least."""

_STALL = 0.01
"""Seconds by which the clock is looked at too late if the event loop was held up, and then once more."""

Form: TypeAlias = Callable[[Script, Sequence[str], Sequence[str]], tuple[Any, ...]]
"""How a script is called: by its SHA-1, or with its source."""


class Traffic:
    """Of one event loop with one server."""

    def __init__(
        self,
        wire: Wire,
        guard: Guard,
        timeout: float,
        connect_timeout: float,
        give_back: Callable[[list[Grant]], None],
    ) -> None:
        self._wire = wire
        self._guard = guard
        self._timeout = timeout
        # Connecting may take longer than anybody waits for it: it goes on behind their backs.
        self._give_up = timeout + connect_timeout
        self._give_back = give_back
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Turn] = []
        self._trips: dict[Trip, None] = {}  # in the order in which they began
        self._overdue: dict[Trip, None] = {}  # those of before an outage; they keep nobody else waiting
        self._expected = False  # that something is about to be added
        self._settling = 0  # trips whose callers are being told
        self._tasks: set[asyncio.Task[None]] = set()
        self._borrowing: asyncio.Task[None] | None = None
        self._borrow_until = 0.0
        self._idle = asyncio.Event()
        self._idle.set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self.suspect: str = ""
        """A key of the command that failed last: where to look whether the server is back."""

    def expect(self) -> None:
        """Something will be added: it is too early to be drained."""
        self._expected = True
        self._idle.clear()

    def add(self, groups: list[Group | Errand]) -> None:
        """Send what was asked in one turn of the loop, as soon as not too much is under way."""
        self._expected = False
        turn = Turn(groups, self._loop.time() + self._timeout)
        if not self._guard.available:  # since then
            turn.fail(self._guard.refusal())
            self._look_if_idle()
            return
        self._waiting.append(turn)
        if self._timer is None:
            self._set_timer(turn.until)
        self._depart()

    def stop(self) -> None:
        """Keep nobody waiting who was not sent yet, and send what comes later over another connection."""
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            turn.fail(self._guard.refusal())
        self._overdue |= self._trips
        self._trips = {}
        self._wire.retire()

    async def drain(self) -> None:
        """Wait until everything has ended, and keep no connection."""
        self._look_if_idle()
        await self._idle.wait()
        self._wire.retire()
        await self._wire.rest()

    def _depart(self) -> None:
        while self._waiting and len(self._trips) < WIDTH:
            if self._wire.lends and self._wire.loan is None:
                if self._borrowing is None:
                    self._borrow_until = self._loop.time() + self._give_up
                    self._borrowing = self._start(self._borrow())
                break
            turns, self._waiting = self._waiting, []
            if cargo := load(chain.from_iterable(turn.groups for turn in turns)):
                self._begin(turns, cargo, Script.by_sha)
        self._look_if_idle()

    def _begin(self, turns: list[Turn], cargo: Cargo, form: Form) -> None:
        trip = Trip(turns, cargo, self._loop.time() + self._give_up)
        self._trips[trip] = None
        loan = self._wire.loan
        packed = loan is not None  # a client may want to read bytes as text
        commands = [form(*each.call(packed=packed)) for each in cargo]
        if loan is not None:
            trip.by = loan
            try:
                loan.write(commands, partial(self._arrived, trip))
            except ValueError as error:  # what has no bytes
                self._arrived(trip, error)
        else:
            trip.by = self._start(self._carry(trip, commands))

    async def _borrow(self) -> None:
        failure: Exception = StoreUnavailableError("Redis could not be connected to in time")
        try:
            await self._wire.borrow()
        except Exception as error:
            failure = error
            self._judge(error)
        finally:
            self._borrowing = None
            if self._wire.loan is None:
                waiting, self._waiting = self._waiting, []
                for turn in waiting:
                    turn.fail(failure)
            self._depart()

    async def _carry(self, trip: Trip, commands: list[tuple[Any, ...]]) -> None:
        """Send through the client, where there is no connection to be had."""
        replies: list[Any] | Exception = TimeoutError("given up")
        try:
            replies = await self._wire.exchange(commands)
        except Exception as error:
            replies = error
        finally:
            self._arrived(trip, replies)

    def _arrived(self, trip: Trip, replies: list[Any] | Exception) -> None:
        current = trip in self._trips
        (self._trips if current else self._overdue).pop(trip)
        if isinstance(replies, Exception):
            replies = [replies] * len(trip.cargo)
        if current:  # what happened before an outage says nothing of what is
            self._judge_all(trip.cargo, replies)
        self._settling += 1
        self._go_on(trip, self._settle(trip, replies))

    def _go_on(self, trip: Trip, settling: Iterator[None]) -> None:
        """Tell some callers now, and the others in the loop's next turn."""
        paused = False
        try:
            for _ in settling:
                self._loop.call_soon(self._go_on, trip, settling)
                paused = True
                return
        except Exception as error:  # a mistake of ours; nobody may wait for ever because of it
            for each in trip.cargo:
                each.fail(error)
            raise
        finally:
            if not paused:
                self._settling -= 1
                self._depart()

    def _settle(self, trip: Trip, replies: list[Any]) -> Iterator[None]:
        """Tell everybody, and send once more what the server has no script for."""
        late: list[Grant] = []
        unknown: Cargo = []
        for each, reply in zip(trip.cargo, replies, strict=True):
            if isinstance(reply, NoScriptError):
                unknown.append(each)
            else:
                try:
                    yield from each.settle(reply, late)
                except (ValueError, IndexError, RuntimeError):
                    each.fail(InvalidResponse(f"an answer that is none of our scripts': {reply!r}"))
        if unknown:
            self._begin(trip.turns, unknown, Script.by_source)
        if late:
            self._give_back(late)

    def _judge_all(self, cargo: Cargo, replies: list[Any]) -> None:
        for each, reply in zip(cargo, replies, strict=True):
            if isinstance(reply, Exception) and self._judge(reply, each):
                return
        self._guard.heard()

    def _judge(self, error: Exception, culprit: Batch | Single | Errand | None = None) -> bool:
        """Tell the guard what an error says of the server, if anything."""
        certain = means_away(error)
        if certain is None:
            return False
        if culprit is not None and (keys := culprit.call()[1]):
            self.suspect = keys[0]
        self._guard.missed(error, certain=certain)
        return True

    def _look_at_the_clock(self) -> None:
        """Let callers go whose time is over, and give up on what takes too long even for connecting."""
        now = self._loop.time()
        if now > self._due + _STALL and not self._wire.lends:  # answers may lie here that redis-py had no time to read
            self._set_timer(now + _STALL)
            return
        try:
            self._let_go(now)
        finally:  # even if something raised: without this timer everybody waits for ever
            self._timer = None
            if (due := self._next_due()) < math.inf:
                self._set_timer(max(due, now + _TICK))

    def _let_go(self, now: float) -> None:
        expired = [turn for turn in self._waiting if turn.until <= now]
        self._waiting = [turn for turn in self._waiting if turn.until > now]
        culprits = [trip.cargo[0] for trip in self._trips if trip.is_late(now)]
        for trip in (*self._trips, *self._overdue):
            expired += trip.drop_turns(now)
        silence = f"Redis did not answer within {self._timeout:g} seconds"
        if culprits or (expired and self._borrowing):
            self._judge(TimeoutError(silence), *culprits[:1])
        for turn in expired:
            turn.fail(StoreUnavailableError(silence))
        self._give_up_what_is_due(now)
        if self._wire.look():
            self._start(self._wire.rest())

    def _set_timer(self, due: float) -> None:
        self._due = due
        self._timer = self._loop.call_at(due, self._look_at_the_clock)

    def _next_due(self) -> float:
        """When the clock is to be looked at next."""
        due = [turn.until for turn in self._waiting]
        for trip in (*self._trips, *self._overdue):
            due += [trip.give_up, *(turn.until for turn in trip.turns)]
        if self._borrowing is not None:
            due.append(self._borrow_until)
        if self._wire.loan is not None:
            due.append(self._loop.time() + self._timeout)
        return min(due, default=math.inf)

    def _give_up_what_is_due(self, now: float) -> None:
        for trip in (*self._trips, *self._overdue):
            if trip.give_up <= now:
                trip.end()
        if self._borrowing is not None and self._borrow_until <= now:
            self._borrowing.cancel()

    def _look_if_idle(self) -> None:
        under_way = self._waiting or self._trips or self._overdue or self._settling or self._borrowing
        if not (under_way or self._expected):
            self._idle.set()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
