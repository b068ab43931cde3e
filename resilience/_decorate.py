"""Decoration: which callables can be guarded, and the functions that stand in for them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, cast, get_origin, get_type_hints

from .call import Call, Operation

if TYPE_CHECKING:
    from .policy import Policy


class MakeCall(Protocol):
    """Builds the call record for one invocation."""

    def __call__(
        self, operation: Operation, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Call:
        """Return the call."""
        ...


def decorate(policy: Policy, fn: Any, make: MakeCall = Call, name: str | None = None) -> Any:
    """Return a function like `fn` whose calls run under `policy`.

    Raises TypeError for anything that cannot be guarded.
    """
    if isinstance(fn, staticmethod):
        return staticmethod(decorate(policy, fn.__func__, make, name))
    if isinstance(fn, classmethod):
        return classmethod(decorate(policy, cast(Any, fn).__func__, make, name))
    if not callable(fn):
        raise TypeError(f"{policy.name} can only decorate a function, got {fn!r}")
    inner = policy.operation
    title: str = name or getattr(fn, "__qualname__", None) or type(fn).__qualname__
    operation = Operation(title, classifier=inner.classifier, discard=inner.discard)
    if _is_async_generator(fn):
        return _guard_generator(policy, fn, make, operation)
    if not _returns_awaitable(fn):
        raise TypeError(
            f"{policy.name} cannot guard {operation.name}: it is not async. Make it `async def`, or annotate its "
            "return type as Awaitable if it returns one"
        )
    guarded = _guard_coroutine(policy, fn, make, operation)
    guarded.__guarded__ = policy, fn
    return guarded


def guarded_by(policy: Policy, fn: Any) -> Any:
    """The function that a pipeline with `policy` in it was put around, if `fn` is such a one; else `fn` itself."""
    outer, inner = getattr(fn, "__guarded__", (None, fn))
    return inner if outer is not None and policy in outer.parts() else fn


def _guard_coroutine(policy: Policy, fn: Callable[..., Any], make: MakeCall, operation: Operation) -> Any:
    if make is Call:
        from .engine.build import build_function

        frame = build_function(policy.parts(), fn, operation)
        if frame is not None:
            return _dressed(frame, fn)

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        return await policy.run(make(operation, fn, args, kwargs))

    return _dressed(guarded, fn)


def _guard_generator(policy: Policy, fn: Callable[..., Any], make: MakeCall, operation: Operation) -> Any:
    from ._block import lease_all

    guards = policy.guards()

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        lease = await lease_all(guards, make(operation, fn, args, kwargs))
        failure: BaseException | None = None
        try:
            inner = fn(*args, **kwargs)
            try:
                step: Callable[[], Awaitable[Any]] = inner.__anext__
                while True:
                    try:
                        item = await lease.step(step)
                    except StopAsyncIteration:
                        return
                    try:
                        sent = cast(Any, (yield item))
                        step = inner.__anext__ if sent is None else functools.partial(inner.asend, sent)
                    except GeneratorExit:  # closed early by its reader: nothing failed
                        raise
                    except BaseException as thrown:
                        step = functools.partial(inner.athrow, thrown)
            finally:
                await inner.aclose()
        except GeneratorExit:
            raise
        except BaseException as error:
            failure = error
            raise
        finally:
            lease.close(failure)

    return _dressed(guarded, fn)


def _dressed(guarded: Callable[..., Any], fn: Callable[..., Any]) -> Callable[..., Any]:
    """Make the guarded function look like the original; also for partials and objects without a name."""
    functools.update_wrapper(guarded, fn)
    if not hasattr(fn, "__name__"):
        guarded.__name__ = type(fn).__name__
        guarded.__qualname__ = type(fn).__qualname__
    return guarded


def _candidates(fn: Any) -> list[Any]:
    """Every function behind `fn` that may tell what calling it returns: partials, wrappers, `__call__`."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    found = [fn, inspect.unwrap(fn)]
    if not inspect.isroutine(fn) and not isinstance(fn, type):
        found.append(type(fn).__call__)
    return found


def _is_async_generator(fn: Any) -> bool:
    return any(inspect.isasyncgenfunction(candidate) for candidate in _candidates(fn))


def _returns_awaitable(fn: Any) -> bool:
    return any(
        inspect.iscoroutinefunction(candidate)
        or getattr(candidate, "__name__", "") == "<lambda>"  # says nothing about itself: checked when called
        or _annotated_awaitable(candidate)
        for candidate in _candidates(fn)
    )


def _annotated_awaitable(fn: Any) -> bool:
    try:
        returned = get_type_hints(fn).get("return")
    except Exception:  # an annotation that cannot be resolved tells nothing
        return False
    returned = get_origin(returned) or returned
    return isinstance(returned, type) and issubclass(returned, Awaitable)
