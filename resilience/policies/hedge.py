"""Hedge: when an answer is late, ask a second time and take what comes first.

    @Hedge(Quantile(0.95))                # or Hedge(0.05): after 50 ms
    async def lookup(key): ...

For calls that may be made twice and are mostly fast: a few slow answers then cost a little load instead of much
time (Dean and Barroso, "The Tail at Scale", CACM 2013).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from .. import clock
from .._hedged import HedgedCall
from .._validate import positive, whole
from ..call import Call, Handler
from ..events import Listener
from ..machines.quantile import LatencyMachine, Quantile
from ..machines.retry_budget import RetryBudgetMachine, TokenBudget
from ..partitions import Partitions
from ..policy import Policy
from ..running._deadlines import current_asyncio_task, deadline_of
from ..store import RemoteBudget
from ..verdict import SUCCESS, Classifier, On, classifier
from .retry import Retry


class Hedge(Policy):
    """Start another attempt when a call has no answer after `after` seconds; the first success is the answer.

    `after` may be a `Quantile` instead: as long as 95 % of calls take, learned for each key of calls (about
    `max_keys` of them). There are `at_most` (1) attempts beside the first, one after each such delay. Attempts that
    lost are cancelled and awaited, and their results closed (`aclose` or `close`). A failed attempt never ends the
    call while another is under way; if all fail, the outcome is that of the first, raised as it is. What fails before
    the delay is not repeated: that is for `Retry`.

    What counts as failed: `on` (exception types, a predicate, or a Classifier) and `on_result` (a predicate on the
    returned value); every exception and every value that is not a success.

    `budget` limits the hedges of all calls together: by default a `TokenBudget` of its own (500 tokens; a hedge costs
    14, a call that succeeds adds 1: at most 7 % more load in the long run); a `Retry` to share its budget, which
    is then filled by its calls; a budget object, filled by the calls of this policy; None for no limit.

    Only calls that are `repeatable` are hedged. Policies inside see every attempt as a call of its own, a Timeout
    inside is one for each. The first attempt runs in the caller's task, others in tasks of their own with a copy of
    the caller's context variables. Cancelling the caller cancels all of them, and waits for them.

    Raises ValueError or TypeError at construction for bad options. Cannot guard a block: a block runs once.
    """

    def __init__(
        self,
        after: float | Quantile,
        *,
        at_most: int = 1,
        on: On | None = None,
        on_result: Callable[[Any], bool] | None = None,
        budget: RetryBudgetMachine | Retry | Literal["own"] | None = "own",
        max_keys: int = 10_000,
        name: str | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        super().__init__(name, listeners)
        self.after: float | Quantile = after if isinstance(after, Quantile) else positive("after", after)
        self.at_most: int = whole("at_most", at_most, 1)
        self.classifier: Classifier | None = classifier(on, on_result)
        if isinstance(budget, str):
            budget = TokenBudget()
        self.fills: bool = not isinstance(budget, Retry)
        """Whether calls of this policy fill the budget; if not, those of the Retry do that it belongs to."""
        self.budget: RetryBudgetMachine | None = budget.budget if isinstance(budget, Retry) else budget
        self._remote: RemoteBudget | None = self.budget if isinstance(self.budget, RemoteBudget) else None
        self._latencies: Partitions[LatencyMachine] = Partitions(self._learner, lambda each: True, max_keys)

    def delay(self, *, key: str = "") -> float | None:
        """Seconds after which a call is hedged now; None if too few calls have been seen to know."""
        if not isinstance(self.after, Quantile):
            return self.after
        learned = self._latencies.find(key)
        return self.after.start if learned is None else learned.delay(clock.now())

    def wrap(self, proceed: Handler) -> Handler:
        """Fold the race of attempts around `proceed`."""

        async def hedged(call: Call) -> Any:
            if not call.repeatable:
                return await proceed(call)
            learned = None if isinstance(self.after, float | int) else self._latencies.get(call.key)
            now, task = clock.now(), current_asyncio_task()
            delay = self.delay() if learned is None else learned.delay(now)
            deadline = deadline_of(call, task)
            if delay is not None and now + delay >= deadline:
                delay = None  # nobody would wait for its answer
            return await HedgedCall(self, call, proceed, delay, now, deadline, learned).run(task)

        return hedged

    def succeeded(self, call: Call, result: Any) -> bool:
        """Whether a returned value is what was wanted."""
        judge = (self.classifier or call.operation.classifier).result
        return judge is None or judge(result) is SUCCESS

    def settle(self, succeeded: bool) -> None:
        """Tell the budget that a call is over. A hedge that won is not paid back, or hedges would be free."""
        if self.fills and self.budget is not None:
            self.budget.settle(clock.now(), succeeded)

    async def afford(self) -> bool:
        """Pay for one hedge, if the budget can."""
        if self.budget is None:
            return True
        if self._remote is not None:
            await self._remote.stock(self.budget.transient_cost)
        return self.budget.reserve(clock.now(), self.budget.transient_cost)

    def repay(self, paid_at: float) -> None:
        """Take back the price of a hedge that made no load."""
        if self.budget is not None:
            self.budget.cancel(clock.now(), self.budget.transient_cost, paid_at)

    def _learner(self) -> LatencyMachine:
        return LatencyMachine(self.after if isinstance(self.after, Quantile) else Quantile())
