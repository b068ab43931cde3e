"""The generated frame of a function: its signature, its source, and what it does not hold on to."""

from __future__ import annotations

import gc
import inspect
import linecache
import traceback
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import pytest

from resilience import (
    Advice,
    Bulkhead,
    BulkheadFullError,
    CircuitBreaker,
    CircuitOpenError,
    Classifier,
    MemoryStore,
    Pipeline,
    Policy,
    RateLimiter,
    Retry,
    TimedOutError,
    Timeout,
    Verdict,
)
from resilience.engine import build
from resilience.testing import EventRecorder, FaultScript, VirtualClock, run

from .world import describe, on_fast_path

Work = Callable[[], Any]


def stack(**options: Any) -> Pipeline:
    """A pipeline of everything that has a fast path."""
    return Pipeline(
        Timeout(60.0),
        Bulkhead(50),
        Retry(attempts=2, random=lambda: 0.0),
        CircuitBreaker(),
        RateLimiter("1000/s"),
        Timeout(20.0),
        **options,
    )


def guard(pipeline: Any, function: Any) -> Any:
    """Decorate a function of which nothing is known."""
    return pipeline(function)


def source_of(function: Any) -> str:
    return str(getattr(function, "__resilience_source__", ""))


@contextmanager
def path(fused: bool) -> Generator[None]:
    before, build.fused = build.fused, fused
    try:
        yield
    finally:
        build.fused = before


# Signatures.


async def positional(a: int, b: int, /, c: int = 3) -> Any:
    return a, b, c


async def keywords(*, a: int, b: int = 2) -> Any:
    return a, b


async def everything(a: Any, /, b: Any = "b", *rest: Any, c: Any, d: Any = None, **more: Any) -> Any:
    return a, b, rest, c, d, more


def _alone(policy: CircuitBreaker) -> CircuitBreaker:
    return policy


async def _hang_a_little() -> None:
    await anyio.sleep(1)


async def nothing() -> Any:
    return ()


CALLS: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
    (positional, (1, 2), {}),
    (positional, (1, 2), {"c": 4}),
    (positional, (1, 2, 4), {}),
    (positional, (1,), {"b": 2}),
    (positional, (1, 2, 3, 4), {}),
    (keywords, (), {"a": 1}),
    (keywords, (), {"b": 1}),
    (keywords, (1,), {}),
    (everything, (1,), {"c": 3}),
    (everything, (1, 2, 3, 4), {"c": 5, "d": 6, "e": 7, "a": 8}),
    (everything, (1,), {}),
    (nothing, (), {}),
    (nothing, (1,), {}),
]


