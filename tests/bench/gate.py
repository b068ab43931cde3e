"""The regression gate of the fast path: `python -m tests.bench.gate`, exit code 1 if a call has become dearer.

It counts the bytecode instructions of one undisturbed call, and the calls into C, and compares the sum with that
of the same five policies written by hand into one function. No clock is read, so a busy machine changes nothing:
the same code on the same Python gives the same figures every time. It also refuses any frame of anyio or asyncio.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from types import CodeType, FrameType
from typing import Any

import httpx
from rich.console import Console

from resilience import clock
from resilience_httpx import ResilientTransport
from tests.bench.contest import Setup, work
from tests.bench.guards import stacks
from tests.bench.report import Bar
from tests.bench.timing import Work

LIMITS = {
    "timeout": 0.73,
    "bulkhead": 0.64,
    "retry": 0.46,
    "breaker": 0.52,
    "limiter": 0.64,
    "stack": 1.31,
    "stack with a key": 3.52,
    "stack around a streamed response": 10.4,
}
"""Steps of a call, at most, as multiples of those of `by_hand`: a tenth above the dearest of Python 3.11 to 3.13.

Lower them with every gain. Raising one is a decision that wants a reason in its commit.
"""

TOOL = 4
"""An identity for `sys.monitoring` that debuggers, coverage and profilers leave free."""

FOREIGN = ("anyio", "asyncio", "trio", "sniffio")


@dataclass(slots=True)
class Trace:
    """What one call did."""

    instructions: int = 0
    calls_into_c: int = 0
    files: set[str] = field(default_factory=set[str])

    def on_instruction(self) -> None:
        """One more instruction of bytecode."""
        self.instructions += 1

    def on_call(self) -> None:
        """One more call of a function written in C."""
        self.calls_into_c += 1

    def on_frame(self, code: CodeType) -> None:
        """A function begins or goes on."""
        self.files.add(code.co_filename)

    @property
    def foreign(self) -> set[str]:
        """Libraries whose code was run and should not have been."""
        return {name for name in FOREIGN for file in self.files if f"/{name}/" in file.replace("\\", "/")}

    @property
    def steps(self) -> int:
        """The cost that is compared."""
        return self.instructions + self.calls_into_c


def main() -> int:
    """Count, compare, print; 1 if anything is above its limit."""
    console = Console()
    bars, foreign = asyncio.run(measure())
    for bar in bars:
        mark = "ok    " if bar.holds else "DEARER"
        console.print(f"{mark} {bar.bar}: {bar.value:.3f} (limit {bar.limit:.3f})", highlight=False)
    for name, modules in foreign.items():
        console.print(f"FOREIGN {name} runs code of {', '.join(sorted(modules))}", highlight=False)
    return 0 if all(bar.holds for bar in bars) and not foreign else 1


async def measure() -> tuple[list[Bar], dict[str, set[str]]]:
    """The bars, and the modules outside of the library that undisturbed calls went through."""
    real = clock.now
    # A clock that ticks by itself, and without a frame of Python.
    clock.now = count(1000.0, 0.001).__next__
    try:
        reference = await trace(by_hand())
        guards: dict[str, Work] = {name: each.ours(Setup())(work) for name, each in stacks.DISCIPLINES.items()}
        guards["stack"] = stacks.ours(Setup())(work)
        guards["stack with a key"] = stacks.ours(Setup()).bind(key=_one_key)(work)
        guards["stack around a streamed response"] = streamed()
        traces = {name: await trace(guarded) for name, guarded in guards.items()}
    finally:
        clock.now = real
    bars = [Bar(f"{name}, steps / by hand", traces[name].steps / reference.steps, LIMITS[name]) for name in LIMITS]
    return bars, {name: found.foreign for name, found in traces.items() if found.foreign}


async def trace(guarded: Callable[[int], Awaitable[Any]]) -> Trace:
    """Follow one call, after enough others that everything is settled: the least of three, for states by key turn over
    now and then.
    """
    for _ in range(300):
        await guarded(1)
    traces: list[Trace] = []
    for _ in range(3):
        traces.append(Trace())
        with _following(traces[-1]):
            await guarded(1)
    return min(traces, key=lambda found: found.steps)


@contextmanager
def _following(found: Trace) -> Generator[None]:
    """Count what is run inside the block. The few steps that end the block are the same every time."""
    if sys.version_info >= (3, 12):
        events = sys.monitoring.events
        handlers: dict[int, Callable[..., object]] = {
            events.INSTRUCTION: lambda code, offset: found.on_instruction(),
            events.PY_START: lambda code, offset: found.on_frame(code),
            events.PY_RESUME: lambda code, offset: found.on_frame(code),
            events.C_RETURN: lambda code, offset, callee, argument: found.on_call(),
        }
        sys.monitoring.use_tool_id(TOOL, "resilience gate")
        for event, handler in handlers.items():
            sys.monitoring.register_callback(TOOL, event, handler)
        # C_RETURN comes along with CALL and cannot be asked for.
        sys.monitoring.set_events(TOOL, sum(handlers) - events.C_RETURN + events.CALL)
        try:
            yield
        finally:
            sys.monitoring.set_events(TOOL, 0)
            sys.monitoring.free_tool_id(TOOL)
    else:
        tracer, profiler = sys.gettrace(), sys.getprofile()
        sys.setprofile(lambda frame, event, argument: found.on_call() if event == "c_call" else None)
        sys.settrace(_tracer(found))
        try:
            yield
        finally:
            sys.settrace(tracer)
            sys.setprofile(profiler)


def _tracer(found: Trace) -> Any:
    """A trace function that follows the instructions of every frame that begins or goes on."""

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            found.on_frame(frame.f_code)
        elif event == "opcode":
            found.on_instruction()
        return trace

    return trace


class Streamed(httpx.AsyncBaseTransport):
    """Answers with a body in one piece, still to be read."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Piece())


class Piece(httpx.AsyncByteStream):
    """Its own iterator, so that what is counted is little more than what is ours."""

    def __init__(self) -> None:
        self._left = 1

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        self._left = 0
        return b"all"


def _one_key(order: int) -> str:
    return "a"


def streamed() -> Work:
    """A request by origin, and the reading of its body by the stream alone."""
    transport = ResilientTransport(stacks.ours(Setup()), Streamed(), key="origin")
    request = httpx.Request("GET", "http://stub/")

    async def get(order: int) -> object:
        response = await transport.handle_async_request(request)
        stream: Any = response.stream
        async for _ in stream:
            pass
        await stream.aclose()
        return response

    return get


def by_hand() -> Work:
    """Timeout, bulkhead, retry, breaker and limiter for one function, as short as they can be written."""
    live: dict[object, float] = {}
    window: deque[int] = deque([0] * 100, 100)
    state = {"arrival": 0.0, "inside": 0, "failures": 0}
    task = asyncio.current_task()

    async def guarded(order: int) -> object:
        moment = clock.now()
        arrival = state["arrival"]
        if arrival - moment > 1.0 or state["inside"] >= 64 or state["failures"] >= 50 or task in live:
            raise RuntimeError("not the ordinary case")
        state["arrival"] = (arrival if arrival > moment else moment) + 0.000001
        state["inside"] += 1
        live[task] = moment
        try:
            result = await work(order)
        except Exception:
            state["failures"] += 1
            raise
        finally:
            del live[task]
            state["inside"] -= 1
        state["failures"] -= window[0]
        window.append(0)
        return result

    return guarded


if __name__ == "__main__":
    sys.exit(main())
