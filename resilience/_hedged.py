"""One hedged call: its attempts, and what becomes of them.

    result = await HedgedCall(hedge, call, proceed, delay, now, deadline, learned).run(task)

The first attempt runs in the caller's task, so that a call which is answered in time costs a timer and no task.
`machines.hedge_race` decides who wins; here the attempts are started, stopped, and cleared away.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

from . import clock
from .call import Call, Handler, Lease
from .errors import RejectedError
from .events import HedgeStarted, HedgeWon
from .machines.hedge_race import HedgeRace
from .machines.quantile import LatencyMachine
from .running._deadlines import arm
from .running._jobs import Job, begin, is_cancellation
from .running._parking import Timer, Waiter, call_later, park, wake
from .running._recall import AsyncioRecall, Recall, recall

if TYPE_CHECKING:
    from .policies.hedge import Hedge

_NOTHING = object()


class _Attempt:
    """One try, and how it ended: a result, or an error, or neither while it is under way."""

    __slots__ = ("call", "error", "number", "result")

    def __init__(self, number: int, call: Call) -> None:
        self.number: int = number
        self.call: Call = call
        self.result: Any = _NOTHING
        self.error: BaseException | None = None

    def outcome(self) -> Any:
        """Return the result or raise the error, as it is."""
        error = self.error
        if error is None:
            return self.result
        context = error.__context__
        try:
            raise error
        finally:
            error.__context__ = context  # `raise` has put there what our caller is handling
            del error, context


class HedgedCall:
    """The race of attempts at one call, from its first to its last."""

    __slots__ = (
        "_attempts",
        "_began",
        "_call",
        "_cancelling",
        "_context",
        "_deadline",
        "_delay",
        "_hedge",
        "_jobs",
        "_learned",
        "_proceed",
        "_race",
        "_recall",
        "_task",
        "_timer",
        "_waiter",
    )

    def __init__(
        self,
        hedge: Hedge,
        call: Call,
        proceed: Handler,
        delay: float | None,
        began: float,
        deadline: float,
        learned: LatencyMachine | None,
    ) -> None:
        self._hedge = hedge
        self._call = call
        self._proceed = proceed
        self._delay = delay
        self._began = began
        self._deadline = deadline
        self._learned = learned
        self._attempts: list[_Attempt] = [_Attempt(0, call)]
        self._jobs: list[Job] = []
        self._timer: Timer | None = None
        self._waiter: Waiter | None = None
        self._recall: Recall | None = None
        self._task: asyncio.Task[Any] | None = None
        # None before the first hedge: most calls need no race.
        self._race: HedgeRace | None = None
        # None when no hedge may begin.
        self._context: contextvars.Context | None = None

    async def run(self, task: asyncio.Task[Any] | None) -> Any:
        """Make the first attempt, and wait for the others if there are any; `task` is the caller's, None under trio."""
        first = self._attempts[0]
        if self._delay is not None:
            self._context = contextvars.copy_context()
            if task is None:
                self._timer = call_later(self._delay, self._late)
                self._recall = recall()
            else:
                self._task, self._cancelling = task, task.cancelling()
                self._timer = task.get_loop().call_later(self._delay, self._late)
                self._recall = AsyncioRecall(task)
        good = False
        try:
            good = await self._try(first)
        except BaseException as error:
            if not self._disarm(error):
                if not isinstance(error, Exception):
                    await self._abandon(error)
                    raise
                if not self._jobs:
                    self._end()
                    self._hedge.settle(False)
                    raise
                first.error = error
        else:
            self._disarm(None)
            if not self._jobs:
                self._end()
                self._learn(good)
                self._hedge.settle(good)
                return first.result
        try:
            return await self._finish(self._opened(), first, good, task)
        finally:
            self._forget()

    def _opened(self) -> HedgeRace:
        """The race, which the first attempt has been in from its beginning."""
        if self._race is None:
            self._race = HedgeRace(self._hedge.at_most)
            self._race.start()
        return self._race

    async def _finish(self, race: HedgeRace, first: _Attempt, good: bool, task: asyncio.Task[Any] | None) -> Any:
        """Go on after the first attempt, when others have begun."""
        self._learn(good or race.winner is not None)
        if good:
            race.succeeded(0)
        else:
            race.failed()
        if race.winner is None:
            self._waiter = park(task)
            try:
                await self._waiter
            except BaseException as error:
                await self._abandon(error)
                raise
        winner = self._attempts[race.winner or 0]
        if await self._stop(task):
            await self._discard(None)
            raise asyncio.CancelledError
        await self._discard(winner)
        self._hedge.settle(winner.error is None and (winner is not first or good))
        if winner is not first:
            self._crown(winner)
        return winner.outcome()

    def _crown(self, winner: _Attempt) -> None:
        """A hedge has won: what is held for its result is held for that of the call."""
        call, hedge = self._call, self._hedge
        if call.lease is not None:
            call.lease.adopt(winner.call)
        if hedge.listeners and winner.error is None:
            duration = clock.now() - self._began
            hedge.emit(HedgeWon(call.operation.name, hedge.name, call.key, winner.number + 1, duration))

    async def _try(self, attempt: _Attempt) -> bool:
        """Make one attempt; True if it brought what was wanted."""
        attempt.result = await self._proceed(attempt.call)
        try:
            return self._hedge.succeeded(attempt.call, attempt.result)
        except BaseException:  # a broken predicate: nobody will see the result
            await self._drop(attempt)
            raise

    def _disarm(self, error: BaseException | None) -> bool:
        """The first attempt has ended; True if it was called back because another had won."""
        called_back, self._recall = self._recall, None
        return called_back is not None and called_back.disarm(error)

    def _learn(self, known: bool) -> None:
        """Remember how long the first attempt took, or took at least; hedges would teach that all calls are fast."""
        if known and self._learned is not None:
            now = clock.now()
            self._learned.record(now, now - self._began)

    # Hedges.

    def _late(self) -> None:
        """There is no answer yet. Called by a timer, outside of any task."""
        if self._context is None or self._opened().full:
            return
        loop = None
        if self._task is not None:
            if self._task.cancelling() > self._cancelling:  # the caller is on his way out
                return
            loop = self._task.get_loop()
        self._jobs.append(self._context.run(begin, self._run_hedge, loop))

    async def _run_hedge(self) -> None:
        hedge, race = self._hedge, self._opened()
        if race.full or not self._call.repeatable or not await hedge.afford():
            return
        paid_at = clock.now()
        number = race.start()
        if number is None:  # decided while the budget was asked
            hedge.repay(paid_at)
            return
        attempt = _Attempt(number, self._another(number))
        self._attempts.append(attempt)
        if hedge.listeners:
            waited = clock.now() - self._began
            hedge.emit(HedgeStarted(self._call.operation.name, hedge.name, self._call.key, number + 1, waited))
        if self._delay is not None and not race.full:
            self._timer = call_later(self._delay, self._late)
        good = False
        # So that what runs in this task knows the deadline of the caller's.
        alarm = None if self._deadline == math.inf else arm(self._deadline - clock.now())
        try:
            good = await self._try(attempt)
        except BaseException as error:
            late = alarm is not None and alarm.disarm(error)
            attempt.error = error
            if isinstance(error, RejectedError):
                hedge.repay(paid_at)
            if is_cancellation(error):
                if not late:
                    raise
            else:
                good = not isinstance(error, Exception)  # an interpreter that is to stop waits for nobody
        else:
            if alarm is not None:
                alarm.disarm(None)
        finally:
            self._arrived(number, good)

    def _another(self, number: int) -> Call:
        """A record for another attempt, which policies inside take for a call of its own."""
        call = self._call
        copy = Call(call.operation, call.fn, call.args, call.kwargs, key=call.key, cost=call.cost)
        copy.attempt = call.attempt + number
        copy.deadline = self._deadline
        copy.fencing_token = call.fencing_token
        copy.lease = None if call.lease is None else Lease()
        return copy

    def _arrived(self, number: int, good: bool) -> None:
        """A hedge has ended; if that decides the race, the first attempt is called back, or its caller woken."""
        race = self._opened()
        decided = race.succeeded(number) if good else race.failed()
        if decided and self._recall is not None:
            self._recall.fire()
        if decided and self._waiter is not None:
            wake(self._waiter)

    # The end.

    def _end(self) -> None:
        """Let no other attempt start."""
        self._context = None
        if self._race is not None:
            self._race.close()
        if self._timer is not None:
            self._timer.cancel()

    async def _stop(self, task: asyncio.Task[Any] | None) -> bool:
        """Cancel all hedges and wait until they have ended; True if asyncio cancelled the caller meanwhile."""
        self._end()
        before = 0 if task is None else task.cancelling()
        for job in self._jobs:
            await job.stop()
        return task is not None and task.cancelling() > before

    async def _abandon(self, error: BaseException) -> None:
        """The caller goes away: nothing of the call is left when it does."""
        if isinstance(error, GeneratorExit):  # its event loop was closed over it: nothing can be awaited
            self._end()
            for job in self._jobs:
                if not job.abandoned:
                    job.cancel()
            return
        await self._stop(None)
        await self._discard(None)
        self._forget()

    def _forget(self) -> None:
        """Let errors go: they and the frames in their tracebacks would hold each other."""
        for attempt in self._attempts:
            attempt.error = None

    async def _discard(self, kept: _Attempt | None) -> None:
        """Let all attempts go but one."""
        for attempt in self._attempts:
            if attempt is not kept:
                if kept is not None and attempt.result is kept.result:
                    attempt.result = _NOTHING  # somebody returns one object every time
                await self._drop(attempt)

    async def _drop(self, attempt: _Attempt) -> None:
        """Close a result that nobody will see, and let go what was held for it."""
        result, attempt.result = attempt.result, _NOTHING
        if result is not _NOTHING:
            # That a loser cannot be closed does not make the answer worse.
            with anyio.CancelScope(shield=True), suppress(Exception):
                await self._call.operation.discard(result)
        if attempt.call.lease is not None:
            attempt.call.lease.close()
