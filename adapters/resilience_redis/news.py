"""What is published in the server, for those in this event loop who want to know.

    news = News(client)
    stop = news.subscribe("resilience:circuits", listener)   # listener(message); listener(None)

One connection for all channels, beside those of the client's pool; in a cluster to any of its servers, for all of
them hear everything. It comes back by itself after an outage; what was published meanwhile is lost, so every
listener is told that it has to look for itself.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from resilience.errors import StoreUnavailableError
from resilience_redis.connection.borrowed import Borrowed
from resilience_redis.connection.ending import end
from resilience_redis.connection.outage import as_outage

logger: logging.Logger = logging.getLogger("resilience.redis")

PAUSE = 0.2
"""Seconds between two attempts to connect, give or take a half."""

PATIENCE = 1.0
"""Seconds that connecting may take, and that a server may say nothing at all, even when asked."""

Listener = Callable[[str | None], None]


class News:
    """The subscriptions of one event loop."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._listeners: dict[str, list[Listener]] = {}
        self._task: asyncio.Task[None] | None = None
        self._feed: _Feed | None = None
        self._shunned = ""  # the server of a cluster whose news ended last
        self._complaint = ""

    def subscribe(self, channel: str, listener: Listener) -> Callable[[], None]:
        """Tell `listener` what is published in `channel`, and None after each (re)connection."""
        known = channel in self._listeners
        self._listeners.setdefault(channel, []).append(listener)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._listen())
        elif self._feed is not None:
            if channel in self._feed.confirmed:
                asyncio.get_running_loop().call_soon(_tell, listener, None)
            elif not known:
                self._feed.send([("SUBSCRIBE", channel)])
        return lambda: self._stop(channel, listener)

    async def aclose(self) -> None:
        """Hear nothing any more."""
        task, self._task = self._task, None
        if task is not None:
            await end(task)

    def _stop(self, channel: str, listener: Listener) -> None:
        listeners = self._listeners.get(channel, [])
        if listener not in listeners:
            return
        listeners.remove(listener)
        if not listeners:
            del self._listeners[channel]
            if self._feed is not None:
                self._feed.confirmed.discard(channel)
                self._feed.send([("UNSUBSCRIBE", channel)])

    async def _listen(self) -> None:
        while True:
            try:
                await self._follow()
            except Exception as error:
                self._complain(error)
            await asyncio.sleep(PAUSE * (0.5 + random.random()))

    async def _follow(self) -> None:
        """Subscribe and pass on what comes, until the connection ends."""
        async with asyncio.timeout(PATIENCE):
            connection = await self._connect()
        try:
            feed = _Feed(connection, self._heard)
            if self._listeners:
                feed.send([("SUBSCRIBE", *self._listeners)])
            self._feed = feed
            await feed.end_of_it()
        finally:
            self._feed = None
            await connection.disconnect(nowait=True)

    async def _connect(self) -> Any:
        """Return a connection that belongs to no pool."""
        if hasattr(self._client, "connection_pool"):
            connection: Any = self._client.connection_pool.make_connection()
        else:
            await self._client.initialize()
            nodes = [each for each in self._client.get_nodes() if each.name != self._shunned]
            node = random.choice(nodes or self._client.get_nodes())
            self._shunned = node.name
            connection = node.connection_class(**node.connection_kwargs)
        try:
            await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    def _heard(self, channel: str, message: str | None) -> None:
        self._complaint = ""
        for listener in tuple(self._listeners.get(channel, ())):
            _tell(listener, message)

    def _complain(self, error: Exception) -> None:
        """Say it once if time will not cure it; the store itself speaks of outages."""
        outage = isinstance(as_outage(error), StoreUnavailableError)
        if not outage and str(error) != self._complaint:
            logger.warning("no news from Redis: %s", error)
        self._complaint = str(error)


class _Feed(Borrowed):
    """A connection that is subscribed."""

    def __init__(self, connection: Any, heard: Callable[[str, str | None], None]) -> None:
        super().__init__(connection, pushed=True)
        self.confirmed: set[str] = set()
        """The channels that the server has promised to tell of."""
        self._heard = heard
        self._silent = False
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def end_of_it(self) -> None:
        """Wait until the connection ends, and raise what ended it. A server that is silent is asked for a word."""
        try:
            while True:
                done, _ = await asyncio.wait([self._ended], timeout=PATIENCE)
                if done:
                    return self._ended.result()
                if self._silent:
                    raise RedisConnectionError(f"not a word in {PATIENCE:g} seconds")
                self._silent = True
                self.send([("PING",)])
        finally:
            self._ended.cancel()
            self.abort()

    def received(self, reply: Any) -> None:
        """Pass news on."""
        self._silent = False
        if isinstance(reply, Exception):
            self._end_with(reply)
        elif isinstance(reply, list):
            self._take(reply)

    def _take(self, words: Any) -> None:
        if len(words) == 3:
            kind, channel, content = words
            if kind == b"message":
                self._heard(channel.decode(), content.decode("utf-8", "replace"))
            elif kind == b"subscribe":
                self.confirmed.add(channel.decode())
                self._heard(channel.decode(), None)

    def lost(self, reason: str) -> None:
        """The connection ended."""
        self._end_with(RedisConnectionError(reason))

    def _end_with(self, error: Exception) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)


def _tell(listener: Listener, message: str | None) -> None:
    try:
        listener(message)
    except Exception:
        logger.exception("listener %r failed on %r", listener, message)
