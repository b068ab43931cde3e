"""Writers: the source and the cache agree, and what is lost is told."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import anyio
import pytest

from resilience import Cache, StoreUnavailableError, Writer, clock
from resilience.events import CacheWriteFailed
from resilience.testing import EventRecorder, VirtualClock
from tests.support.failures import DownError
from tests.support.remote_cache import Elsewhere
from tests.support.scopes import cancelled_after

WRONG: Any = 5

pytestmark = pytest.mark.anyio


class Source:
    """What is written is what is read; `failures` are raised by the next writes."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.rows: dict[int, str] = {}
        self.writes: list[tuple[int, str, float]] = []
        self.reads = 0
        self.failures: list[type[Exception]] = []

    async def save(self, value: str, key: int) -> None:
        await anyio.sleep(self.seconds)
        if self.failures:
            raise self.failures.pop(0)
        self.rows[key] = value
        self.writes.append((key, value, clock.now()))


current = Source()


async def fetch(key: int) -> str:
    current.reads += 1
    await anyio.sleep(current.seconds)
    return current.rows[key]


@pytest.fixture
def source() -> Source:
    global current
    current = Source()
    current.rows = {1: "one", 2: "two", 3: "three"}
    return current


def make(behind: int | None = None, **options: Any) -> tuple[Cache, Writer[..., str]]:
    cache = Cache(100, jitter=0, beta=0, **options)
    return cache, cache.writer(fetch, current.save, behind=behind)


def test_bad_options_are_refused() -> None:
    cache = Cache(1)
    with pytest.raises(ValueError, match="behind must be at least 1, got 0"):
        cache.writer(fetch, current.save, behind=0)
    with pytest.raises(TypeError, match="fetch and save must be functions"):
        cache.writer(fetch, WRONG)


async def test_through(source: Source) -> None:
    cache, users = make()
    assert await cache.call(fetch, 1) == "one"
    await users.write("uno", 1)
    assert (clock.now(), source.rows[1]) == (2, "uno")
    assert await cache.call(fetch, 1) == "uno"
    assert source.reads == 1
    await users.write("due", key=2)
    assert await cache.call(fetch, 2) == "due"


@pytest.mark.parametrize("cancelled", [True, False])
async def test_through_when_nobody_knows_what_was_written(source: Source, cancelled: bool) -> None:
    cache, users = make()
    await cache.call(fetch, 1)
    if cancelled:
        async with cancelled_after(0.5):
            await users.write("uno", 1)
    else:
        source.failures = [DownError]
        with pytest.raises(DownError):
            await users.write("uno", 1)
    assert await cache.peek(fetch, 1) is None
    assert await cache.call(fetch, 1) == "one"


async def test_through_while_the_store_is_away(source: Source) -> None:
    place = Elsewhere()
    _, users = make(store=place, name="users")
    place.away = True
    with pytest.raises(StoreUnavailableError):
        await users.write("uno", 1)
    assert source.rows[1] == "uno"
    source.failures = [DownError]
    with pytest.raises(DownError):
        await users.write("due", 1)


async def test_behind_returns_when_the_cache_has_it(source: Source) -> None:
    cache, users = make(behind=10)
    async with users:
        for key, value in ((1, "uno"), (2, "due")):
            await users.write(value, key)
            assert await cache.call(fetch, key) == value
        assert (clock.now(), users.pending, source.rows[1]) == (0, 2, "one")
    assert source.writes == [(1, "uno", 1.0), (2, "due", 2.0)]
    assert (users.pending, users.failed, source.reads) == (0, 0, 0)


async def test_behind_waits_when_too_many_are_to_come(source: Source) -> None:
    _, users = make(behind=2)
    for key in (1, 2, 1, 2):
        await users.write("now", key)
    assert clock.now() == 0, "the same arguments take no further place"
    await users.write("later", 3)
    assert clock.now() == 1
    await users.aclose()
    assert source.rows == {1: "now", 2: "now", 3: "later"}
    assert len(source.writes) == 3
    with pytest.raises(RuntimeError, match="this writer is closed"):
        await users.write("x", 1)


