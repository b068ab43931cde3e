"""Cache: answer a call with what an equal one returned a while ago.

    cache = Cache(60, stale_for=30, stale_if_error=600)

    @cache
    async def profile(user: str) -> dict: ...

    await profile("ann")                      # runs
    await profile("ann")                      # is answered
    await cache.invalidate(profile, "ann")    # runs again next time

Put it outermost in a pipeline: what is answered needs no permit, no retry and no timeout. The rules of freshness are
in `resilience.machines.cache`, those of sharing a fetch in `resilience.machines.cache_lease`.
"""

from __future__ import annotations

import random as _random
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, ParamSpec, TypeVar

from .. import clock
from .._validate import not_negative, positive
from ..caching._cache_judge import Judge, Negative, by_name, matcher
from ..caching._call_keys import Keys
from ..caching._flight import Flights
from ..caching._local_cache import LocalCache
from ..caching._shared_cache import SharedCache
from ..caching.bound_cache import BoundCache, behind
from ..caching.cache_state import CacheSpec
from ..caching.cache_writer import Writer
from ..caching.codecs import Codec, JsonCodec
from ..call import Call, Cost, Handler
from ..errors import another
from ..events import Listener
from ..machines.cache import CacheMachine, CacheRule
from ..outcome import Outcome
from ..policy import Policy
from ..store import MemoryStore, Store, entries_of, named
from ..verdict import On, classifier

P = ParamSpec("P")
T = TypeVar("T")


