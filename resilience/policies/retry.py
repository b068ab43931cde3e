"""Retry: try again, but not at once, not for ever, and not when everybody else does.

    @Retry(attempts=3, on=ConnectionError)
    async def fetch(url): ...

An attempt that failed is repeated after a jittered back-off, unless there is a reason not to: attempts or time
are used up, the budget is, the server asks for a longer pause than there is time, or the call is not repeatable.
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable, Sequence
from typing import Any, Literal

import anyio

from .. import clock
from .._validate import positive, whole
from ..call import Call, Handler
from ..events import Listener, RetryGaveUp, RetryScheduled
from ..machines.backoff import START, Backoff, BackoffState
from ..machines.retry_budget import RetryBudgetMachine, TokenBudget
from ..policy import Policy
from ..running._deadlines import deadline_of
from ..store import RemoteBudget, Store, named
from ..verdict import FAILURE, SUCCESS, Advice, Classifier, On, classifier

_NO_ADVICE = Advice()


class _Sequence:
    """The retries of one call: where its back-off stands, and what its last retry cost the budget."""

    __slots__ = ("backoff", "cost", "reserved_at")

    def __init__(self) -> None:
        self.backoff: BackoffState = START
        self.cost = 0.0
        self.reserved_at = 0.0


class Retry(Policy):
    """Repeat a failed call, `attempts` tries in all (default 3; measured, more than two retries buy load, not success).

    What counts as failed: `on` (exception types, a predicate, or a Classifier) and `on_result` (a predicate on
    the returned value); by default every exception except rejections: an open circuit is not retried. The
    pause is `backoff` (default `Backoff.full()`: 50 ms base, 20 s cap), or `throttled` (1 s base) when the
    server asks for less traffic. A delay asked for by the server (`Retry-After`, or a `retry_after` attribute
    of the exception) is a minimum, times a random 1 to 1.5 so that obedient clients do not return together; above
    `max_advice` seconds (300) it ends the retries. No retry is scheduled past the deadline of a Timeout.

    `budget` limits the retries of all calls together: by default a `TokenBudget` of its own (500 tokens, a retry
    costs 14, successes pay back); pass one object to several Retry policies to share it, or give them the same
    `name` and `store`, which may be one for all processes; None for no budget.

    When it gives up, the original exception is raised with a note, or the last returned value is returned.
    Values of discarded attempts are closed (`aclose` or `close`). `random` draws from [0, 1).
    Raises ValueError or TypeError at construction for bad options. Cannot guard a block: a block runs once.
    """

    def __init__(
        self,
        attempts: int = 3,
        *,
        backoff: Backoff | None = None,
        throttled: Backoff | None = None,
        on: On | None = None,
        on_result: Callable[[Any], bool] | None = None,
        budget: RetryBudgetMachine | Literal["own"] | None = "own",
        store: Store | None = None,
        max_advice: float = 300.0,
        random: Callable[[], float] = _random.random,
        name: str | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        super().__init__(name, listeners)
        self.attempts: int = whole("attempts", attempts, 1)
        self.backoff: Backoff = backoff or Backoff.full()
        self.throttled: Backoff = throttled or Backoff.full(base=1.0)
        self.max_advice: float = positive("max_advice", max_advice)
        self.budget: RetryBudgetMachine | None
        if budget is None or store is None:
            self.budget = TokenBudget() if budget == "own" else budget
        else:
            make = TokenBudget if budget == "own" else lambda: budget
            self.budget = store.budget(named(name, self.name, store), make)
        self._remote: RemoteBudget | None = self.budget if isinstance(self.budget, RemoteBudget) else None
        self.classifier: Classifier | None = classifier(on, on_result)
        self._random = random

    def wrap(self, proceed: Handler) -> Handler:
        """Fold the retry loop around `proceed`."""

        async def retrying(call: Call) -> Any:
            result = failure = None
            try:
                result = await proceed(call)
            except Exception as error:
                failure = error
            if failure is None and self.clean(call):
                return result
            try:
                return await self.resume(call, proceed, result, failure)
            finally:
                failure = None  # a frame and a traceback that hold each other would wait for the collector

        return retrying

    async def resume(self, call: Call, proceed: Handler, result: Any, error: BaseException | None) -> Any:
        """Go on after a first attempt that returned `result` or raised `error`."""
        sequence = _Sequence()
        while True:
            if error is None:
                delay = await self._delay_after_result(call, sequence, result)
                if delay is None:
                    return result
            else:
                delay = await self._delay(call, sequence, None, error) if isinstance(error, Exception) else None
                if delay is None:
                    context = error.__context__
                    try:
                        raise error
                    finally:
                        error.__context__ = context  # `raise` has put there what our caller is handling
                        error = context = None
            await self._pause(sequence, delay)
            call.attempt += 1
            try:
                result, error = await proceed(call), None
            except Exception as raised:
                error = raised
            except BaseException:  # a cancelled call leaves nothing behind, not even the price of its last retry
                self._cancel(sequence)
                raise

    def clean(self, call: Call) -> bool:
        """Settle a success at the first attempt; False if the returned value has to be judged first."""
        if (self.classifier or call.operation.classifier).result is not None:
            return False
        if self.budget is not None:
            self.budget.settle(clock.now(), True)
        return True

    async def _delay_after_result(self, call: Call, sequence: _Sequence, result: Any) -> float | None:
        """Like `_delay`, and closes the result if another attempt will follow."""
        try:
            delay = await self._delay(call, sequence, result, None)
        except BaseException:  # a broken predicate, or cancelled: nobody will see the result
            await _discard(call, result)
            raise
        if delay is not None:
            try:
                await _discard(call, result)
            except BaseException:
                self._cancel(sequence)
                raise
        return delay

    async def _delay(self, call: Call, sequence: _Sequence, result: Any, error: Exception | None) -> float | None:
        """Seconds until the next attempt; None to end here, settled with the budget."""
        judge = self.classifier or call.operation.classifier
        verdict = SUCCESS
        if error is not None:
            verdict = judge.error(error)
        elif judge.result is not None:
            verdict = judge.result(result)
        advice = _NO_ADVICE
        if error is not None or verdict is not SUCCESS:  # a success has nothing to ask of those who retry
            advice = judge.advice(result, error) or _NO_ADVICE
        if verdict is not FAILURE and not advice.throttled:
            if self.budget is not None:
                self.budget.settle(clock.now(), error is None, sequence.cost)
            return None
        delay = self._backed_off(sequence, advice)
        reason = await self._obstacle(call, sequence, advice, delay)
        if reason is None:
            if self.listeners:
                self.emit(RetryScheduled(call.operation.name, self.name, call.attempt, delay, error))
            return delay
        self._give_up(call, sequence, error, reason)
        return None

    def _backed_off(self, sequence: _Sequence, advice: Advice) -> float:
        rule = self.throttled if advice.throttled else self.backoff
        delay, sequence.backoff = rule.step(sequence.backoff, self._random())
        if advice.delay is not None and advice.delay > 0:
            delay = max(delay, advice.delay * (1.0 + 0.5 * self._random()))
        return delay

    async def _obstacle(self, call: Call, sequence: _Sequence, advice: Advice, delay: float) -> str | None:
        """Why there is no other attempt; None, with the budget charged, if there is one."""
        if call.attempt >= self.attempts:
            return "attempts"
        if not call.repeatable:
            return "not repeatable"
        if advice.delay is not None and advice.delay > self.max_advice:
            return "advised delay"
        now = clock.now()
        if now + delay >= deadline_of(call):
            return "deadline"
        if self.budget is not None:
            cost = self.budget.throttled_cost if advice.throttled else self.budget.transient_cost
            if self._remote is not None:
                await self._stock(sequence, self._remote, cost)
            if not self.budget.reserve(now, cost):
                return "budget"
            sequence.cost, sequence.reserved_at = cost, now
        return None

    async def _stock(self, sequence: _Sequence, budget: RemoteBudget, cost: float) -> None:
        try:
            await budget.stock(cost)
        except BaseException:
            self._cancel(sequence)
            raise

    def _give_up(self, call: Call, sequence: _Sequence, error: Exception | None, reason: str) -> None:
        if self.budget is not None:
            self.budget.settle(clock.now(), False, sequence.cost)
        if self.listeners:
            self.emit(RetryGaveUp(call.operation.name, self.name, call.attempt, reason, error))
        if error is not None and (call.attempt > 1 or reason != "attempts"):
            tries = "1 attempt" if call.attempt == 1 else f"{call.attempt} attempts"
            error.add_note(f"{self.name} gave up after {tries}: {reason}")

    async def _pause(self, sequence: _Sequence, delay: float) -> None:
        try:
            await anyio.sleep(delay)
        except BaseException:
            self._cancel(sequence)
            raise

    def _cancel(self, sequence: _Sequence) -> None:
        """The retry that was paid for will not run."""
        if self.budget is not None and sequence.cost:
            self.budget.cancel(clock.now(), sequence.cost, sequence.reserved_at)


async def _discard(call: Call, result: Any) -> None:
    """Close a result that another attempt replaces, then let go what was held for it."""
    try:
        await call.operation.discard(result)
    finally:
        if call.lease is not None:
            call.lease.close()
