"""A cache elsewhere, in virtual time: the machine of shared entries behind a wire that has a delay and can break."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio

from resilience import Store, StoreUnavailableError, clock
from resilience.caching.cache_state import CacheSpec, Life
from resilience.machines.cache_lease import Look, SharedEntry
from resilience.running._jobs import begin


class Elsewhere(Store):
    """A store for caches of several processes; `process()` is the store of each. Commands are counted in `calls`."""

    def __init__(self, delay: float = 0.001, timeout: float = 0.05) -> None:
        self.delay = delay
        self.timeout = timeout
        self.away = False
        self.entries: dict[str, SharedEntry] = {}
        self.watches: list[_Watch] = []
        self.calls: Counter[str] = Counter()

    def cache(self, spec: CacheSpec) -> Remote:
        return Remote(self, spec.name)

    async def command(self, name: str, work: Callable[[], Any]) -> Any:
        """Carry out a command, also if the caller is cancelled; half the delay before it, half after."""
        self.calls[name] += 1
        if self.away:
            await anyio.sleep(self.timeout)
            raise StoreUnavailableError("elsewhere is away")
        done = anyio.Event()
        replies: list[Any] = []

        async def carry() -> None:
            await anyio.sleep(self.delay / 2)
            replies.append(work())
            await anyio.sleep(self.delay / 2)
            done.set()

        begin(carry)
        await done.wait()
        return replies[0]

    def tell(self, key: str) -> None:
        for watch in self.watches:
            if watch.key == key:
                watch.event.set()


class Remote:
    """One process's way to it."""

    def __init__(self, place: Elsewhere, name: str) -> None:
        self._place = place
        self._name = name

    async def look(self, key: str, token: str, lease: float, draw: float) -> Look:
        look: Look = await self._do("look", key, lambda entry: entry.look(clock.now(), token, lease, draw))
        return look

    async def store(self, key: str, token: str, kind: str, payload: str, life: Life) -> bool:
        stored: bool = await self._do("store", key, lambda entry: entry.store(clock.now(), token, kind, payload, *life))
        return stored

    async def drop(self, key: str) -> bool:
        dropped: bool = await self._do("drop", key, SharedEntry.drop)
        return dropped

    async def clear(self) -> None:
        await self._place.command("clear", lambda: None)
        for key in list(self._place.entries):
            await self.drop(key.removeprefix(f"{self._name}/"))

    async def release(self, key: str, token: str, pause: float) -> None:
        await self._do("release", key, lambda entry: entry.release(clock.now(), token, pause))

    def renewing(self, key: str, token: str, lease: float, lost: Callable[[], None]) -> Callable[[], None]:
        async def renew() -> None:
            while True:
                await anyio.sleep(lease / 3)
                if not self._place.away and not await self._do(
                    "renew", key, lambda entry: entry.renew(clock.now(), token, lease)
                ):
                    lost()

        return begin(renew).cancel

    def watch(self, key: str) -> _Watch:
        return _Watch(self._place, f"{self._name}/{key}")

    async def _do(self, name: str, key: str, change: Callable[[SharedEntry], Any]) -> Any:
        return await self._place.command(name, partial(self._change, name, f"{self._name}/{key}", change))

    def _change(self, name: str, key: str, change: Callable[[SharedEntry], Any]) -> Any:
        entry = self._place.entries.setdefault(key, SharedEntry())
        expected = entry.expected
        reply = change(entry)
        if expected and not entry.expected:
            self._place.tell(key)
        return reply


class _Watch:
    def __init__(self, place: Elsewhere, key: str) -> None:
        self.key = key
        self.event = anyio.Event()
        self._place = place
        place.watches.append(self)

    async def wait(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self.event.wait()
            self.event = anyio.Event()

    def close(self) -> None:
        self._place.watches.remove(self)