@pytest.mark.parametrize(("fn", "args", "kwargs"), CALLS)
def test_arguments_arrive_as_they_would_without_a_policy(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    guarded = stack()(fn)
    assert source_of(guarded)
    assert inspect.signature(guarded) == inspect.signature(fn)
    assert inspect.signature(guarded, follow_wrapped=False).parameters.keys() == inspect.signature(fn).parameters.keys()
    assert inspect.iscoroutinefunction(guarded)
    assert (guarded.__name__, guarded.__qualname__, guarded.__module__) == (fn.__name__, fn.__qualname__, fn.__module__)

    async def told(function: Callable[..., Any]) -> Any:
        try:
            return [await function(*args, **kwargs) for _ in range(3)]  # the first of each limiter is not fast
        except TypeError as error:
            return str(error)

    assert run(told, guarded) == run(told, fn)


def test_a_call_with_wrong_arguments_is_nobodys_failure() -> None:
    breaker = CircuitBreaker(count=1, minimum_calls=1)
    guarded: Any = Pipeline(Retry(), breaker)(positional)

    async def main() -> None:
        with pytest.raises(TypeError, match=r"positional\(\) missing 1 required positional argument"):
            await guarded(1)

    run(main)
    assert breaker.metrics().calls == 0


def test_a_mutable_default_is_one_object_as_ever() -> None:
    kept: list[int] = []

    async def gather(item: int, into: list[int] = kept, *, also: list[int] = kept) -> list[int]:
        into.append(item)
        assert also is into
        return into

    guarded = stack()(gather)

    async def main() -> None:
        for item in range(3):
            assert await guarded(item) is kept

    run(main)
    assert kept == [0, 1, 2]


def test_methods() -> None:
    pipeline = stack()

    class Shop:
        name = "shop"

        @pipeline
        async def method(self, item: int) -> Any:
            return self.name, item

        @pipeline
        @classmethod
        async def of_class(cls, item: int) -> Any:
            return cls.name, item

        @classmethod
        @pipeline
        async def inside(cls, item: int) -> Any:
            return cls.name, item

        @pipeline
        @staticmethod
        async def static(item: int) -> Any:
            return item

        @pipeline
        async def __private(self, __item: int) -> Any:  # mangled, in the frame too
            return self.name, __item

        async def both(self) -> Any:
            return await self.__private(6)

    async def main() -> list[Any]:
        shop = Shop()
        return [await shop.method(1), await shop.of_class(2), await Shop.inside(3), await shop.static(4)]

    assert run(main) == [("shop", 1), ("shop", 2), ("shop", 3), 4]
    assert run(Shop().both) == ("shop", 6)
    assert run(stack()(Shop().method), 7) == ("shop", 7)  # a bound method has no frame; it is guarded all the same
    assert source_of(Shop.method)


def _names() -> list[str]:
    """Every name that the frame of `stack()` uses or binds, and some that it only might."""
    frame = stack()(nothing)
    code = frame.__code__
    return sorted({*code.co_varnames, *code.co_names, "call", "inner", "guarded", "fn"})


@pytest.mark.parametrize("name", _names())
def test_a_name_of_the_frames_own_can_be_used_by_a_function(name: str) -> None:
    made: dict[str, Any] = {}
    exec(f"async def {name}(given): return ('named', given)", made)
    exec(f"async def takes({name}, *, other={name!r}): return ('takes', {name}, other)", made)
    exec(f"async def takes_default(default_{name}=1, {name}=2): return (default_{name}, {name})", made)
    pipeline = stack()
    named, takes, default = (guard(pipeline, made[fn]) for fn in (name, "takes", "takes_default"))

    async def main() -> None:
        for turn in range(3):
            assert await named(turn) == ("named", turn)
            assert await takes(turn) == ("takes", turn, name)
            assert await default(**{name: turn}) == (1, turn)

    run(main)
    assert named.__name__ == name


def test_common_names_of_parameters_do_not_cost_the_frame() -> None:
    async def fetch(key: str, size: int, timeout: float, calls: int, tokens: int, record: Any, policy: Any) -> None: ...

    assert source_of(stack()(fetch))


def test_a_function_that_misstates_its_signature_gets_no_frame_of_its_own() -> None:
    async def loose(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    loose.__signature__ = inspect.signature(nothing)  # type: ignore[attr-defined]  # as libraries of decorators do
    guarded: Any = stack()(loose)
    assert run(guarded, 1, 2) == ((1, 2), {})


# Source.


def test_the_source_can_be_read_and_compiled() -> None:
    source = stack().source
    compile(source, "source", "exec")
    lines = source.splitlines()
    assert lines[0] == "async def handle(call):"
    assert 30 < len(lines) < 100
    assert max(map(len, lines)) < 160
    with path(fused=False):
        assert stack().source == ""


def test_a_traceback_shows_the_line_of_the_frame() -> None:
    async def charge() -> None:
        raise KeyError("boom")

    async def main() -> str:
        try:
            await Pipeline(CircuitBreaker(), name="payments")(charge)()
        except KeyError as error:
            return "".join(traceback.format_exception(error))
        raise AssertionError("not reached")

    text = run(main)
    assert "result = await fn()" in text
    assert "<resilience frame" in text
    assert "charge>" in text, "the file is named after the operation"


def test_a_frame_that_is_gone_leaves_no_source_behind() -> None:
    guarded: Any = stack()(nothing)
    filename = guarded.__code__.co_filename
    assert filename in linecache.cache
    gone = weakref.ref(guarded)
    del guarded
    gc.collect()
    assert gone() is None
    assert filename not in linecache.cache


# Policies that change.


def test_a_frame_follows_its_policies() -> None:
    bulkhead, breaker, limiter = Bulkhead(1), CircuitBreaker(), RateLimiter("8/s", burst=2, max_wait=0)
    pipeline = Pipeline(bulkhead, breaker, limiter)
    recorder = EventRecorder()
    fast: list[bool] = []

    @pipeline
    async def work(seconds: float = 0.0) -> None:
        fast.append(on_fast_path())
        await anyio.sleep(seconds)

    async def taken() -> bool:
        """Whether one call took the fast path; the limiter is fresh, but for its first call."""
        await anyio.sleep(1)
        await work()
        return fast[-1]

    async def main() -> None:
        await work()
        assert await taken()
        for policy in (bulkhead, breaker, limiter):
            for mode in ("shadow", "off"):
                policy.mode = mode
                assert not await taken()
            policy.mode = "enforce"
            assert await taken()

        async with anyio.create_task_group() as group:
            group.start_soon(work, 5)
            await anyio.sleep(1)
            with pytest.raises(BulkheadFullError):
                await work()
            bulkhead.resize(2)
            await work()
            bulkhead.resize(1)
        assert bulkhead.in_use() == 0
        assert await taken()

        breaker.isolate()
        with pytest.raises(CircuitOpenError):
            await work()
        breaker.reset()
        assert await taken()
        await limiter.reset()
        assert not await taken()  # a limiter without a state begins on the plain path
        assert await taken()

        stop = pipeline.listen(recorder)
        assert await taken()
        assert recorder.kinds() == ["call_succeeded"]
        stop()
        assert await taken()
        assert recorder.kinds() == ["call_succeeded"]

        async with anyio.create_task_group() as group:
            group.start_soon(work, 2)
            await anyio.sleep(1)
            await bulkhead.drain()  # the call under way gives its permit back on the fast path, and ends this
        with pytest.raises(BulkheadFullError):
            await work()

    run(main)


@pytest.mark.parametrize("make", [Pipeline, _alone])
def test_an_open_circuit_refuses_no_call_of_another_key(make: Callable[[CircuitBreaker], Any]) -> None:
    policy = make(CircuitBreaker(count=1, minimum_calls=1))

    async def main() -> None:
        await policy.outcome(_fail)
        assert (await policy.outcome(nothing)).rejected
        assert (await policy.bind(key="other").outcome(nothing)).ok
        await policy.bind(key="other").outcome(_fail)
        assert (await policy.bind(key="other").outcome(nothing)).rejected
        assert (await policy.bind(key="third").outcome(nothing)).ok

    run(main)


def test_an_open_circuit_does_not_overrule_what_is_outside_of_it() -> None:
    breaker, bulkhead = CircuitBreaker(count=1, minimum_calls=1), Bulkhead(1)
    pipeline = Pipeline(bulkhead, breaker, Pipeline(Timeout(5.0)))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(pipeline.call, _hang_a_little)
            await anyio.sleep(0.1)
            await breaker.outcome(_fail)
            assert isinstance((await pipeline.outcome(nothing)).error, BulkheadFullError)
        assert isinstance((await pipeline.outcome(nothing)).error, CircuitOpenError)
        assert bulkhead.rejected == 1

    run(main)


def test_policies_that_share_a_state_are_not_fused() -> None:
    store = MemoryStore()

    def limiter() -> RateLimiter:
        return RateLimiter("8/s", burst=3, max_wait=0, name="shared", store=store)

    def breaker() -> CircuitBreaker:
        return CircuitBreaker(name="shared", store=store)

    def bulkhead() -> Bulkhead:
        return Bulkhead(1, name="shared", store=store)

    pairs: list[tuple[Policy, Policy]] = [
        (limiter(), limiter()),
        (breaker(), breaker()),
        (bulkhead(), bulkhead()),
    ]
    for pair in pairs:
        assert Pipeline(*pair).source == ""
        assert Pipeline(pair[0]).source
        assert Pipeline(pair[0], Timeout(1), pair[1]).source == ""

    async def main() -> None:
        twice = Pipeline(limiter(), limiter())
        await twice.call(nothing)  # takes two of three
        assert (await twice.outcome(nothing)).rejected
        with pytest.raises(BulkheadFullError):
            await Pipeline(bulkhead(), bulkhead()).call(nothing)

    run(main)


# Exceptions.


async def _fail() -> None:
    raise KeyError("fails")


async def _hang() -> None:
    await anyio.sleep(1000)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("work", [_fail, _hang])
@pytest.mark.parametrize("attempts", [1, 3])
def test_exceptions_are_freed_without_the_collector(fused: bool, work: Work, attempts: int) -> None:
    freed: list[bool] = []

    class Witness:
        """Local of the failing call: it lives as long as the traceback does."""

        def __del__(self) -> None:
            freed.append(True)

    async def failing() -> None:
        witness = Witness()
        await work()
        del witness

    pipeline = Pipeline(
        Timeout(60.0),
        Bulkhead(9),
        Retry(attempts, random=lambda: 0.0),
        CircuitBreaker(),
        RateLimiter("100/s"),
        Timeout(5.0),
    )

    async def main() -> None:
        guarded = pipeline(failing)
        for use in (guarded, lambda: pipeline.call(failing), lambda: pipeline.outcome(failing)):
            freed.clear()
            with suppress(KeyError, TimedOutError):
                await use()
            await anyio.sleep(1)  # asyncio's own references end with the turn of its loop
            assert len(freed) == attempts

    with path(fused):
        gc.collect()
        gc.disable()
        try:
            run(main)
        finally:
            gc.enable()


def _contexts(fused: bool, policies: Callable[[], list[Policy]], work: Work, handling: bool) -> Any:
    """What an exception tells of its origin, when it comes out of a pipeline."""

    async def main() -> Any:
        guarded = Pipeline(*policies())(work)
        try:
            if not handling:
                await guarded()
            try:
                raise OSError("what the caller is busy with")
            except OSError:
                await guarded()
        except Exception as error:
            return describe(error)

    with path(fused):
        return run(main)


async def _with_context() -> None:
    try:
        raise ArithmeticError
    except ArithmeticError:
        await anyio.sleep(0.1)
        raise KeyError("with a context")  # noqa: B904 - the context is what this is about


def _explode(error: Exception) -> bool:
    raise ZeroDivisionError


POLICIES: dict[str, Callable[[], list[Policy]]] = {
    "retry": lambda: [Retry(attempts=3, random=lambda: 0.0)],
    "timeouts": lambda: [Timeout(9.0), Retry(attempts=2, random=lambda: 0.0), Timeout(1.0)],
    "broken predicate": lambda: [Timeout(9.0), CircuitBreaker(on=_explode), Timeout(1.0)],
    "two broken predicates": lambda: [CircuitBreaker(on=_explode), CircuitBreaker(on=_explode)],
}
CONTEXTS = {
    ("retry", "_fail", False): [],
    ("retry", "_fail", True): ["OSError"],
    ("retry", "_with_context", False): ["ArithmeticError"],
    ("retry", "_with_context", True): ["ArithmeticError", "OSError"],
    ("timeouts", "_hang", False): ["CancelledError"],
    ("broken predicate", "_with_context", True): ["KeyError", "ArithmeticError", "OSError"],
    ("broken predicate", "_hang", False): ["TimedOutError", "CancelledError"],
    ("two broken predicates", "_fail", False): ["ZeroDivisionError", "KeyError"],
    ("two broken predicates", "_fail", True): ["ZeroDivisionError", "KeyError", "OSError"],
}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("policies", "work", "handling"), CONTEXTS)
def test_an_exception_tells_what_was_being_handled_and_nothing_else(
    policies: str, work: str, handling: bool, fused: bool
) -> None:
    works = {fn.__name__: fn for fn in (_fail, _hang, _with_context)}
    told = _contexts(fused, POLICIES[policies], works[work], handling)
    assert told[-1] == CONTEXTS[policies, work, handling]


@pytest.mark.parametrize("fused", [True, False])
def test_a_success_is_not_asked_for_advice(fused: bool) -> None:
    asked: list[Any] = []

    def advice(result: Any, error: Exception | None) -> Advice:
        asked.append(result)
        return Advice(1.0, throttled=True)

    def judge(result: Any) -> Verdict:
        return Verdict.SUCCESS if result == "good" else Verdict.IGNORED

    script = FaultScript("slow down", "good")
    with path(fused), VirtualClock().installed() as virtual:
        pipeline = Pipeline(Retry(attempts=3), classifier=Classifier(result=judge, advice=advice))
        assert virtual.run(pipeline.call, script) == "good"
        assert virtual.now() >= 1.0
    assert asked == ["slow down"]
