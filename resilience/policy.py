"""The two kinds of policies, and the uses that all of them share.

A `Policy` wraps a call: it may run it several times, or not at all (Retry, Fallback, a whole Pipeline). A
`Guard` is a policy that lets a call through once: it is entered before and left after. So a guard also works
around a block, around an async generator and around a streamed response. A guard is three hooks:

    class Gate(Guard[int]):
        def enter(self, call): ...                       # a token, or None: "I have to wait"
        async def wait(self, call): ...                  # waits, then returns the token
        def leave(self, call, token, result, error): ... # always called once per token
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from ._decorate import decorate
from .call import Call, Cost, Handler, Operation
from .events import Event, Listener, emit
from .outcome import Outcome

if TYPE_CHECKING:
    from .bound import Bound
    from .engine.frame import Frame

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C")
Token = TypeVar("Token")
Stream = TypeVar("Stream", bound=AsyncIterator[Any])


class Policy(ABC):
    """Base of everything that protects calls: the four uses, a name and listeners.

    `name` appears in events and errors; by default it is the name of the class. Objects are not bound to an
    event loop: make them at import time and use them from any loop, one thread at a time.
    """

    def __init__(self, name: str | None = None, listeners: Sequence[Listener] = ()) -> None:
        if name is not None and (not isinstance(name, str) or not name):
            raise ValueError(f"name must be a non-empty string, got {name!r}")
        self.name: str = name or type(self).__name__
        self.listeners: list[Listener] = list(listeners)
        self.operation: Operation = Operation(self.name)
        self._handler: Handler | None = None
        self._outcome: Callable[..., Awaitable[Outcome[Any]]] | None = None
        self._built = False

    @abstractmethod
    def wrap(self, proceed: Handler) -> Handler:
        """Fold this policy around `proceed`, once; the result runs for every call."""

    def parts(self) -> list[Policy]:
        """The policies that this one consists of, outermost first: itself, unless it is composed."""
        return [self]

    def run(self, call: Call) -> Awaitable[Any]:
        """Run a ready-made call; what adapters use."""
        handler = self._handler or self._build()
        return handler(call)

    def handler(self, operation: Operation) -> Handler:
        """What runs calls of an adapter's own kind; made once, then given every call of that operation."""
        from .engine.build import build

        return build(self.parts(), operation)

    def frame(self, operation: Operation) -> Frame | None:
        """The generated fast path for an adapter's calls, see `resilience.engine`; None if there is none."""
        from .engine.build import build_frame

        return build_frame(self.parts(), operation)

    def _build(self) -> Handler:
        self._handler = handler = self.handler(self.operation)
        return handler

    def _build_outcome(self) -> Callable[..., Awaitable[Outcome[Any]]] | None:
        self._built = True
        frame = self.frame(self.operation)
        self._outcome = None if frame is None else frame.outcome()
        return self._outcome

    @property
    def source(self) -> str:
        """The generated fast path of this policy, as Python source; empty if calls take the plain path."""
        return str(getattr(self._handler or self._build(), "__resilience_source__", ""))

    async def call(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `await fn(*args, **kwargs)` under this policy and return its result.

        Raises whatever `fn` raises, unchanged; a RejectedError if a policy refused the call; a TimedOutError
        if it ran out of time; TypeError if `fn` does not return an awaitable.
        """
        result: T = await self.run(Call(self.operation, fn, args, kwargs))
        return result

    async def outcome(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Outcome[T]:
        """Like `call`, but the result or the exception comes back as an `Outcome`. Cancellation is raised."""
        frame = self._outcome
        if frame is None and not self._built:
            frame = self._build_outcome()
        if frame is not None:
            # Kept in no variable: the frames in a traceback lead here, and would be kept by their own error.
            return await frame(fn, args, kwargs)
        try:
            return Outcome(await self.run(Call(self.operation, fn, args, kwargs)))
        except Exception as error:
            return Outcome(error=error)

    @overload
    def __call__(self, fn: staticmethod[P, Awaitable[T]], /) -> staticmethod[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __call__(self, fn: classmethod[C, P, Awaitable[T]], /) -> classmethod[C, P, Coroutine[Any, Any, T]]: ...
    @overload
    def __call__(self, fn: Callable[P, Awaitable[T]], /) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __call__(self, fn: Any, /) -> Any:
        """Decorate a coroutine function (or method): every call of it runs under this policy.

        Raises TypeError for what cannot be guarded, such as a function that is not async.
        """
        return decorate(self, fn)

    def bind(
        self,
        *,
        key: str | Callable[..., str] | None = None,
        cost: Cost | Callable[..., Cost] | None = None,
        name: str | None = None,
    ) -> Bound:
        """This policy with per-call values: use the result as you would use the policy.

        `key` (a string, or a function of the call's arguments) picks the partition in keyed policies, `cost`
        is the weight for rate limiters (default 1; a mapping for several dimensions), `name` the operation's name
        in events.
        """
        from .bound import Bound

        return Bound(self, key=key, cost=cost, name=name)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every event of this policy; returns a function that ends it."""
        if not callable(listener):
            raise TypeError(f"listener must be callable, got {listener!r}")
        if listener not in self.listeners:
            self.listeners.append(listener)

        def stop() -> None:
            if listener in self.listeners:
                self.listeners.remove(listener)

        return stop

    def emit(self, event: Event) -> None:
        """Tell the listeners; callers build the event only if `self.listeners` is not empty."""
        emit(self.listeners, event)

    def guards(self) -> list[Guard[Any]]:
        """The guards this policy consists of, outermost first.

        Raises TypeError if it may run a call several times or not at all, which a block cannot do.
        """
        raise TypeError(
            f"{self.name} cannot guard a block or an async generator: it may run the call more than once or not at "
            "all; decorate a coroutine function or use .call"
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class Enclosing(Policy):
    """A policy that can also be put around a block or an async generator."""

    def guard(self, *, key: str = "", cost: Cost = 1) -> AbstractAsyncContextManager[Call]:
        """Protect a block: `async with policy.guard(key="eu"): ...`.

        Raises on entry what a call would raise; leaving the block with an exception counts as its outcome.
        """
        from ._block import Block

        return Block(self.guards(), self.operation, key=key, cost=cost)

    @overload
    def __call__(self, fn: staticmethod[P, Awaitable[T]], /) -> staticmethod[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __call__(self, fn: classmethod[C, P, Awaitable[T]], /) -> classmethod[C, P, Coroutine[Any, Any, T]]: ...
    @overload
    def __call__(self, fn: Callable[P, Awaitable[T]], /) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __call__(self, fn: Callable[P, Stream], /) -> Callable[P, Stream]: ...
    def __call__(self, fn: Any, /) -> Any:
        """Decorate a coroutine function, an async generator function or a method.

        Around an async generator the guard lasts until the generator is exhausted or closed.
        """
        return decorate(self, fn)


class Guard(Enclosing, Generic[Token]):
    """A policy that a call passes once. Subclasses write `enter`, `wait` and `leave`.

    `enter` never yields to the event loop. Every token is given to `leave` exactly once, also when the call was
    cancelled: release in any case, judge only what has an outcome.
    """

    @abstractmethod
    def enter(self, call: Call) -> Token | None:
        """Admit the call at once and return a token, or return None if it has to wait. May raise a rejection."""

    async def wait(self, call: Call) -> Token:
        """Wait until the call is admitted and return its token. Only guards whose `enter` returns None need it."""
        raise RuntimeError(f"{type(self).__name__}.enter returned None, but it has no wait method")

    @abstractmethod
    def leave(self, call: Call, token: Token, result: Any, error: BaseException | None) -> None:
        """The call is over: `error` is what it raised (cancellation included), else it returned `result`.

        May raise another exception in place of `error`, as a Timeout does.
        """

    def suspend(self, call: Call, token: Token) -> Token:
        """The function returned but its result is still alive; the token is given to `leave` later."""
        return token

    def wrap(self, proceed: Handler) -> Handler:
        """Fold the hooks around `proceed`."""
        enter, wait, leave = self.enter, self.wait, self.leave

        async def guarded(call: Call) -> Any:
            token = enter(call)
            if token is None:
                token = await wait(call)
            try:
                result = await proceed(call)
            except BaseException as error:
                leave(call, token, None, error)
                raise
            if call.lease is None:
                leave(call, token, result, None)
            else:
                call.lease.hold(self, call, token, result)
            return result

        return guarded

    def guards(self) -> list[Guard[Any]]:
        """This guard alone."""
        return [self]
