"""What can be decorated, what is refused, and that nothing of the function is lost."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience import Bulkhead, Pipeline, Retry, TimedOutError, Timeout
from resilience.testing import EventRecorder, FaultScript
from tests.support.engine import Engine

pytestmark = pytest.mark.anyio


async def plain(a: int, /, b: int = 2, *rest: int, c: int = 3, **more: int) -> list[Any]:
    """Documented."""
    return [a, b, rest, c, more]


async def test_a_coroutine_function_keeps_signature_name_and_documentation(engine: Engine) -> None:
    guarded = engine(Timeout(1))(plain)
    assert await guarded(1) == [1, 2, (), 3, {}]
    assert await guarded(1, 5, 6, 7, c=8, d=9) == [1, 5, (6, 7), 8, {"d": 9}]
    assert inspect.iscoroutinefunction(guarded)
    assert inspect.signature(guarded) == inspect.signature(plain)
    assert guarded.__name__ == "plain"  # pyright: ignore[reportFunctionMemberAccess] - functions have it
    assert guarded.__doc__ == "Documented."
    wrong: Any = guarded
    with pytest.raises(TypeError, match="argument"):
        await wrong()
    with pytest.raises(TypeError, match="argument"):
        await wrong(a=1)


async def test_methods_of_all_kinds(engine: Engine) -> None:
    bulkhead = Bulkhead(1)
    policy = engine(bulkhead)

    class Client:
        name = "class"

        def __init__(self) -> None:
            self.name = "instance"

        @policy
        async def method(self, word: str) -> str:
            assert bulkhead.in_use() == 1
            return f"{self.name} {word}"

        @policy
        @classmethod
        async def inner_class(cls, word: str) -> str:
            assert bulkhead.in_use() == 1
            return f"{cls.name} {word}"

        @classmethod
        @policy
        async def outer_class(cls, word: str) -> str:
            assert bulkhead.in_use() == 1
            return f"{cls.name} {word}"

        @policy
        @staticmethod
        async def inner_static(word: str) -> str:
            assert bulkhead.in_use() == 1
            return word

        @staticmethod
        @policy
        async def outer_static(word: str) -> str:
            assert bulkhead.in_use() == 1
            return word

        @policy
        async def generator(self) -> AsyncGenerator[str, None]:
            assert bulkhead.in_use() == 1
            yield self.name

    client = Client()
    assert await client.method("a") == "instance a"
    assert await Client.method(client, "a") == "instance a"
    for target in (client, Client):
        assert await target.inner_class("b") == "class b"
        assert await target.outer_class("b") == "class b"
        assert await target.inner_static("c") == "c"
        assert await target.outer_static("c") == "c"
    assert [name async for name in client.generator()] == ["instance"]
    assert bulkhead.in_use() == 0


class AsyncCallable:
    """Called, it returns a coroutine."""

    async def __call__(self, word: str) -> str:
        await anyio.sleep(0.1)
        return word


def returns_awaitable(word: str) -> Awaitable[str]:
    return AsyncCallable()(word)


def returns_coroutine(word: str) -> Coroutine[Any, Any, str]:
    return AsyncCallable()(word)


async def two(number: int, word: str) -> str:
    await anyio.sleep(0.1)
    return f"{word}{number}"


@functools.wraps(two)
def wrapped(word: str) -> Any:
    return two(0, word)


def twin(word: Any) -> Any:
    return AsyncCallable()(word)


by_lambda: Any = lambda word: twin(word)  # pyright: ignore[reportUnknownLambdaType, reportUnknownVariableType] # noqa: E731 - a lambda says nothing

CALLABLES: dict[str, Any] = {
    "object": AsyncCallable(),
    "bound method": AsyncCallable().__call__,
    "annotated awaitable": returns_awaitable,
    "annotated coroutine": returns_coroutine,
    "lambda": by_lambda,
    "partial": functools.partial(two, 0),
    "partial of partial": functools.partial(functools.partial(two), 0),
    "partial of object": functools.partial(AsyncCallable()),
    "wrapper": wrapped,
    "script": FaultScript("w", "w", "w", repeat=True),
}


@pytest.mark.parametrize("kind", list(CALLABLES))
async def test_everything_that_returns_an_awaitable_is_guarded(kind: str, engine: Engine) -> None:
    bulkhead = Bulkhead(1)
    decorate: Any = engine(bulkhead)
    guarded = decorate(CALLABLES[kind])
    seen: list[int] = []

    async def look() -> None:
        seen.append(bulkhead.in_use())

    async with anyio.create_task_group() as group:
        group.start_soon(guarded, "w")
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        group.start_soon(look)
    assert str(await guarded("w")).startswith("w")
    assert bulkhead.in_use() == 0
    if kind != "script":
        assert seen == [1]


async def test_objects_without_a_name_lend_that_of_their_class() -> None:
    guarded: Any = Timeout(1)(AsyncCallable())
    assert guarded.__name__ == "AsyncCallable"
    recorder = EventRecorder()
    slow: Any = Timeout(0.05, listeners=[recorder])(functools.partial(two, 1))
    with pytest.raises(TimedOutError, match="partial did not finish"):
        await slow("a")


def sync(word: str) -> str:
    return word


class SyncCallable:
    def __call__(self) -> str:
        return "sync"


def sync_generator() -> Any:
    yield 1


def bad_annotation() -> NoSuchThing:  # type: ignore[name-defined] # pyright: ignore[reportUndefinedVariable] # noqa: F821 - unresolvable on purpose
    return 1


REFUSED: list[tuple[Any, str]] = [
    (sync, "Timeout cannot guard sync: it is not async"),
    (SyncCallable(), "cannot guard SyncCallable: it is not async"),
    (functools.partial(sync, "a"), "cannot guard partial: it is not async"),
    (sync_generator, "cannot guard sync_generator: it is not async"),
    (bad_annotation, "cannot guard bad_annotation: it is not async"),
    (staticmethod(sync), "cannot guard sync: it is not async"),
    (print, "cannot guard print: it is not async"),
    (SyncCallable, "cannot guard SyncCallable: it is not async"),
    (5, "Timeout can only decorate a function, got 5"),
    (None, "Timeout can only decorate a function, got None"),
]


@pytest.mark.parametrize(("target", "message"), REFUSED)
def test_what_cannot_be_guarded_is_refused_when_decorated(target: Any, message: str) -> None:
    decorate: Any = Timeout(1)
    with pytest.raises(TypeError, match=message):
        decorate(target)
    with pytest.raises(TypeError, match="can"):
        decorate.bind(key="a")(target)


async def test_a_lambda_that_lied_is_found_out_when_called(engine: Engine) -> None:
    lie: Any = lambda: 5  # noqa: E731
    with pytest.raises(TypeError, match="returned int, which cannot be awaited"):
        await engine(Timeout(1)).call(lie)
    with pytest.raises(TypeError, match="returned int, which cannot be awaited"):
        await engine(Timeout(1))(lie)()


async def test_a_type_error_of_the_call_itself_is_left_alone(engine: Engine) -> None:
    async def confused() -> None:
        raise TypeError("my own")

    with pytest.raises(TypeError, match=r"^my own$"):
        await engine(Timeout(1)).call(confused)


async def test_decorated_functions_can_be_decorated_again(engine: Engine) -> None:
    first, second = Bulkhead(3), Bulkhead(3)

    @engine(first)
    @engine(second)
    async def work() -> tuple[int, int]:
        return first.in_use(), second.in_use()

    assert await work() == (1, 1)


async def test_parameters_may_have_any_name(engine: Engine) -> None:
    @engine(Bulkhead(3))
    async def odd(call: int, result: int, moment: int, error: int, plain: int, self: int, fn: int) -> list[int]:
        return [call, result, moment, error, plain, self, fn]

    assert await odd(1, 2, 3, 4, 5, 6, 7) == [1, 2, 3, 4, 5, 6, 7]
    assert await odd(call=1, result=2, moment=3, error=4, plain=5, self=6, fn=7) == [1, 2, 3, 4, 5, 6, 7]


async def test_defaults_are_the_very_objects(engine: Engine) -> None:
    marker = object()

    @engine(Bulkhead(3))
    async def work(given: object = marker, *, named: object = marker) -> bool:
        return given is marker and named is marker

    assert await work()


# Generators.


class Steps:
    """A generator that tells what happens to it."""

    def __init__(self) -> None:
        self.log: list[str] = []

    async def run(self) -> AsyncGenerator[int, Any]:
        try:
            try:
                sent = yield 1
                self.log.append(f"sent {sent}")
            except KeyError:
                self.log.append("thrown")
            yield 2
            await anyio.sleep(0.1)
            yield 3
        finally:
            self.log.append("closed")


def guarded_steps(policy: Callable[..., Any], steps: Steps) -> AsyncGenerator[int, Any]:
    generator: AsyncGenerator[int, Any] = policy(steps.run)()
    return generator


async def test_a_generator_can_be_sent_to_and_thrown_into(engine: Engine) -> None:
    bulkhead, steps = Bulkhead(1), Steps()
    generator = guarded_steps(engine(bulkhead), steps)
    assert await anext(generator) == 1
    assert await generator.asend("hello") == 2
    assert bulkhead.in_use() == 1
    assert [item async for item in generator] == [3]
    assert steps.log == ["sent hello", "closed"]
    assert bulkhead.in_use() == 0
    steps = Steps()
    generator = guarded_steps(engine(bulkhead), steps)
    await anext(generator)
    assert await generator.athrow(KeyError()) == 2
    with pytest.raises(OSError, match="mine"):
        await generator.athrow(OSError("mine"))
    assert steps.log == ["thrown", "closed"]
    assert bulkhead.in_use() == 0


async def test_a_generator_closed_early_closes_the_inner_one(engine: Engine) -> None:
    bulkhead, steps = Bulkhead(1), Steps()
    generator = guarded_steps(engine(bulkhead), steps)
    await anext(generator)
    await generator.aclose()
    assert steps.log == ["closed"]
    assert bulkhead.in_use() == 0
    unread = guarded_steps(engine(bulkhead), Steps())
    await unread.aclose()
    assert bulkhead.in_use() == 0


async def test_a_generator_function_with_wrong_arguments_holds_nothing(engine: Engine) -> None:
    bulkhead = Bulkhead(1)
    decorate: Any = engine(bulkhead)
    generator = decorate(Steps().run)("too many")
    with pytest.raises(TypeError, match="argument"):
        await anext(generator)
    assert bulkhead.in_use() == 0


async def test_a_generator_cancelled_while_being_read(engine: Engine) -> None:
    bulkhead, steps = Bulkhead(1), Steps()
    seen: list[int] = []
    with anyio.move_on_after(0.05):
        async for item in guarded_steps(engine(bulkhead), steps):
            seen.append(item)  # noqa: PERF401 - it ends in the middle
    assert seen == [1, 2]
    assert steps.log == ["sent None", "closed"]
    assert bulkhead.in_use() == 0


async def test_a_partial_of_a_generator_function_is_a_generator(engine: Engine) -> None:
    async def count(upto: int) -> AsyncGenerator[int, None]:
        for number in range(upto):
            yield number

    counting: Any = engine(Bulkhead(1))(functools.partial(count, 3))
    assert [number async for number in counting()] == [0, 1, 2]


async def test_a_retry_in_a_pipeline_refuses_generators() -> None:
    decorate: Any = Pipeline(Timeout(1), Retry())
    with pytest.raises(TypeError, match="Retry cannot guard a block or an async generator"):
        decorate(Steps().run)
