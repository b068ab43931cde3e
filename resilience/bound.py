"""A policy with per-call values: which partition, what it costs, what it is called.

@payments.bind(key=lambda order: order.tenant)
async def charge(order): ...

await payments.bind(key="eu", cost=3).call(charge, order)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from ._block import Block
from ._decorate import decorate
from .call import Call, Cost, Operation
from .outcome import Outcome

if TYPE_CHECKING:
    from .policy import Policy

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C")
Stream = TypeVar("Stream", bound=AsyncIterator[Any])


class Bound:
    """What `policy.bind(...)` returns: the same uses, with key, cost and name filled in.

    Raises TypeError at construction if `key` is neither a string nor callable, or `cost` neither a number nor
    a mapping of dimensions to numbers nor callable. Functions get the arguments of the call.
    """

    __slots__ = ("_cost", "_key", "_name", "_operation", "_policy")

    def __init__(
        self,
        policy: Policy,
        *,
        key: str | Callable[..., str] | None = None,
        cost: Cost | Callable[..., Cost] | None = None,
        name: str | None = None,
    ) -> None:
        if key is not None and not isinstance(key, str) and not callable(key):
            raise TypeError(f"key must be a string or a function of the call's arguments, got {key!r}")
        given: object = cost
        plain = isinstance(given, int | float | Mapping) and not isinstance(given, bool)
        if cost is not None and not callable(cost) and not plain:
            raise TypeError(f"cost must be a number, a mapping or a function of the call's arguments, got {cost!r}")
        self._policy = policy
        self._key = key
        self._cost: Cost | Callable[..., Cost] | None = cost
        self._name = name
        inner = policy.operation
        self._operation = Operation(name or inner.name, classifier=inner.classifier, discard=inner.discard)

    def _make(
        self, operation: Operation, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Call:
        key, cost = self._key, self._cost
        if callable(key):
            key = key(*args, **kwargs)
        if callable(cost):
            cost = cost(*args, **kwargs)
        return Call(operation, fn, args, kwargs, key=key or "", cost=1 if cost is None else cost)

    async def call(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `await fn(*args, **kwargs)` under the policy; see `Policy.call`."""
        result: T = await self._policy.run(self._make(self._operation, fn, args, kwargs))
        return result

    async def outcome(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Outcome[T]:
        """Like `call`, but returns an `Outcome`; see `Policy.outcome`."""
        try:
            return Outcome(await self._policy.run(self._make(self._operation, fn, args, kwargs)))
        except Exception as error:
            return Outcome(error=error)

    def guard(self) -> AbstractAsyncContextManager[Call]:
        """Protect a block. Raises TypeError if key or cost is a function: a block has no arguments."""
        if callable(self._key) or callable(self._cost):
            raise TypeError("key and cost must be values, not functions, to guard a block")
        cost = 1 if self._cost is None else self._cost
        return Block(self._policy.guards(), self._operation, key=self._key or "", cost=cost)

    @overload
    def __call__(self, fn: staticmethod[P, Awaitable[T]], /) -> staticmethod[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __call__(self, fn: classmethod[C, P, Awaitable[T]], /) -> classmethod[C, P, Coroutine[Any, Any, T]]: ...
    @overload
    def __call__(self, fn: Callable[P, Awaitable[T]], /) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __call__(self, fn: Callable[P, Stream], /) -> Callable[P, Stream]: ...
    def __call__(self, fn: Any, /) -> Any:
        """Decorate a coroutine function, an async generator function or a method."""
        return decorate(self._policy, fn, self._make, self._name)
