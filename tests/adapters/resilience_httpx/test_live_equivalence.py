"""A streamed response means the same on the fast path and on the plain one: the same random history leaves one trace.

Virtual time, a transport that plays a script, and readers that dawdle, leave early, or are cancelled.
"""

from __future__ import annotations

import asyncio
import random
import warnings
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
import pytest
import sniffio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resilience import (
    Backoff,
    Bulkhead,
    CircuitBreaker,
    Event,
    HazardWarning,
    Pipeline,
    Policy,
    RateLimiter,
    RejectedError,
    Retry,
    Timeout,
    TokenBudget,
    clock,
    current_deadline,
)
from resilience.engine import build
from resilience.testing import VirtualClock
from resilience.testing.virtual_time import Backend
from resilience_httpx import ResilientTransport
from tests.engine.lateness import LATENESS, late, late_wakes
from tests.support.rules import LONG

QUANTUM = 1 / 8
NESTED = -1
KEYS = ("", "a", "b", "c")
EXAMPLES = {"asyncio": 3000 if LONG else 300, "trio": 1000 if LONG else 100}


@dataclass(frozen=True)
class Reply:
    """One answer of the server: after `delay` quanta a status, then chunks, each after a delay, then an end."""

    delay: int
    status: int
    chunks: tuple[int, ...] | None
    """None: the body is in memory."""
    end: str


@dataclass(frozen=True)
class Reader:
    """One caller: when it comes, what it gets, how it reads, and when it is cancelled."""

    start: int
    replies: tuple[Reply, ...]
    pause: int
    stop_after: int
    cancel: int | None
    nested: bool
    """Whether the server and the first body ask for something else in between."""
    key: str


@dataclass(frozen=True)
class Script:
    """Policies as (name, seconds), outermost first, and readers."""

    policies: tuple[tuple[str, int], ...]
    readers: tuple[Reader, ...]
    listen: bool
    keyed: bool


replies = st.builds(
    Reply,
    st.integers(0, 12),
    st.sampled_from([200, 200, 200, 404, 503]),
    st.one_of(st.none(), st.lists(st.integers(0, 14), max_size=4).map(tuple)),
    st.sampled_from(["", "", "ReadError", "ValueError"]),
)
readers = st.builds(
    Reader,
    st.integers(0, 20),
    st.lists(replies, min_size=1, max_size=3).map(tuple),
    st.sampled_from([0, 0, 1, 5, 30]),
    st.sampled_from([0, 1, 2, 99, 99, 99]),
    st.one_of(st.none(), st.integers(0, 40)),
    st.booleans(),
    st.sampled_from(["a", "a", "b", "c", ""]),
)
policies = st.lists(
    st.tuples(st.sampled_from(["timeout", "timeout", "bulkhead", "retry", "breaker", "limiter"]), st.integers(4, 24)),
    min_size=1,
    max_size=6,
)
scripts = st.builds(
    Script, policies.map(tuple), st.lists(readers, min_size=1, max_size=5).map(tuple), st.booleans(), st.booleans()
)


def key_of(request: httpx.Request) -> str:
    key: str = request.extensions["key"]
    return key


def spread(quanta: int, *mark: object) -> float:
    """Seconds; a tiny part of its own keeps things apart that have nothing to do with each other."""
    return quanta * QUANTUM + random.Random(str(mark)).getrandbits(30) / 2**40


class Play:
    """One run of a script."""

    def __init__(self, script: Script, seen: Counter[str]) -> None:
        self.script = script
        self.seen = seen
        self.trace: list[tuple[Any, ...]] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HazardWarning)
            self.parts = [self.made(*spec, place) for place, spec in enumerate(script.policies)]
            self.pipeline = Pipeline(*self.parts, name="all")
        for part in self.parts:
            if isinstance(part, Bulkhead | CircuitBreaker):
                part.machine("")  # a frame makes that of calls without a key beforehand
        if script.listen:
            self.pipeline.listen(self.hear)
        key = key_of if script.keyed else None
        self.transport: Any = ResilientTransport(self.pipeline, Scripted(self), key=key)

    def made(self, kind: str, amount: int, place: int) -> Policy:
        if kind == "timeout":
            return Timeout(spread(amount, "timeout", place), name=f"timeout{place}")
        if kind == "bulkhead":
            limit, keyed = 1 + amount % 3, amount % 5 > 0
            return Bulkhead(limit, max_wait=amount * QUANTUM, keyed=keyed, max_keys=2, name=f"bulkhead{place}")
        if kind == "retry":
            pause = Backoff.constant(QUANTUM / 3)
            retry = Retry(2, backoff=pause, throttled=pause, budget=TokenBudget(30.0), name=f"retry{place}")
            late(retry)
            return retry
        if kind == "breaker":
            return CircuitBreaker(
                minimum_calls=2, count=4, open_for=1.0, random=lambda: 0.5, max_keys=2, name=f"breaker{place}"
            )
        keyed = amount % 5 > 0
        return RateLimiter(f"{amount} / 4 s", burst=1 + amount % 3, max_wait=2.0, keyed=keyed, name=f"limiter{place}")

    def note(self, *what: Any) -> None:
        self.trace.append((round(clock.now(), 9), *what))

    def hear(self, event: Event) -> None:
        self.note(event.kind, {name: plainly(value) for name, value in event.as_dict().items()})

    async def main(self) -> None:
        async with anyio.create_task_group() as group:
            for number, reader in enumerate(self.script.readers):
                group.start_soon(self.reader, number, reader)
        for part in self.parts:
            if isinstance(part, Bulkhead):
                self.note(part.name, [(part.in_use(key), part.waiting(key)) for key in KEYS])
            elif isinstance(part, CircuitBreaker):
                self.note(part.name, part.keys(), [(part.state(key), part.metrics(key)) for key in KEYS])
            elif isinstance(part, RateLimiter):
                self.note(part.name, [part.line.limiter.peek(key, (1,)) for key in KEYS])
            elif isinstance(part, Retry) and part.budget is not None:
                self.note(part.name, part.budget.available(clock.now()))

    async def reader(self, number: int, reader: Reader) -> None:
        LATENESS.set(spread(0, "late", number))
        await anyio.sleep(spread(reader.start, "start", number))
        with anyio.CancelScope() as scope:
            if reader.cancel is not None:
                scope.deadline = anyio.current_time() + spread(reader.cancel, "cancel", number)
            await self.request(number, reader)
        self.note(number, "over", scope.cancelled_caught, current_deadline(), cancelling())

    async def request(self, number: int, reader: Reader) -> None:
        extensions = {"number": number, "attempts": iter(range(99)), "key": reader.key}
        request = httpx.Request("GET", "http://a/", extensions=extensions)
        try:
            response: httpx.Response = await self.transport.handle_async_request(request)
        except Exception as error:
            self.note(number, describe(error))
            return
        try:
            self.note(number, response.status_code, response.extensions["resilience"].attempts)
            await self.read(number, reader, response)
        except Exception as error:
            self.note(number, describe(error))
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()
            self.note(number, "closed")

    async def nested(self) -> None:
        """A whole request in the midst of another one, in the same task, through the same policies."""
        request = httpx.Request(
            "GET", "http://a/", extensions={"number": NESTED, "attempts": iter(range(99)), "key": "a"}
        )
        try:
            response = await self.transport.handle_async_request(request)
            self.note("nested", await response.aread())
        except RejectedError as error:
            self.note("nested", describe(error))

    async def read(self, number: int, reader: Reader, response: httpx.Response) -> None:
        if response.is_closed:
            return
        self.seen["streamed"] += 1
        count = 0
        stream: Any = response.stream
        self.seen[stream._lease.__class__.__name__] += 1
        async for chunk in stream:
            count += 1
            self.note(number, chunk, plainly(current_deadline()))
            if count > reader.stop_after:
                return
            await anyio.sleep(spread(reader.pause, "pause", number, count))


