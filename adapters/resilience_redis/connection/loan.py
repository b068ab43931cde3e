"""A connection that carries commands, without anybody waiting in between.

    loan = Loan(connection)
    loan.write([("EVALSHA", ...), ("EVALSHA", ...)], arrived)  # arrived(replies), or arrived(error)
    loan.end()

Commands go out in one write, replies come in the order of the commands.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse

from resilience_redis.connection.borrowed import Borrowed

Arrived: TypeAlias = Callable[[list[Any] | Exception], None]
"""Hears a reply or an exception for each command, or what broke all of them."""


class Loan(Borrowed):
    """Commands and who waits for their replies."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self.used: bool = True
        """Whether it was written to, since somebody set this to False."""
        self._waiting: deque[tuple[int, list[Any], Arrived]] = deque()

    @property
    def busy(self) -> bool:
        """Whether replies are still to come."""
        return bool(self._waiting)

    def write(self, commands: Sequence[Sequence[str | int]], arrived: Arrived) -> None:
        """Send commands; `arrived` is called once, never from within. Raises ValueError for what has no bytes."""
        self.used = True
        self.send(commands)
        self._waiting.append((len(commands), [], arrived))

    def received(self, reply: Any) -> None:
        """Collect the replies to what was sent together."""
        if not self._waiting:
            raise InvalidResponse(f"a reply that nobody waits for: {reply!r}")
        count, collected, arrived = self._waiting[0]
        collected.append(reply)
        if len(collected) == count:
            self._waiting.popleft()
            arrived(collected)

    def lost(self, reason: str) -> None:
        """Tell everybody who waits."""
        waiting, self._waiting = self._waiting, deque()
        for _, _, arrived in waiting:
            arrived(RedisConnectionError(reason))