class Cache(Policy):
    """Keep what calls returned for `ttl` seconds, and let equal calls that miss at the same time share one run.

    Each entry lives for a time of its own, shorter by up to the share `jitter` (0.1). For `stale_for` seconds (0)
    after that it is still served, while one run in the background refreshes it. For `stale_if_error` seconds (0)
    it is served when a run fails (see `on`), then for `pause` seconds (1) without trying again. Shortly before its
    end an entry is refreshed in the background by chance, the slower its run the earlier: `beta` (1; 0 never).
    Negative results, which are exceptions in `negative` (types or a predicate) and values for which `negative_result`
    is true, are kept for `negative_ttl` seconds (5). Other exceptions, and values that count as failures, are not
    kept. What counts as a failure: `on` and `on_result`; by default every exception, rejections included.

    Equal are calls of one function with equal arguments, `1`, `True` and `1.0` being different; or those for which
    `key`, a function of the arguments, returns the same. `ignore` names parameters that do not count, such as `self`,
    which otherwise counts by its identity. Raises TypeError for an argument that cannot be hashed.

    At most `max_entries` (10,000) are kept in memory, together at most `max_weight` as `weigh(value)` weighs them; the
    least recently used leave first. Everybody is given the same object: do not change it. With `store`, entries are
    shared under `name`; in a store elsewhere values are written by `codec` (default `JsonCodec`, which refuses what
    it would change), and one process runs for all, with a lease of `lease` seconds (10) that it renews. While such
    a store is away, each process has a cache of its own. `random` draws from [0, 1).

    A shared run is a task of its own, as in `SingleFlight`. Raises ValueError or TypeError for bad options.
    """

    def __init__(
        self,
        ttl: float,
        *,
        jitter: float = 0.1,
        stale_for: float = 0.0,
        stale_if_error: float = 0.0,
        pause: float = 1.0,
        beta: float = 1.0,
        negative: Negative | None = None,
        negative_result: Callable[[Any], bool] | None = None,
        negative_ttl: float = 5.0,
        on: On | None = None,
        on_result: Callable[[Any], bool] | None = None,
        key: Callable[..., Hashable] | None = None,
        ignore: Sequence[str] = (),
        max_entries: int = 10_000,
        max_weight: float | None = None,
        weigh: Callable[[Any], float] | None = None,
        store: Store | None = None,
        codec: Codec | None = None,
        lease: float = 10.0,
        random: Callable[[], float] = _random.random,
        name: str | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        super().__init__(name, listeners)
        self.rule: CacheRule = CacheRule(ttl, jitter, stale_for, stale_if_error, negative_ttl, beta)
        if negative_result is not None and not callable(negative_result):
            raise TypeError(f"negative_result must be a predicate on returned values, got {negative_result!r}")
        self._keys = Keys(key, ignore)
        codec = JsonCodec() if codec is None else codec
        spec = CacheSpec(named(name, self.name, store), self.rule, max_entries, max_weight, weigh, codec)
        pause, lease = not_negative("pause", pause), positive("lease", lease)
        own = classifier(on, on_result)
        self._judge = Judge(self, self.rule, own, matcher(negative), negative_result, pause, random)
        state = (store or MemoryStore()).cache(spec)
        self._shared: SharedCache | None = None
        if isinstance(state, CacheMachine):
            flights = Flights()
            self._local = LocalCache(self._judge, state, flights, flights)
        else:
            self._local = LocalCache(self._judge, entries_of(spec), Flights(), Flights())
            self._shared = SharedCache(self._judge, state, codec, self._local, lease, by_name(negative))

    def wrap(self, proceed: Handler) -> Handler:
        """Fold the cache around `proceed`."""
        shared, local, keys = self._shared, self._local, self._keys
        get, pending, answer = local.machine.get, self._judge.pending, local.answer

        async def cached(call: Call) -> Any:
            if call.lease is not None or not call.repeatable:
                return await proceed(call)
            if shared is not None:
                return await shared.answer(call, keys.text(call), proceed)
            key = keys.of(call)
            entry = get(key)
            if entry is not None and clock.now() < entry.calm_until and not pending and not self.listeners:
                return entry.value
            return await answer(call, key, proceed)

        return cached

    def bind(
        self,
        *,
        key: str | Callable[..., str] | None = None,
        cost: Cost | Callable[..., Cost] | None = None,
        name: str | None = None,
    ) -> BoundCache:
        """This cache with a partition, `key`, that is a part of the key of every entry; see `Policy.bind`."""
        return BoundCache(self, key=key, cost=cost, name=name)

    async def peek(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Outcome[T] | None:
        """What is kept for a call of `fn`, fresh or stale; None if there is nothing. Changes nothing.

        Raises StoreUnavailableError if the store is away.
        """
        return await self._peek(self._record(fn, args, kwargs))

    async def put(self, value: T, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Keep `value` as what a call of `fn` with these arguments returned, in place of what is fetched meanwhile.

        Raises StoreUnavailableError if the store is away, TypeError for a value that the codec refuses.
        """
        await self._put(self._record(fn, args, kwargs), value)

    async def invalidate(self, fn: Callable[P, Awaitable[Any]], /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget what a call of `fn` with these arguments returned; whether there was anything.

        A run that began before is not kept either. Raises StoreUnavailableError if the store is away.
        """
        return await self._invalidate(self._record(fn, args, kwargs))

    async def clear(self) -> None:
        """Forget everything. Raises StoreUnavailableError if the store is away."""
        if self._shared is None:
            self._local.clear()
        else:
            await self._shared.clear()

    def writer(
        self,
        fetch: Callable[P, Awaitable[T]],
        save: Callable[..., Awaitable[Any]],
        *,
        behind: int | None = None,
    ) -> Writer[P, T]:
        """What writes the values that `fetch` reads, by `save(value, *args, **kwargs)`, and keeps the cache right.

        Write-through by default; with `behind`, write-behind: `write` returns when the cache has the value, at most so
        many writes are still to come, and `aclose` waits for them. See `Writer`.
        """
        return Writer(self, fetch, save, behind=behind)

    @property
    def degraded(self) -> bool:
        """Whether the store did not answer last time."""
        return self._shared is not None and self._shared.outage.degraded

    @property
    def size(self) -> int:
        """How many entries are in memory."""
        return len(self._local.machine)

    def _record(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """The record of a call of `fn`, as a pipeline with this cache would make it."""
        return Call(self.operation, *behind(self, fn, args), kwargs)

    async def _peek(self, call: Call) -> Outcome[Any] | None:
        if self._shared is not None:
            return await self._shared.peek(self._keys.text(call))
        entry, now = self._local.machine.find(self._keys.of(call)), clock.now()
        if entry is None or now >= max(entry.expires, entry.stale_until):
            return None
        return Outcome(error=another(entry.value)) if entry.failed else Outcome(entry.value)

    async def _put(self, call: Call, value: Any) -> None:
        if self._shared is not None:
            await self._shared.put(self._keys.text(call), value)
        else:
            self._local.put(self._keys.of(call), value)

    async def _invalidate(self, call: Call) -> bool:
        if self._shared is not None:
            return await self._shared.drop(self._keys.text(call))
        return self._local.drop(self._keys.of(call))

    def _pend(self, call: Call, value: Any) -> None:
        """Until it is settled, a call finds this value, whatever leaves the cache: it is still being written."""
        self._judge.pending[self._key_of(call)] = value

    def _settle(self, call: Call) -> None:
        self._judge.pending.pop(self._key_of(call), None)

    def _key_of(self, call: Call) -> Hashable:
        return self._keys.of(call) if self._shared is None else self._keys.text(call)
