"""The way through clients that lend no connection."""

from __future__ import annotations

from typing import Any

import pytest
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError

from resilience_redis.connection.wire import Wire
from resilience_redis.server import Server


class Mine(redis.asyncio.Redis):
    """A subclass, which is used through its own methods."""


@pytest.mark.asyncio
async def test_a_connection_that_another_task_closes_is_an_outage(redis_server: Server) -> None:
    made: Any = Mine
    client = made.from_url(redis_server.url, single_connection_client=True)
    async with client:
        wire = Wire(client)
        assert not wire.lends
        assert await wire.exchange([("ECHO", "a")]) == [b"a"]
        connection: Any = client.connection

        class Closed:
            """What stands for the connection in the instant after another task has closed it."""

            def __getattr__(self, name: str) -> Any:
                return getattr(connection, name)

            async def send_command(self, *_: Any, **__: Any) -> None:
                none: Any = None
                none.writelines(())

        client.connection = Closed()
        try:
            with pytest.raises(RedisConnectionError, match="closed meanwhile"):
                await wire.exchange([("ECHO", "a")])
        finally:
            client.connection = connection
