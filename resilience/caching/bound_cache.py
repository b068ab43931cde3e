"""A cache with per-call values: which partition, what the call is called.

north = profiles.bind(key="north")

await north.call(fetch, "ann")
await north.invalidate(fetch, "ann")
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import MethodType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .._decorate import guarded_by
from ..bound import Bound
from ..call import Call, Cost
from ..outcome import Outcome

if TYPE_CHECKING:
    from ..policies.cache import Cache

P = ParamSpec("P")
T = TypeVar("T")


class BoundCache(Bound):
    """What `cache.bind(...)` returns: the uses of a policy, and those of the cache, in one partition."""

    __slots__ = ("_cache",)

    def __init__(
        self,
        cache: Cache,
        *,
        key: str | Callable[..., str] | None = None,
        cost: Cost | Callable[..., Cost] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(cache, key=key, cost=cost, name=name)
        self._cache = cache

    async def peek(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Outcome[T] | None:
        """See `Cache.peek`."""
        return await self._cache._peek(self._record(fn, args, kwargs))

    async def put(self, value: T, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """See `Cache.put`."""
        await self._cache._put(self._record(fn, args, kwargs), value)

    async def invalidate(self, fn: Callable[P, Awaitable[Any]], /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """See `Cache.invalidate`."""
        return await self._cache._invalidate(self._record(fn, args, kwargs))

    def _record(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        return self._make(self._operation, *behind(self._cache, fn, args), kwargs)


def behind(cache: Cache, fn: Any, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """The function that the cache was put around, which is what its keys are made of, and its arguments."""
    if isinstance(fn, MethodType) and guarded_by(cache, fn.__func__) is not fn.__func__:
        fn, args = fn.__func__, (fn.__self__, *args)
    return guarded_by(cache, fn), args
