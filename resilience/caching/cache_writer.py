"""Writing what a cache reads: to the source, and to the cache.

users = cache.writer(fetch_user, save_user)                       # write-through
await users.write({"name": "Ann"}, 7)                             # save_user({"name": "Ann"}, 7), then the cache

async with cache.writer(fetch_user, save_user, behind=100) as users:
    await users.write({"name": "Ann"}, 7)                         # the cache, then at leisure save_user(...)
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

import anyio

from .._validate import whole
from ..call import Call
from ..errors import StoreUnavailableError
from ..events import CacheWriteFailed
from ..running._jobs import begin, home

if TYPE_CHECKING:
    from ..policies.cache import Cache

P = ParamSpec("P")
T = TypeVar("T")

logger: logging.Logger = logging.getLogger("resilience")


class _Write:
    """A value on its way to the source."""

    __slots__ = ("call", "value")

    def __init__(self, call: Call, value: Any) -> None:
        self.call = call
        self.value = value


class Writer(Generic[P, T]):
    """Writes values by `save(value, *args, **kwargs)`; the other arguments are those by which `fetch` reads them.

    Write-through: `write` returns when the source has the value and the cache has it too. If saving raises or is
    cancelled nobody knows what the source has, and the cache forgets it.

    Write-behind (`behind`: how many writes may be still to come): `write` returns when the cache has the value, and
    waits while there are too many; writes of the same arguments replace each other while they wait. One at a time is
    saved, in order of arrival. `flush` waits for those that are still to come, `aclose` too, and then refuses more.
    One that fails is not tried again (put a Retry around `save`): the cache forgets the value, and a CacheWriteFailed
    is emitted and logged, also for all that are still to come when the event loop ends. Until it is written, calls
    in this process find the value; with a store elsewhere, another process may read the source too early.
    """

    def __init__(
        self,
        cache: Cache,
        fetch: Callable[P, Awaitable[T]],
        save: Callable[..., Awaitable[Any]],
        *,
        behind: int | None = None,
    ) -> None:
        if not callable(fetch) or not callable(save):
            raise TypeError(f"fetch and save must be functions, got {fetch!r} and {save!r}")
        self.behind: int | None = None if behind is None else whole("behind", behind, 1)
        self.failed: int = 0
        """Writes that were lost so far."""
        self._cache = cache
        self._fetch = fetch
        self._save = save
        self._pending: dict[Hashable, _Write] = {}  # in order of arrival
        self._home: object = None  # the event loop in which somebody is at work
        self._shift = 0
        self._closed = False
        self._moved: anyio.Event | None = None

    @property
    def pending(self) -> int:
        """Writes that are still to come."""
        return len(self._pending)

    async def write(self, value: T, *args: P.args, **kwargs: P.kwargs) -> None:
        """Write `value` as what `fetch(*args, **kwargs)` is to return.

        Raises what `save` raises (not behind), RuntimeError after `aclose`, and, when the value is written but a store
        elsewhere could not be told, StoreUnavailableError.
        """
        if self._closed:
            raise RuntimeError("this writer is closed")
        call = self._cache._record(self._fetch, args, kwargs)
        if self.behind is None:
            await self._through(call, value)
        else:
            await self._behind(call, value, self.behind)

    async def flush(self) -> None:
        """Wait until nothing is still to come."""
        while self._pending:
            self._start()
            await self._move()

    async def aclose(self) -> None:
        """Refuse further writes, and wait for those that are still to come."""
        self._closed = True
        await self.flush()

    async def __aenter__(self) -> Writer[P, T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _through(self, call: Call, value: T) -> None:
        try:
            await self._save(value, *call.args, **call.kwargs)
        except BaseException:
            with suppress(StoreUnavailableError):
                await self._cache._invalidate(call)
            raise
        await self._cache._put(call, value)

    async def _behind(self, call: Call, value: T, room: int) -> None:
        key = self._cache._key_of(call)
        while key not in self._pending and len(self._pending) >= room:
            self._start()
            await self._move()
        if self._closed:
            raise RuntimeError("this writer was closed")
        self._pending[key] = _Write(call, value)
        self._cache._pend(call, value)
        self._start()
        with suppress(StoreUnavailableError):  # it is told again when the value is written
            await self._cache._put(call, value)

    async def _move(self) -> None:
        """Wait until a write is over."""
        if self._moved is None:
            self._moved = anyio.Event()
        await self._moved.wait()

    def _start(self) -> None:
        """See to it that somebody in this event loop is at work."""
        if self._home is None or self._home is not home():
            self._home, self._moved = home(), None
            self._shift += 1
            begin(partial(self._work, self._shift))

    async def _work(self, shift: int) -> None:
        try:
            while self._pending:
                await self._next()
        except BaseException as error:  # the event loop ends; unless another has taken over already
            if shift == self._shift:
                self._lose_all(error)
            raise
        finally:
            if shift == self._shift:
                self._home = None

    async def _next(self) -> None:
        key, write = next(iter(self._pending.items()))
        error = await self._saved(write)
        if self._pending.get(key) is write:  # else a newer value waits in its place
            del self._pending[key]
            self._cache._settle(write.call)
        if error is not None:
            self._lost(write, error)
        with suppress(StoreUnavailableError):
            if error is not None:
                await self._cache._invalidate(write.call)
            elif key not in self._pending:
                await self._cache._put(write.call, write.value)
        moved, self._moved = self._moved, None
        if moved is not None:
            moved.set()

    def _lose_all(self, error: BaseException) -> None:
        while self._pending:
            _, write = self._pending.popitem()
            self._cache._settle(write.call)
            self._lost(write, error)

    async def _saved(self, write: _Write) -> Exception | None:
        try:
            await self._save(write.value, *write.call.args, **write.call.kwargs)
        except Exception as error:
            return error
        return None

    def _lost(self, write: _Write, error: BaseException) -> None:
        self.failed += 1
        cache, operation = self._cache, getattr(self._fetch, "__qualname__", type(self._fetch).__qualname__)
        logger.error("%s lost a write for %s: %r", cache.name, operation, error)
        if cache.listeners:
            cache.emit(CacheWriteFailed(operation, cache.name, error, len(self._pending)))
