"""A small world for storms: policies, callers of every kind, and an account of what they may leave behind.

The account is kept by the protected code itself: when it begins it was admitted, when it ends by itself it has
given a verdict, when it is cancelled it has not. After every round the policies must agree with it exactly.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from random import Random
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience import Bulkhead, Call, CircuitBreaker, Lease, Operation, Pipeline, Policy, RateLimiter, Retry, clock
from resilience.errors import ResilienceError
from resilience.events import CallTimedOut, Event, RetryScheduled
from resilience.machines.rate_limiter import decide, peek
from resilience.machines.retry_budget import TokenBudget
from resilience.policy import Enclosing
from tests.support.failures import DownError

KEYS = ("", "", "", "a", "b")
DRAINED = 1e6
CAPACITY = 1e9


class Attempts:
    """What one call has done so far."""

    def __init__(self) -> None:
        self.begun = 0
        self.over = False
        """A fallback is at work: the retries have come to their end."""


class World:
    """Policies under storm. `counted` breakers are compared verdict by verdict."""

    def __init__(self, random: Random, policies: Sequence[Policy], failures: float = 0.3) -> None:
        self.random = random
        self.policy: Any = policies[0] if len(policies) == 1 and random.random() < 0.5 else Pipeline(*policies)
        self.failures = failures
        self.bulkheads = [policy for policy in policies if isinstance(policy, Bulkhead)]
        self.breakers = [policy for policy in policies if isinstance(policy, CircuitBreaker)]
        self.limiters = [policy for policy in policies if isinstance(policy, RateLimiter)]
        self.budgets = [p.budget for p in policies if isinstance(p, Retry) and isinstance(p.budget, TokenBudget)]
        self.blocks = all(isinstance(policy, Enclosing) for policy in policies)
        self.admitted: list[tuple[str, float]] = []
        self.verdicts = 0
        self.repaid = self.clean = 0
        self.scheduled: Counter[int] = Counter()  # by task: one call at a time
        self.cut_short: set[int] = set()
        self.paid = 0
        self.policy.listen(self._hear)
        decorate: Any = self.policy
        self._decorated: Any = decorate(self._body)
        self._stream: Any = decorate(self._items) if self.blocks else None
        for budget in self.budgets:
            budget.reserve(0.0, DRAINED)

    def _hear(self, event: Event) -> None:
        if isinstance(event, CallTimedOut) and event.policy == "attempt":
            self.verdicts += 1
        task = anyio.get_current_task().id
        self.scheduled[task] += isinstance(event, RetryScheduled)
        if isinstance(event, CallTimedOut) and event.policy == "whole":
            self.cut_short.add(task)

    # The protected code.

    async def _work(self) -> None:
        chance = self.random.random()
        if chance < 0.4:
            await anyio.sleep(self.random.random() * 0.02)
        elif chance < 0.7:
            for _ in range(self.random.randint(1, 4)):
                await anyio.lowlevel.checkpoint()
        if self.random.random() < self.failures:
            raise DownError

    def _begin(self, attempts: Attempts, key: str) -> None:
        self.admitted.append((key, clock.now()))
        attempts.begun += 1

    async def _body(self, attempts: Attempts, key: str) -> str:
        self._begin(attempts, key)
        try:
            await self._work()
        except DownError:
            self.verdicts += 1
            raise
        self.verdicts += 1
        if attempts.begun > 1:
            self.repaid += 1
        else:
            self.clean += 1
        return "done"

    async def _items(self, attempts: Attempts, key: str) -> AsyncGenerator[int, None]:
        self._begin(attempts, key)
        try:
            for number in range(3):
                await self._work()
                yield number
        except (DownError, GeneratorExit):
            self.verdicts += 1
            raise
        self.verdicts += 1

    # The callers: every way of using a policy.

    async def caller(self) -> None:
        """One call of a random kind; what the policies or the work raise is of no interest."""
        key = self.random.choice(KEYS)
        kinds = [self._call, self._call_decorated]
        if self.blocks:
            kinds += [self._enter_block, self._read_stream, self._hold_lease]
        if self.policy in self.limiters:
            kinds += [self._reserve, self._reserve]
        task = anyio.get_current_task().id
        self.scheduled[task] = 0
        self.cut_short.discard(task)
        attempts = Attempts()
        try:
            with suppress(DownError, ResilienceError):
                await self.random.choice(kinds)(attempts, key)
        except BaseException:
            if not attempts.over:
                self.cut_short.add(task)
            raise
        finally:  # whoever is cut short does not pay for the retry that was under way
            self.paid += max(0, self.scheduled.pop(task) - (task in self.cut_short))

    async def _call(self, attempts: Attempts, key: str) -> None:
        await self.policy.bind(key=key).call(self._body, attempts, key)

    async def _call_decorated(self, attempts: Attempts, key: str) -> None:
        await self._decorated(attempts, "")

    async def _enter_block(self, attempts: Attempts, key: str) -> None:
        async with self.policy.guard(key=key):
            await self._body(attempts, key)

    async def _reserve(self, attempts: Attempts, key: str) -> None:
        async with self.policy.reservation(key=key, id=self.random.choice((None, str(self.random.random())))) as held:
            if self.random.random() < 0.5:
                held.actual = held.cost
            await self._body(attempts, key)

    async def _read_stream(self, attempts: Attempts, key: str) -> None:
        async with aclosing(self._stream(attempts, "")) as items:
            async for _ in items:
                if self.random.random() < 0.5:
                    await anyio.sleep(self.random.random() * 0.01)
                if self.random.random() < 0.2:
                    break

    async def _hold_lease(self, attempts: Attempts, key: str) -> None:
        """As an adapter does for a streamed body: the call returns at once, what is held ends with the body."""
        lease = Lease()

        async def headers() -> str:
            self._begin(attempts, key)
            await anyio.lowlevel.checkpoint()
            return "headers"

        await self.policy.run(Call(Operation("streamed"), headers, key=key, lease=lease))
        try:
            await lease.step(self._work)
        except DownError as error:
            self.verdicts += 1
            lease.close(error)
        except BaseException as error:
            lease.close(error)
            raise
        else:
            self.verdicts += 1
            lease.close()

    # The account.

    async def check(self) -> None:
        """Everything is where it was, but for what really ran."""
        for key in set(KEYS):
            for bulkhead in self.bulkheads:
                assert (bulkhead.in_use(key), bulkhead.waiting(key)) == (0, 0), f"permits of {key!r} are missing"
            for breaker in self.breakers:
                assert breaker.metrics(key).probes == 0, f"a probe of {key!r} is still out"
            for limiter in self.limiters:
                await self._check_limiter(limiter, key)
        for breaker in self.breakers:
            if breaker.rule.minimum_calls >= CAPACITY:
                calls = sum(breaker.metrics(key).calls for key in set(KEYS))
                assert calls == self.verdicts, "a cancelled call has a verdict, or a finished one has none"
        for budget in self.budgets:
            self._check_budget(budget)

    def _check_budget(self, budget: TokenBudget) -> None:
        """Paid for are exactly the retries that were not cut short."""
        earned = self.repaid * budget.transient_cost + self.clean * budget.deposit
        expected = CAPACITY - DRAINED + earned - self.paid * budget.transient_cost
        assert budget.tokens == pytest.approx(expected, abs=1e-3), "tokens are missing from the budget"

    async def _check_limiter(self, limiter: RateLimiter, key: str) -> None:
        """Charged is exactly what ran: replay the admissions through a fresh rule and compare."""
        costs = limiter.costs_of(Call(Operation(), self._work))
        states: Sequence[Any] = [None for _ in limiter.rules]
        for moment in (moment for each, moment in self.admitted if each == key):
            _, states = decide(limiter.rules, states, moment, costs, math.inf)
        expected = peek(limiter.rules, states, clock.now(), costs)
        found = await limiter.peek(key=key, cost=limiter.limits.cost(costs))
        assert found.wait == pytest.approx(expected.wait, abs=1e-6), f"units of {key!r} are missing"
        assert found.remaining == pytest.approx(expected.remaining, abs=1e-3)

    def forget(self) -> None:
        """Keep the replay short: the limit is fresh again after this long."""
        self.admitted.clear()
