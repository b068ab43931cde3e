"""When a server is taken to be away, and how it is found back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MaxConnectionsError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from resilience.errors import StoreUnavailableError
from resilience_redis.connection.guard import FAILURES, Guard
from resilience_redis.connection.outage import means_away

AWAY = RedisConnectionError("gone")


class Place:
    """A server that may be there, and a guard that looks for it often."""

    def __init__(self) -> None:
        self.problem: Exception | None = AWAY
        self.probes = 0
        self.abandoned = 0
        self.heard: list[bool] = []
        self.guard = Guard(self._probe, self._abandon, interval=0.002)
        self.guard.on_change(self.heard.append)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5.0):
            while not condition():
                await asyncio.sleep(0.001)

    async def until_back(self) -> None:
        await self.until(lambda: self.guard.available)

    async def _probe(self) -> None:
        self.probes += 1
        if self.problem is not None:
            raise self.problem

    async def _abandon(self) -> None:
        self.abandoned += 1


@pytest.mark.asyncio
async def test_one_silence_is_enough_and_the_server_is_found_back() -> None:
    place = Place()
    guard = place.guard
    assert guard.available
    guard.missed(AWAY, certain=True)
    guard.missed(AWAY, certain=True)  # nothing new
    assert not guard.available
    assert "Redis is away: gone" in str(guard.refusal())
    assert guard.refusal() is not guard.refusal()
    await place.until(lambda: place.probes > 3)
    assert guard.away_for > 0.0
    place.problem = None
    await place.until_back()
    away_for = guard.away_for
    await asyncio.sleep(0.01)
    assert guard.away_for == away_for
    assert (place.heard, guard.outages, place.abandoned) == ([False, True], 1, 0)
    probes = place.probes
    await asyncio.sleep(0.01)
    assert place.probes == probes, "a server that is there is not looked for"
    guard.missed(AWAY, certain=True)
    await place.until_back()
    assert (guard.outages, place.heard) == (2, [False, True, False, True])
    assert guard.away_for > away_for


@pytest.mark.asyncio
async def test_refusals_count_only_in_a_row() -> None:
    place = Place()
    full = OutOfMemoryError("full")
    for _ in range(FAILURES - 1):
        place.guard.missed(full, certain=False)
    place.guard.heard()
    for _ in range(FAILURES - 1):
        place.guard.missed(full, certain=False)
    assert place.guard.available
    place.guard.missed(full, certain=False)
    assert not place.guard.available
    await place.guard.aclose()


@pytest.mark.asyncio
async def test_a_server_that_finds_fault_with_us_is_there() -> None:
    for mistake in (AuthenticationError("wrong"), NoPermissionError("no"), ResponseError("WRONGTYPE")):
        place = Place()
        place.problem = mistake
        place.guard.missed(AWAY, certain=True)
        await place.until_back()
        assert place.probes == 1


@pytest.mark.asyncio
async def test_closing_ends_the_search_for_good() -> None:
    place = Place()
    place.guard.missed(AWAY, certain=True)
    await place.until(lambda: place.probes > 1)
    await place.guard.aclose()
    await place.guard.aclose()
    probes = place.probes
    assert place.abandoned == 1
    await asyncio.sleep(0.01)
    assert place.probes == probes
    other = Place()
    await other.guard.aclose()
    other.guard.missed(AWAY, certain=True)
    await asyncio.sleep(0.01)
    assert (other.probes, other.guard.available) == (0, False)


@pytest.mark.asyncio
async def test_a_listener_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    place = Place()

    def fail(_: bool) -> None:
        raise RuntimeError("oops")

    heard: list[bool] = []
    stop = place.guard.on_change(fail)
    forget = place.guard.on_change(heard.append)
    with caplog.at_level(logging.ERROR, "resilience.redis"):
        place.guard.missed(AWAY, certain=True)
    assert "oops" in caplog.text
    assert heard == [False]
    for end in (stop, stop, forget):
        end()
    place.problem = None
    await place.until_back()
    assert (heard, place.heard) == ([False], [False, True])


@pytest.mark.parametrize(
    ("error", "means"),
    [
        (RedisConnectionError("refused"), True),
        (BusyLoadingError("loading"), True),
        (TimeoutError("silence"), True),
        (OSError(113, "no route"), True),
        (ReadOnlyError("a replica"), True),
        (OutOfMemoryError("full"), False),
        (ClusterDownError("CLUSTERDOWN"), False),
        (ResponseError("NOREPLICAS not enough"), False),
        (ResponseError("BUSY with a script"), False),
        (TryAgainError("a slot on the move"), None),
        (MaxConnectionsError("our own pool"), None),
        (AuthenticationError("wrong"), None),
        (NoPermissionError("no"), None),
        (ResponseError("WRONGTYPE"), None),
        (StoreUnavailableError("said already"), None),
        (ValueError("ours"), None),
    ],
)
def test_what_an_error_says_of_the_server(error: Exception, means: bool | None) -> None:
    assert means_away(error) is means
