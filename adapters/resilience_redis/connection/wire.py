"""The way of commands to the server: several in one write.

    wire = Wire(client)
    loan = wire.loan or await wire.borrow()  # if wire.lends
    replies = await wire.exchange([("EVALSHA", ...), ("EVALSHA", ...)])

A plain client lends one of its connections for as long as there is traffic. Other clients (Cluster, Sentinel,
subclasses) are used through their own methods.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from resilience_redis.connection.loan import Loan


class Wire:
    """One client, and perhaps connections of its pool: one in use, and those that were."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._pool = client.connection_pool if _lends(client) else None
        self._loan: Loan | None = None
        self._retired: list[Loan] = []

    @property
    def lends(self) -> bool:
        """Whether a connection can be borrowed."""
        return self._pool is not None

    @property
    def loan(self) -> Loan | None:
        """The connection on loan, if there is one and it is open."""
        loan = self._loan
        return loan if loan is not None and loan.open else None

    async def borrow(self) -> None:
        """Have a connection on loan, a new one if need be."""
        if self.loan is not None:
            return
        self.retire()
        await self.rest()
        pool: Any = self._pool
        connection = await pool.get_connection()
        try:
            if connection._reader.at_eof():  # the other side has hung up: the pools of redis-py 8 do not always look
                await connection.disconnect()
                await connection.connect()
            self._loan = Loan(connection)
        except BaseException:
            await connection.disconnect(nowait=True)
            await pool.release(connection)
            raise

    async def exchange(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands through the client; return a reply or an exception for each. Raises what breaks all."""
        try:
            return await self._through_client(commands)
        except AttributeError as error:  # redis-py 8 writes to what another task has just closed
            raise RedisConnectionError("the connection was closed meanwhile") from error

    async def _through_client(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        if len(commands) == 1:
            try:
                return [await self.client.execute_command(*commands[0])]
            except RedisError as error:
                return [error]
        async with self.client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
            return replies

    def retire(self) -> None:
        """Send nothing more over the connection on loan."""
        if self._loan is not None:
            self._retired.append(self._loan)
            self._loan = None

    def look(self) -> bool:
        """Retire the connection if it was not used since the last look; return True if it takes a `rest`."""
        loan = self._loan
        if loan is not None and not loan.busy:
            if not (loan.used and loan.open):
                self.retire()
            loan.used = False
        return any(not each.busy for each in self._retired)

    async def rest(self) -> None:
        """Give retired connections back to the pool, once the last answer has come."""
        pool: Any = self._pool
        quiet = [each for each in self._retired if not each.busy]
        self._retired = [each for each in self._retired if each.busy]
        for loan in quiet:
            if loan.open:
                loan.end()
            else:
                await loan.connection.disconnect(nowait=True)
            await pool.release(loan.connection)

    async def abandon(self) -> None:
        """Close all connections on loan."""
        self.retire()
        for loan in self._retired:
            loan.abort()
        await self.rest()

    async def forget(self) -> None:
        """Close what idles in the pool: the name of the server may lead to another one by now."""
        if self._pool is not None:
            with contextlib.suppress(RedisError, OSError):
                await self._pool.disconnect(inuse_connections=False)


def _lends(client: Any) -> bool:
    """Whether the client is a plain one with a pool that has connections to spare."""
    if type(client) is not Redis or client.connection is not None or client.single_connection_client:
        return False
    pool: Any = client.connection_pool
    return type(pool) in (ConnectionPool, BlockingConnectionPool) and pool.max_connections > 1
