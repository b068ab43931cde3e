"""Chaos: faults on demand, to see what the policies around a call make of them.

    chaos = Chaos(latency=Exponential(0.2), errors=[ConnectionError], rate=0.05, seed=7)
    payments = Pipeline(Timeout(10), Retry(), CircuitBreaker(), Timeout(2), chaos)    # innermost
    chaos.enable()

It is off until it is switched on, and everything it does is an event and bears its name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from random import Random
from typing import Any, TypeAlias, cast

import anyio

from .. import clock
from ..call import Call, Handler
from ..errors import another
from ..events import ChaosInjected, Listener
from ..machines.chaos import ChaosRule, ChaosWindow, Disturbance, LatencyRule
from ..policy import Policy

Keys: TypeAlias = "Collection[str] | Callable[[str], bool]"
"""Keys of calls: some of them, or a predicate."""


class Chaos(Policy):
    """Disturb the share `rate` (1.0: every call) of calls: a delay, then an error or a result in place of the call.

    `latency` is a number of seconds, a pair (uniform between the two), or a function of a draw from [0, 1), such as
    `Exponential(0.2)`. `errors` are exceptions or types of them, which are raised with a note that names this policy;
    `results` are values, which are returned. Of all of them one is chosen, each as likely; without any the call runs
    after the delay. For faults with different rates list several Chaos policies.

    Only calls with a key in `keys` (a collection, or a predicate; by default all), and only `between` two times, in
    seconds since `enable` was called, or since the first call if it was made `enabled`. With a `seed` the same calls
    in the same order are disturbed in the same way each time.

    Does nothing unless it is `enabled`; may be switched on and off at any time. Put it innermost, so that it stands
    for the dependency. Raises TypeError or ValueError at construction for bad options.
    """

    def __init__(
        self,
        *,
        latency: LatencyRule | None = None,
        errors: Sequence[Exception | type[Exception]] = (),
        results: Sequence[Any] = (),
        rate: float = 1.0,
        seed: int | None = None,
        between: tuple[float, float] | None = None,
        keys: Keys | None = None,
        enabled: bool = False,
        name: str | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        super().__init__(name, listeners)
        self.errors: tuple[Exception | type[Exception], ...] = tuple(errors)
        for error in self.errors:
            self._make(error)  # or it would be found out in the middle of an experiment
        self.results: tuple[Any, ...] = tuple(results)
        self._rule = ChaosRule(rate, latency, len(self.errors) + len(self.results))
        self._window = ChaosWindow(between)
        self._wanted = _wanted(keys)
        self._seed = seed
        self._random = Random(seed)
        if not isinstance(enabled, bool):
            raise TypeError(f"enabled must be a bool, got {enabled!r}")
        self._enabled = enabled
        self.injected: int = 0
        """Calls disturbed so far."""

    @property
    def enabled(self) -> bool:
        """Whether it is switched on."""
        return self._enabled

    def enable(self) -> None:
        """Switch it on: the times of `between` and the draws of `seed` begin anew."""
        self._random = Random(self._seed)
        self._window.begin(clock.now())
        self._enabled = True

    def disable(self) -> None:
        """Leave all calls alone from now on; delays that have begun go on."""
        self._enabled = False

    def wrap(self, proceed: Handler) -> Handler:
        """Fold the faults around `proceed`."""

        async def disturbed(call: Call) -> Any:
            if not self._enabled:
                return await proceed(call)
            disturbance = self._decide(call.key)
            if disturbance is None:
                return await proceed(call)
            return await self._inject(call, proceed, disturbance)

        return disturbed

    def _decide(self, key: str) -> Disturbance | None:
        if not self._wanted(key) or not self._window.open(clock.now()):
            return None
        draw = self._random.random
        return self._rule.decide(draw(), draw(), draw())

    async def _inject(self, call: Call, proceed: Handler, disturbance: Disturbance) -> Any:
        number, errors = disturbance.fault, self.errors
        error = self._make(errors[number]) if number is not None and number < len(errors) else None
        result = self.results[number - len(errors)] if number is not None and error is None else None
        self.injected += 1
        if self.listeners:
            fault = "" if number is None else repr(result) if error is None else type(error).__name__
            self.emit(ChaosInjected(call.operation.name, self.name, call.key, fault, disturbance.latency, error))
        if disturbance.latency:
            await anyio.sleep(disturbance.latency)
        if error is not None:
            try:
                raise error
            finally:
                del error  # or the error and this frame would hold each other
        return await proceed(call) if number is None else result

    def _make(self, fault: Exception | type[Exception]) -> Exception:
        """An exception of its own for each call, marked."""
        mark = f"injected by {self.name}"
        if isinstance(fault, type) and issubclass(cast("type[object]", fault), Exception):
            try:
                error = fault(mark)
            except TypeError as cause:
                message = f"errors must hold exceptions, or types made with a message; {fault.__name__} is not"
                raise TypeError(message) from cause
        elif isinstance(fault, Exception):
            error = another(fault)
        else:
            raise TypeError(f"errors must hold exceptions or types of them, got {fault!r}")
        if mark not in getattr(error, "__notes__", ()):
            error.add_note(mark)
        return error


def _wanted(keys: Keys | None) -> Callable[[str], bool]:
    if keys is None:
        return lambda key: True
    if callable(keys):
        return keys
    if isinstance(keys, str):
        raise TypeError(f"keys must be a collection of keys or a predicate, got {keys!r}")
    return frozenset(keys).__contains__
