"""A connection of redis-py whose bytes are ours for a while.

What redis-py does around a command costs as much as the command, and a subscription is none of its pool's business.
While a connection is borrowed, an asyncio protocol of ours takes the place of redis-py's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.exceptions import InvalidResponse

from resilience_redis.connection.resp import Replies, pack


class Borrowed(asyncio.Protocol):
    """Base of those who take over a connected, quiet connection; they say what to do with a reply, and at the end."""

    def __init__(self, connection: Any, *, pushed: bool = False) -> None:
        self.connection = connection
        self.open: bool = True
        """Whether it can still be written to."""
        self._replies = Replies(connection._parser.parse_error, pushed=pushed)
        self._transport = connection._writer.transport
        self._former = self._transport.get_protocol()
        self._transport.set_protocol(self)

    def received(self, reply: Any) -> None:
        """Take a reply."""
        raise NotImplementedError

    def lost(self, reason: str) -> None:
        """Nothing more will come."""
        raise NotImplementedError

    def send(self, commands: Sequence[Sequence[str | int]]) -> None:
        """Send commands in one write."""
        self._transport.write(pack(commands))

    def end(self) -> None:
        """Let redis-py have the connection back, which must be quiet."""
        if self.open:
            self.open = False
            self._transport.set_protocol(self._former)

    def abort(self, reason: str = "given up") -> None:
        """Close the connection: what it may still have to say is nobody's answer."""
        self.open = False
        self._transport.abort()
        self.lost(reason)

    def data_received(self, data: bytes) -> None:
        """Pass on what is complete."""
        try:
            for reply in self._replies.feed(data):
                self.received(reply)
        except InvalidResponse as error:
            self.abort(str(error))

    def eof_received(self) -> None:
        """Nothing more will come; the transport closes itself."""
        self.open = False
        self._former.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody, and redis-py."""
        self._former.connection_lost(exc)
        self.abort(f"connection lost: {exc}" if exc else "connection closed by the server")

    def pause_writing(self) -> None:
        """Nothing to do: what may be under way is bounded by those who write."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""
