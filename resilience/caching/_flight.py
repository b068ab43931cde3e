"""Single-flight: one run of a function for all who want its result at the same time.

    flights = Flights()
    flight = flights.find(key) or flights.start(key, call, work)
    result = await flight.join(call)

The run is a task of its own, so it survives the cancellation of whoever began it. It is cancelled when the last who
waited for it has gone, and he goes when it has ended, as if he had run it himself. Its deadline is the latest of those
who wait; the deadlines of the others are theirs alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeAlias

from ..call import Call
from ..errors import another
from ..running._deadlines import current_asyncio_task, deadline_of
from ..running._jobs import Job, begin, home, is_cancellation
from ..running._parking import Waiter, park, wake

Work: TypeAlias = "Callable[[Flight], Awaitable[Any]]"
Discard: TypeAlias = "Callable[[Any], Awaitable[None]]"

_NOTHING = object()


class Flight:
    """One run, and those who wait for it.

    `call` is the record that the run works with: a copy of the first caller's.
    """

    __slots__ = (
        "_discard",
        "_error",
        "_flights",
        "_job",
        "_joined",
        "_key",
        "_spare_error",
        "_value",
        "_waiters",
        "call",
        "detached",
        "done",
        "kept",
    )

    def __init__(self, flights: Flights, key: Hashable, call: Call, discard: Discard | None) -> None:
        self.call: Call = call
        self.detached: bool = False
        """Nobody else may join, and what it brings is out of date for all but those who wait for it."""
        self.done: bool = False
        self.kept: bool = False
        """It goes on also when nobody waits."""
        self._flights = flights
        self._key = key
        self._discard = discard
        self._job: Job | None = None
        self._joined = False
        self._waiters: dict[Waiter, None] = {}
        self._value: Any = _NOTHING
        self._error: BaseException | None = None
        self._spare_error: BaseException | None = None

    @property
    def waiting(self) -> int:
        """How many wait for it."""
        return len(self._waiters)

    def take_off(self, work: Work) -> None:
        """Begin the run."""

        async def fly() -> None:
            try:
                value = await work(self)
            except BaseException as error:
                if isinstance(error, GeneratorExit) or (self._job is not None and self._job.abandoned):
                    self.detach()  # nobody waits any more, and nobody can be woken
                    raise
                unheard = not self._waiters
                self._land(_NOTHING, error)
                if is_cancellation(error) or (unheard and not isinstance(error, Exception)):
                    raise
            else:
                self._land(value, None)
                if self._joined and not self._waiters and not self.kept:
                    await self._give_up(value)

        self._job = begin(fly)

    @property
    def home(self) -> object:
        """The event loop or trio run that it is a part of."""
        return home() if self._job is None else self._job.home

    def detach(self) -> None:
        """Let nobody else join."""
        self.detached = True
        self._flights.remove(self._key, self)

    async def join(self, call: Call) -> Any:
        """Wait for the result. Raises what the run raised, everybody an exception of their own."""
        self._joined = True
        if self.done:  # an eager task may have been over before anybody could wait
            return self._result()
        own, task = self.call, current_asyncio_task()
        if own.deadline is not None:
            own.deadline = max(own.deadline, deadline_of(call, task))
        waiter = park(task)
        self._waiters[waiter] = None
        try:
            await waiter
        except GeneratorExit:  # the event loop was closed over it
            raise
        except BaseException:
            await self._leave(waiter)
            raise
        del self._waiters[waiter]
        return self._result()

    async def _leave(self, waiter: Waiter) -> None:
        """Wait no longer; the last to leave ends the run, and stays until it has ended."""
        del self._waiters[waiter]
        if self._waiters or self.kept:
            return
        if self.done:
            await self._give_up(self._value)
        elif self._job is not None:
            self.detach()
            await self._job.stop()

    async def _give_up(self, value: Any) -> None:
        """Discard a result that nobody will see."""
        self._value = _NOTHING
        if self._discard is not None and value is not _NOTHING:
            await self._discard(value)

    def _land(self, value: Any, error: BaseException | None) -> None:
        self._flights.remove(self._key, self)
        self.done = True
        self._value, self._error = value, error
        if error is not None and len(self._waiters) > 1:
            self._spare_error = another(error)  # before anybody raises it
        for waiter in self._waiters:
            wake(waiter)

    def _result(self) -> Any:
        error, self._error = self._error, None
        if error is None:
            if self._spare_error is None:
                self.kept = True  # somebody has it
                return self._value
            error = another(self._spare_error)
        if not self._waiters:
            self._spare_error = None  # an error and the frames in its traceback hold each other
        try:
            raise error
        finally:
            error = None


class Flights:
    """The runs under way, by key."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, Flight] = {}
        self._home: object = None

    def find(self, key: Hashable) -> Flight | None:
        """The run that a caller of this event loop may join."""
        flight = self._flights.get(key)
        return flight if flight is None or flight.home is home() else None

    def start(
        self, key: Hashable, call: Call, work: Work, *, kept: bool = False, discard: Discard | None = None
    ) -> Flight:
        """Begin a run of `work(flight)` for `call`, which others may join.

        One that is `kept` goes on also when nobody waits. `discard` is given the result if nobody is left to take it.
        """
        own = Call(call.operation, call.fn, call.args, call.kwargs, key=call.key, cost=call.cost)
        own.attempt = call.attempt
        own.deadline = None if kept else deadline_of(call)
        flight = Flight(self, key, own, discard)
        flight.kept = kept
        self._flights[key] = flight
        flight.take_off(work)
        if flight.home is not self._home:
            self._move(flight.home)
        return flight

    def detach(self, key: Hashable) -> None:
        """Let nobody join the run of that key any more."""
        flight = self._flights.get(key)
        if flight is not None:
            flight.detach()

    def detach_all(self) -> None:
        """Let nobody join any run that is under way."""
        for flight in list(self._flights.values()):
            flight.detach()

    def remove(self, key: Hashable, flight: Flight) -> None:
        """Forget a run, unless another has its place."""
        if self._flights.get(key) is flight:
            del self._flights[key]

    def _move(self, place: object) -> None:
        """Forget what was left behind in other event loops, which may be no more."""
        self._home = place
        for flight in [flight for flight in self._flights.values() if flight.home is not place]:
            flight.detach()
