"""The entries of a cache in Redis: one script call looks and takes the lease, one stores.

    cache = store.cache(spec)
    look = await cache.look("app.user('': id=int:7)", token, lease=10.0, draw=0.1)

Each entry is a hash of its own, so that a cluster spreads them. Who waits for another process's fetch hears of its end
on one channel for the whole cache; the message says which entry it was.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from resilience.caching.cache_state import CacheSpec, Life
from resilience.machines.cache_lease import Look
from resilience_redis.bulkheads.permits import escaped
from resilience_redis.connection.outage import as_outage
from resilience_redis.connection.replies import as_text
from resilience_redis.scripts import script_of

if TYPE_CHECKING:
    from resilience_redis.link import Link

VERSION = "v1"
"""Of the layout of entries; a new layout gets new keys."""

LONGEST = 120
"""Characters of a call's key that are written out in the key of its entry; a longer one is hashed."""

STEP = 5.0
"""Seconds that the server may take for the next keys, when all entries are being forgotten."""


class RedisCache:
    """`RemoteCache` on a Redis server."""

    def __init__(self, spec: CacheSpec, prefix: str, link: Callable[[], Link]) -> None:
        self._link = link
        self._tag = f"{{{prefix}:{escaped(spec.name)}:"
        self._kind = f"}}:cache:{VERSION}:{escaped(spec.codec.name)}"
        self._channel = f"{prefix}:{escaped(spec.name)}:cache:{VERSION}"
        self._script = script_of("_prelude", "cache")
        self._news: weakref.WeakKeyDictionary[Link, _News] = weakref.WeakKeyDictionary()

    async def look(self, key: str, token: str, lease: float, draw: float) -> Look:
        """What there is, and whether to serve it, to fetch with the lease that was taken, or to wait."""
        reply = await self._run(key, "look", token, _micros(lease), f"{draw:.17g}")
        state, kind, payload, left = map(as_text, reply)
        return Look(state, kind, payload, float(left) / 1e6)

    async def store(self, key: str, token: str, kind: str, payload: str, life: Life) -> bool:
        """Keep a value and end the lease; False if the lease is no more. Without a token: in any case."""
        arguments = ("store", token, kind, payload, *map(_micros, life), self._channel, self.key(key))
        return int(await self._run(key, *arguments)) == 1

    async def drop(self, key: str) -> bool:
        """Forget an entry; whether there was one."""
        return int(await self._run(key, "drop", self._channel, self.key(key))) == 1

    async def clear(self) -> None:
        """Forget all entries: looks through all keys of the server, in steps."""
        link = self._link()
        keys = link.lane.wire.client.scan_iter(match=self._pattern(), count=1000)
        batch: list[str] = []
        while True:
            try:
                async with asyncio.timeout(STEP):
                    batch.append(as_text(await anext(keys)))
            except StopAsyncIteration:
                break
            except Exception as error:
                raise as_outage(error) from error
            if len(batch) == 500:
                await self._drop_all(link, batch)
                batch.clear()
        await self._drop_all(link, batch)

    async def release(self, key: str, token: str, pause: float) -> None:
        """End a lease without a value; what is kept is not refreshed for so long."""
        await self._run(key, "release", token, _micros(pause), self._channel, self.key(key))

    def renewing(self, key: str, token: str, lease: float, lost: Callable[[], None]) -> Callable[[], None]:
        """Renew a lease every third of it until what is returned is called; call `lost` if it is no more."""

        async def renew() -> None:
            with suppress(RedisError):  # what waiting cannot cure is told by the store that follows
                if int(await self._run(key, "renew", token, _micros(lease))) == 0:
                    lost()

        return self._link().every(lease / 3, renew)

    def watch(self, key: str) -> _Watch:
        """Hear what happens to an entry."""
        link = self._link()
        news = self._news.get(link)
        if news is None:
            news = self._news[link] = _News()
            link.subscribe(self._channel, news.tell)
        return _Watch(news, self.key(key))

    def key(self, key: str) -> str:
        """The Redis key of the entry of a call."""
        if len(key) > LONGEST:
            key = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
        return f"{self._tag}{escaped(key)}{self._kind}"

    async def _run(self, key: str, operation: str, *arguments: str) -> Any:
        return await self._link().run(self._script, (self.key(key),), (operation, "", *arguments))

    async def _drop_all(self, link: Link, keys: Sequence[str]) -> None:
        calls = [link.run(self._script, (key,), ("drop", "", self._channel, key)) for key in keys]
        for each in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(each, BaseException):
                raise each

    def _pattern(self) -> str:
        literal = re.sub(r"([\[\]*?\\])", r"\\\1", self._tag)
        return f"{literal}*{self._kind}"


class _News:
    """Those in one event loop who wait for something to happen to an entry."""

    def __init__(self) -> None:
        self.watches: dict[str, list[_Watch]] = {}

    def tell(self, key: str | None) -> None:
        """Something happened to that entry; None: perhaps to any."""
        keys = tuple(self.watches) if key is None else (key,)
        for each in keys:
            for watch in self.watches.get(each, ()):
                watch.event.set()


class _Watch:
    def __init__(self, news: _News, key: str) -> None:
        self.event = asyncio.Event()
        self._news = news
        self._key = key
        news.watches.setdefault(key, []).append(self)

    async def wait(self, seconds: float) -> None:
        """Return when something has happened since the last time, or after so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self.event.wait()
        except TimeoutError:
            return
        self.event.clear()

    def close(self) -> None:
        """Hear no more."""
        watches = self._news.watches[self._key]
        watches.remove(self)
        if not watches:
            del self._news.watches[self._key]


def _micros(seconds: float) -> str:
    return f"{seconds * 1e6:.17g}"