class Scripted(httpx.AsyncBaseTransport):
    """Answers every request as its reader's script says, then with 200."""

    def __init__(self, play: Play) -> None:
        self.play = play

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        number: int = request.extensions["number"]
        attempt: int = next(request.extensions["attempts"])
        if number == NESTED:
            return httpx.Response(200, stream=Body(self.play, (NESTED, 0), Reply(0, 200, (1, 1), ""), nested=False))
        reader = self.play.script.readers[number]
        if reader.nested and not attempt:
            await self.play.nested()
        reply = reader.replies[attempt] if attempt < len(reader.replies) else Reply(0, 200, None, "")
        await anyio.sleep(spread(reply.delay, "reply", number, attempt))
        if reply.chunks is None:
            return httpx.Response(reply.status)
        return httpx.Response(reply.status, stream=Body(self.play, (number, attempt), reply, reader.nested))


class Body(httpx.AsyncByteStream):
    """Chunks, each after a while; while the first is waited for, another request may be made and read."""

    def __init__(self, play: Play, mark: tuple[int, int], reply: Reply, nested: bool) -> None:
        self.play = play
        self.mark = mark
        self.reply = reply
        self.nested = nested

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for place, delay in enumerate(self.reply.chunks or ()):
            self.play.note(*self.mark, "deadline", plainly(current_deadline()))
            if self.nested and not place:
                await self.play.nested()
            await anyio.sleep(spread(delay, "chunk", *self.mark, place))
            yield b"%d" % place
        if self.reply.end == "ReadError":
            raise httpx.ReadError("gone")
        if self.reply.end:
            raise ValueError("broken")

    async def aclose(self) -> None:
        self.play.note(*self.mark, "aclose")


def cancelling() -> int:
    """How many cancellations of this task nobody has taken back."""
    task = asyncio.current_task() if sniffio.current_async_library() == "asyncio" else None
    return 0 if task is None else task.cancelling()


def plainly(value: Any) -> Any:
    """A field of an event as a value; times come out of other sums on the other path."""
    if isinstance(value, float):
        return round(value, 9)
    return describe(value) if isinstance(value, BaseException) else value


def describe(error: BaseException | None) -> Any:
    """An exception as a value, with what it came from."""
    if error is None:
        return None
    kind = type(error)
    return kind.__name__, str(error), describe(error.__cause__) if isinstance(error.__cause__, Exception) else None


def played(script: Script, backend: Backend, fused: bool, seen: Counter[str]) -> list[tuple[Any, ...]]:
    from trio._core import _run

    before, build.fused = build.fused, fused
    _run._r.seed(0)  # trio shuffles what can run
    virtual = VirtualClock()
    try:
        with virtual.installed(), late_wakes():
            play = Play(script, seen)
            virtual.run(play.main, backend=backend)
    finally:
        build.fused = before
    return play.trace


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_both_paths_leave_the_same_trace(backend: Backend) -> None:
    fused: Counter[str] = Counter()
    plain: Counter[str] = Counter()

    @settings(
        max_examples=EXAMPLES[backend],
        deadline=None,
        derandomize=not LONG,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(scripts)
    def check(script: Script) -> None:
        expected = played(script, backend, False, plain)
        assert played(script, backend, True, fused) == expected

    check()
    assert plain["FrameLease"] == 0
    assert fused["streamed"] == plain["streamed"]
    # Under trio only rows without a Timeout are fused.
    assert fused["FrameLease"] > fused["streamed"] * (0.3 if backend == "asyncio" else 0.0), fused
