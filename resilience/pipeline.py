"""Pipeline: policies composed, once, into one.

    payments = Pipeline(              # first listed = outermost
        Timeout(10),                  # the whole operation
        Bulkhead(50, queue=100),
        Retry(attempts=3),
        CircuitBreaker(),
        RateLimiter("100/s"),
        Timeout(2),                   # each attempt
        name="payments",
    )

A pipeline is a policy: it decorates, calls, and nests in other pipelines; one made of guards only also guards
blocks and async generators.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from .call import Handler, Operation
from .errors import HazardWarning
from .events import Listener
from .hazards import hazards
from .observer import Observer
from .policies.bulkhead import Bulkhead
from .policies.circuit_breaker import CircuitBreaker
from .policies.fallback import Fallback
from .policies.rate_limiter import RateLimiter
from .policies.retry import Retry
from .policies.timeout import Timeout
from .policy import Enclosing, Guard, Policy
from .verdict import DEFAULT_CLASSIFIER, Classifier


class Pipeline(Enclosing):
    """Policies around a call, the first listed outermost.

    `classifier` judges outcomes for all policies that have no `on` of their own. `listeners` hear the events of
    the pipeline and of every policy in it. Orders that will not do what their author expects raise a
    HazardWarning (see `resilience.hazards`); TypeError for anything that is not a policy.
    """

    def __init__(
        self,
        *policies: Policy,
        classifier: Classifier = DEFAULT_CLASSIFIER,
        name: str | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        super().__init__(name)
        for policy in policies:
            if not isinstance(policy, Policy):
                raise TypeError(f"policies must be Policy objects, got {policy!r}")
        self.policies: tuple[Policy, ...] = policies
        self._observer = Observer(self.name)
        self.operation: Operation = Operation(self.name, classifier=classifier)
        for listener in listeners:
            self.listen(listener)
        for hazard in hazards(policies):
            warnings.warn(f"{self.name}: {hazard}", HazardWarning, stacklevel=2)

    @classmethod
    def standard(
        cls,
        *,
        fallback: Fallback | None = None,
        timeout: float | None = 10.0,
        bulkhead: Bulkhead | None = None,
        retry: Retry | None = None,
        breaker: CircuitBreaker | None = None,
        limiter: RateLimiter | None = None,
        attempt_timeout: float | None = 2.0,
        classifier: Classifier = DEFAULT_CLASSIFIER,
        name: str | None = None,
        listeners: Sequence[Listener] = (),
    ) -> Pipeline:
        """The recommended order, with the parts you name.

        Fallback, timeout of the whole (10 s), bulkhead, retry, circuit breaker, rate limiter, timeout of each
        attempt (2 s). A retry gives way to an open circuit, every attempt counts against the limit, time spent
        waiting for the limit is not held against the dependency, and one permit covers all attempts.
        """
        parts: list[Policy | None] = [
            fallback,
            None if timeout is None else Timeout(timeout, name="Timeout"),
            bulkhead,
            retry,
            breaker,
            limiter,
            None if attempt_timeout is None else Timeout(attempt_timeout, name="AttemptTimeout"),
        ]
        policies = [part for part in parts if part is not None]
        return cls(*policies, classifier=classifier, name=name, listeners=listeners)

    def parts(self) -> list[Policy]:
        """All policies, outermost first, those of nested pipelines included; an observer of whole calls first."""
        return [self._observer, *(part for policy in self.policies for part in policy.parts())]

    def wrap(self, proceed: Handler) -> Handler:
        """Fold the policies around `proceed`, innermost first."""
        handler = proceed
        for part in reversed(self.parts()):
            handler = part.wrap(handler)
        return handler

    def guards(self) -> list[Guard[Any]]:
        """The guards of all policies, outermost first. Raises TypeError if one of them is not a guard."""
        return [guard for part in self.parts() for guard in part.guards()]

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every event of the pipeline and its policies; returns a function that ends it."""
        members: list[Policy] = [self._observer, *self.policies]
        stops = [super().listen(listener), *(policy.listen(listener) for policy in members)]

        def stop() -> None:
            for end in stops:
                end()

        return stop
