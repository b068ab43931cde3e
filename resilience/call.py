"""What policies may know of one invocation, and what is held for a result that is still alive.

A decorator, `.call`, or an adapter builds a `Call` and hands it to a policy; every policy of a pipeline sees
the same object. Adapters that return before the work is done (a streamed HTTP body, an async generator) put
a `Lease` into the call: policies then leave when the lease is closed, not when the function returns.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from .verdict import DEFAULT_CLASSIFIER, Classifier

if TYPE_CHECKING:
    from .policy import Guard

T = TypeVar("T")

Cost: TypeAlias = float | Mapping[str, float]
"""What a call weighs: a number, or one for each dimension: `{"requests": 1, "tokens": 1800}`."""

Handler: TypeAlias = "Callable[[Call], Awaitable[Any]]"
"""Runs a call: the protected function itself, or a policy wrapped around another handler."""


async def close_result(result: Any) -> None:
    """Close a result that nobody will see: awaits its `aclose()` if it has one, else calls `close()`."""
    close = getattr(result, "aclose", None) or getattr(result, "close", None)
    if callable(close):
        with suppress(Exception):
            closing = close()
            if inspect.isawaitable(closing):
                await closing


class Operation:
    """What all calls of one kind share: their name, how outcomes are judged, how results are discarded."""

    __slots__ = ("classifier", "discard", "name")

    def __init__(
        self,
        name: str = "",
        *,
        classifier: Classifier = DEFAULT_CLASSIFIER,
        discard: Callable[[Any], Awaitable[None]] = close_result,
    ) -> None:
        self.name: str = name
        self.classifier: Classifier = classifier
        self.discard: Callable[[Any], Awaitable[None]] = discard


class Call:
    """One invocation of a protected function.

    `key` names the partition (tenant, host) for policies that keep state per key; `cost` is what it weighs in
    a rate limiter, a number or a mapping of dimensions; `attempt` counts from 1; `deadline` is one that an adapter
    brings, on `resilience.clock`; `repeatable` is False when the call must not be made twice (a POST, a one-shot
    body). `fencing_token` is set while a permit of a shared `Bulkhead` is held.
    """

    __slots__ = (
        "args",
        "attempt",
        "cost",
        "deadline",
        "fencing_token",
        "fn",
        "key",
        "kwargs",
        "lease",
        "operation",
        "repeatable",
    )

    def __init__(
        self,
        operation: Operation,
        fn: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] = {},  # never written to; saves an allocation per call
        *,
        key: str = "",
        cost: Cost = 1,
        deadline: float | None = None,
        repeatable: bool = True,
        lease: Lease | None = None,
    ) -> None:
        self.operation: Operation = operation
        self.fn: Callable[..., Any] = fn
        self.args: tuple[Any, ...] = args
        self.kwargs: Mapping[str, Any] = kwargs
        self.key: str = key
        self.cost: Cost = cost
        self.attempt: int = 1
        self.deadline: float | None = deadline
        self.repeatable: bool = repeatable
        self.lease: Lease | None = lease
        self.fencing_token: int | None = None


async def invoke(call: Call) -> Any:
    """The innermost handler: the protected function itself.

    Raises TypeError if the function did not return an awaitable, which means that it was not async and has
    already run unprotected.
    """
    awaitable = call.fn(*call.args, **call.kwargs)
    try:
        return await awaitable
    except TypeError:
        if not inspect.isawaitable(awaitable):
            raise TypeError(
                f"{call.operation.name or call.fn!r} returned {type(awaitable).__name__}, which cannot be awaited: "
                "only functions that return an awaitable can be guarded"
            ) from None
        raise


class Leasing(Protocol):
    """What holds a live result: a Lease, or what stands for one."""

    @property
    def call(self) -> Call | None:
        """The call that brought the result, once there is something to hold."""
        ...

    def step(self, step: Callable[[], Awaitable[T]]) -> Awaitable[T]:
        """Await the next part of the result. Raises TimedOutError when the call's deadline passes."""
        ...

    def expire(self, clamp: Clamp, raised: BaseException, cancellation: BaseException) -> None:
        """The deadline of `clamp` ended a step by `cancellation`; it will raise `raised`."""
        ...

    def close(self, error: BaseException | None = None) -> None:
        """Let all guards leave; `error` is what broke the result. Doing it again does nothing."""
        ...


class Clamp(Protocol):
    """Runs one step of a live result under a deadline; `Timeout` is one."""

    async def run_until(self, lease: Leasing, deadline: float, step: Callable[[], Awaitable[T]]) -> T:
        """Await `step()`, at most until `deadline`."""
        ...


class Lease:
    """What is still held for a call whose result is alive: a body being streamed, a generator being read.

    Guards put themselves in when the call returns; `close` lets them leave, innermost first, with the final
    verdict. A Retry that discards a result closes what its attempt held.
    """

    __slots__ = ("_clamp", "_deadline", "_expired", "_held", "call")

    def __init__(self) -> None:
        self.call: Call | None = None
        self._held: list[Held] = []
        self._clamp: Clamp | None = None
        self._deadline = 0.0
        # The clamp whose deadline passed, what it raised, and the cancellation by which it ended the step.
        self._expired: tuple[object, BaseException, BaseException] | None = None

    def hold(self, guard: Guard[Any], call: Call, token: Any, result: Any) -> None:
        """Keep `guard` entered; called once by each guard, innermost first."""
        self.call = call
        self._held.append((guard, call, guard.suspend(call, token), result))

    def limit(self, deadline: float, clamp: Clamp) -> None:
        """End every later `step` at `deadline`, if no earlier one is set."""
        if self._clamp is None or deadline < self._deadline:
            self._deadline = deadline
            self._clamp = clamp

    def adopt(self, attempt: Call) -> None:
        """Hold what another attempt at the call holds for its result, and no longer what was held here."""
        self.close()
        other, attempt.lease = attempt.lease, self
        if other is not None:
            self.call, self._held, other._held = other.call, other._held, []
            self._clamp, self._deadline = other._clamp, other._deadline

    async def step(self, step: Callable[[], Awaitable[T]]) -> T:
        """Await the next part of the result. Raises TimedOutError when the call's deadline passes."""
        if self._clamp is None:
            return await step()
        return await self._clamp.run_until(self, self._deadline, step)

    def expire(self, clamp: Clamp, raised: BaseException, cancellation: BaseException) -> None:
        """The deadline of `clamp` ended a step by `cancellation`; it will raise `raised`."""
        self._expired = clamp, raised, cancellation

    def close(self, error: BaseException | None = None) -> None:
        """Let all guards leave; `error` is what broke the result. Doing it again does nothing.

        Guards inside the Timeout that ended the result see the cancellation, not the timeout made of it further out.
        """
        held, self._held, self._clamp = self._held, [], None
        if self._expired is not None and error is self._expired[1]:
            clamp, _, cancellation = self._expired
            inside = list(takewhile(lambda one: one[0] is not clamp, held))
            leave_all(inside, cancellation)
            held = held[len(inside) :]
        leave_all(held, error)


Held: TypeAlias = "tuple[Guard[Any], Call, Any, Any]"
"""A guard that was entered: the guard, its call, its token, and the result if there is one already."""


def leave_all(held: Iterable[Held], error: BaseException | None) -> BaseException | None:
    """Let every guard leave, in order, even if one of them raises; returns the error that remains."""
    for guard, call, token, result in held:
        try:
            guard.leave(call, token, result, error)
        except BaseException as replaced:
            error = replaced
    return error
