"""What is published in the server, for those in this event loop who want to know.

One connection for all channels. It comes back by itself after an outage; what was published meanwhile is lost,
so every listener is told that it has to look for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

logger: logging.Logger = logging.getLogger("resilience.redis")

PAUSE = 0.2
"""Seconds between two attempts to connect, give or take a half."""

Listener = Callable[[str | None], None]


class News:
    """The subscriptions of one event loop."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._listeners: dict[str, list[Listener]] = {}
        self._task: asyncio.Task[None] | None = None
        self._pubsub: Any = None

    def subscribe(self, channel: str, listener: Listener) -> Callable[[], None]:
        """Tell `listener` what is published in `channel`, and None after each (re)connection."""
        self._listeners.setdefault(channel, []).append(listener)
        self._restart()

        def stop() -> None:
            listeners = self._listeners.get(channel, [])
            if listener in listeners:
                listeners.remove(listener)

        return stop

    async def aclose(self) -> None:
        """Hear nothing any more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _restart(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._listen())
        elif self._pubsub is not None:
            self._task.cancel()
            self._task = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        while True:
            try:
                await self._follow()
            except (RedisError, OSError) as error:
                logger.debug("no news from Redis: %s", error)
            await asyncio.sleep(PAUSE * (0.5 + random.random()))

    async def _follow(self) -> None:
        """Subscribe and pass on what comes, until the connection ends."""
        pubsub = subscriber(self._client)
        try:
            await pubsub.subscribe(*self._listeners)
            self._pubsub = pubsub
            while True:
                message = await pubsub.get_message(timeout=None)
                if message is None:
                    continue
                channel = _text(message["channel"])
                if message["type"] == "subscribe":
                    self._tell(channel, None)
                elif message["type"] == "message":
                    self._tell(channel, _text(message["data"]))
        finally:
            self._pubsub = None
            with contextlib.suppress(RedisError, OSError):
                await pubsub.aclose()

    def _tell(self, channel: str, message: str | None) -> None:
        for listener in tuple(self._listeners.get(channel, ())):
            try:
                listener(message)
            except Exception:
                logger.exception("listener %r failed on %r", listener, message)


def subscriber(client: Any) -> Any:
    """Return a subscription over a connection of the client's own pool."""
    return client.pubsub()


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
