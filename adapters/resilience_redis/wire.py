"""The way of commands to the server: several in one write.

    wire = Wire(client)
    replies = await wire.exchange([("EVALSHA", ...), ("EVALSHA", ...)])

Taking a connection from redis-py's pool and all that goes on around it costs as much as the command. A plain client
therefore lends one of its connections for as long as there is traffic, at most until the next `rest`; further
exchanges at the same time, and other clients (Cluster, Sentinel, subclasses), go through the client's own methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.exceptions import RedisError, ResponseError


class Wire:
    """One client, and perhaps a connection of its pool."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._pool = client.connection_pool if _lends(client) else None
        self._connection: Any = None
        self._busy = False
        self._tired = False

    async def exchange(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands in one write; return a reply or an exception for each. Raises what breaks all of them."""
        if self._pool is None or self._busy:
            return await _through_client(self.client, commands)
        self._busy = True
        try:
            return await self._directly(self._pool, commands)
        finally:
            self._busy = False

    def tire(self) -> bool:
        """Have the connection given back by the exchange under way; return True if it takes a `rest` to do so."""
        self._tired = self._busy
        return not self._busy and self._connection is not None

    async def rest(self) -> None:
        """Give the connection back to the pool."""
        connection, self._connection, self._tired = self._connection, None, False
        if connection is not None and self._pool is not None:
            await self._pool.release(connection)

    async def _directly(self, pool: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        try:
            if self._connection is None:
                self._connection = await pool.get_connection()
            connection = self._connection
            if _was_closed(connection):  # before anything is sent, so nothing is sent twice
                await connection.disconnect()
                await connection.connect()
            await connection.send_packed_command(connection.pack_commands(commands))
            replies = [await _reply(connection) for _ in commands]
        except BaseException:
            if self._connection is not None:  # what it may still have to say is nobody's answer
                await self._connection.disconnect(nowait=True)
            await self.rest()
            raise
        if self._tired:
            await self.rest()
        return replies


def _lends(client: Any) -> bool:
    """Whether the client is a plain one with a pool that has connections to spare."""
    if type(client) is not Redis or client.connection is not None or client.single_connection_client:
        return False
    pool: Any = client.connection_pool
    return type(pool) in (ConnectionPool, BlockingConnectionPool) and pool.max_connections > 1


def _was_closed(connection: Any) -> bool:
    """Whether the other side has hung up meanwhile; the pools of redis-py 8 do not always look."""
    reader = getattr(connection, "_reader", None)
    return reader is not None and bool(reader.at_eof())


async def _reply(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:  # of one command: the replies to the others follow
        return error


async def _through_client(client: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    if len(commands) == 1:
        try:
            return [await client.execute_command(*commands[0])]
        except RedisError as error:
            return [error]
    async with client.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies
