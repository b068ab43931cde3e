"""What everything shared through one server from one event loop has in common.

    link = store.link()                            # of the running loop
    reply = await link.run(script, keys, arguments)
    link.post(script, keys, arguments)             # nobody waits for the answer
    stop = link.subscribe(channel, listener)       # listener(message); listener(None): ask for what you missed
    stop = link.every(1.0, work)                   # work() is awaited again and again
    link.available, link.on_change(callback)       # whether the server answers

Everything here ends with `aclose`, or with the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from resilience.errors import StoreUnavailableError
from resilience_redis.connection.ending import end
from resilience_redis.connection.guard import Stop
from resilience_redis.connection.replies import ignore
from resilience_redis.members import Members
from resilience_redis.news import News

if TYPE_CHECKING:
    from resilience_redis.connection.lane import Lane
    from resilience_redis.scripts import Script

logger: logging.Logger = logging.getLogger("resilience.redis")


class Link:
    """The way of one event loop to one server: commands, news, members, background work."""

    def __init__(self, lane: Lane, prefix: str) -> None:
        self.lane = lane
        self.prefix = prefix
        self.process: str = uuid.uuid4().hex
        """What this process (and loop) is called in the server: random, never reused."""
        self.members: Members = Members(self)
        self._news = News(lane.wire.client)
        self._jobs: set[asyncio.Task[None]] = set()

    @property
    def available(self) -> bool:
        """Whether the server answered last time. While it is False, operations are refused at once."""
        return self.lane.available

    @property
    def outages(self) -> int:
        """How often the server went away; of a cluster, its servers together."""
        return self.lane.outages

    @property
    def away_for(self) -> float:
        """Seconds without the server, all outages together; of a cluster, those of the server that was away longest."""
        return self.lane.away_for

    def on_change(self, callback: Callable[[bool], None]) -> Stop:
        """Call `callback` with the new value whenever `available` changes. One that raises is logged."""
        return self.lane.on_change(callback)

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str]) -> Any:
        """Run a script and return its reply.

        Raises StoreUnavailableError when the server does not answer within the store's timeout or is known to be
        away, and what waiting cannot cure (authentication, permission, wrong type) as it is. It is carried out even
        if the caller is cancelled.
        """
        return await self.lane.run(script, keys, arguments)

    def post(self, script: Script, keys: Sequence[str], arguments: Sequence[str]) -> asyncio.Future[Any]:
        """Run a script that nobody needs to wait for; an error is nobody's, unless the future is looked at."""
        future = self.lane.run(script, keys, arguments)
        future.add_done_callback(ignore)
        return future

    def subscribe(self, channel: str, listener: Callable[[str | None], None]) -> Stop:
        """Call `listener` with every message of a channel, and with None after each (re)connection.

        Messages are lost while there is no connection: on None, read the current state.
        """
        return self._news.subscribe(channel, listener)

    def every(self, seconds: float, work: Callable[[], Awaitable[object]]) -> Stop:
        """Await `work()` every so many seconds until stopped, the first time after one interval."""

        async def repeat() -> None:
            complaint = ""
            while True:
                await asyncio.sleep(seconds)
                try:
                    await work()
                except StoreUnavailableError:
                    continue
                except Exception as error:  # a mistake that may be put right while we run
                    if str(error) != complaint:
                        logger.exception("background work failed, and goes on")
                    complaint = str(error)

        return self.start(repeat())

    def start(self, work: Coroutine[Any, Any, None]) -> Stop:
        """Run a coroutine in the background; it ends with the link at the latest. If it raises, that is logged."""
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._jobs.add(task)
        task.add_done_callback(self._ended)

        def stop() -> None:
            task.cancel()

        return stop

    async def aclose(self) -> None:
        """End all background work, leave the members, and wait for what is under way."""
        await self.members.leave()
        await end(*self._jobs)
        await self._news.aclose()
        await self.lane.drain()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._jobs.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("background work failed", exc_info=error)