async def test_behind_the_latest_value_wins_also_while_an_older_one_is_being_saved(source: Source) -> None:
    cache, users = make(behind=2)
    await users.write("first", 1)
    await anyio.sleep(0.5)
    await users.write("second", 1)
    await users.write("third", 1)
    await users.flush()
    assert [value for _, value, _ in source.writes] == ["first", "third"]
    assert await cache.call(fetch, 1) == "third"


async def test_a_value_on_its_way_is_found_whatever_leaves_the_cache(source: Source) -> None:
    cache, users = make(behind=5)
    source.seconds = 5
    await users.write("uno", 1)
    await cache.clear()
    assert await cache.call(fetch, 1) == "uno"
    assert source.reads == 0
    await users.flush()
    assert await cache.call(fetch, 1) == "uno"
    await cache.invalidate(fetch, 1)
    assert await cache.call(fetch, 1) == "uno"
    assert source.reads == 1


async def test_a_read_that_began_before_does_not_replace_it(source: Source) -> None:
    cache, users = make(behind=5)
    source.seconds = 3
    async with anyio.create_task_group() as group:
        group.start_soon(cache(fetch), 1)
        await anyio.sleep(1)
        await users.write("uno", 1)
    await users.flush()
    assert await cache.call(fetch, 1) == "uno"


async def test_a_lost_write_is_told_and_forgotten(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    recorder = EventRecorder()
    cache, users = make(behind=5, listeners=[recorder])
    source.failures = [DownError]
    with caplog.at_level(logging.ERROR, "resilience"):
        await users.write("uno", 1)
        await users.write("due", 2)
        await users.flush()
    (lost,) = recorder.of(CacheWriteFailed)
    assert (type(lost.error), lost.waiting, lost.operation, users.failed) == (DownError, 1, "fetch", 1)
    assert caplog.messages == ["Cache lost a write for fetch: DownError()"]
    assert await cache.call(fetch, 1) == "one"
    assert await cache.call(fetch, 2) == "due"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_is_to_come_when_the_loop_ends_is_told(
    source: Source, virtual_clock: VirtualClock, backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = EventRecorder()
    _, users = make(behind=5, listeners=[recorder])

    async def main() -> None:
        for key in (1, 2, 3):
            await users.write("never", key)
        await anyio.sleep(0.5)

    virtual_clock.run(main, backend=backend)
    assert (len(recorder.of(CacheWriteFailed)), users.failed, users.pending) == (3, 3, 0)
    assert len(caplog.records) == 3
    assert source.writes == []


def test_it_serves_one_loop_after_another(source: Source) -> None:
    source.seconds = 0.001
    _, users = make(behind=5)

    async def main(value: str) -> None:
        await users.write(value, 1)
        await users.flush()

    asyncio.run(main("uno"))
    asyncio.run(main("eins"))
    assert source.rows[1] == "eins"


def test_what_a_loop_left_behind_is_done_by_the_next(source: Source) -> None:
    source.seconds = 0.001
    _, users = make(behind=1)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(users.write("uno", 1))
    assert users.pending == 1
    asyncio.run(users.write("due", 2))  # waits for the place
    assert source.rows[1] == "uno"
    asyncio.run(users.flush())
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert (users.failed, users.pending) == (1, 0)


async def test_behind_with_a_shared_cache(source: Source) -> None:
    place = Elsewhere()
    cache, users = make(behind=5, store=place, name="users")
    other = Cache(100, jitter=0, beta=0, store=place, name="users")
    async with users:
        await users.write("uno", 1)
        assert await other.call(fetch, 1) == await cache.call(fetch, 1) == "uno"
        await other.invalidate(fetch, 1)
        assert await cache.call(fetch, 1) == "uno", "on its way, and found here"
        place.away = True
        await users.write("due", 2)
        assert await cache.call(fetch, 2) == "due"
        await anyio.sleep(1.5)
        place.away = False
    assert await other.call(fetch, 2) == "due"
    assert source.reads == 0


async def test_closed_while_somebody_waits_for_a_place(source: Source) -> None:
    _, users = make(behind=1)
    await users.write("uno", 1)
    async with anyio.create_task_group() as group:

        async def late() -> None:
            with pytest.raises(RuntimeError, match="this writer was closed"):
                await users.write("due", 2)

        group.start_soon(late)
        await anyio.sleep(0.5)
        await users.aclose()
    assert source.rows[2] == "two"
