"""Fallback: something to give instead of an error.

@Fallback(LastGood(60), from_replica, ())     # tried in this order
async def recommendations(user): ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .. import clock
from .._validate import positive, whole
from ..call import Call, Handler
from ..errors import RejectedError
from ..events import FallbackUsed, Listener
from ..partitions import Partitions
from ..policy import Policy
from ..verdict import FAILURE, Classifier, On, Verdict, classifier

_MISSING = object()


@dataclass(frozen=True, slots=True)
class Value:
    """A fallback value that is given as it is, even if it is callable."""

    value: Any


class LastGood:
    """The last value that succeeded for the call's key, if it is no older than `max_age` seconds.

    Kept per key for about `max_keys` keys (10,000), least recently used first out. Without a key (see
    `Policy.bind`) all calls share one value, whatever their arguments.
    """

    def __init__(self, max_age: float, *, max_keys: int = 10_000) -> None:
        self.max_age: float = positive("max_age", max_age)
        self._kept: Partitions[_Kept] = Partitions(_Kept, lambda kept: True, whole("max_keys", max_keys, 1))

    def keep(self, key: str, value: Any) -> None:
        """Remember a good value."""
        kept = self._kept.get(key)
        kept.value, kept.at = value, clock.now()

    def find(self, key: str) -> Any:
        """The value kept for `key`; raises LookupError if there is none or it is too old."""
        kept = self._kept.find(key)
        if kept is None or kept.value is _MISSING or clock.now() - kept.at > self.max_age:
            raise LookupError(f"no good value for {key!r} in the last {self.max_age:g} s")
        return kept.value


class _Kept:
    __slots__ = ("at", "value")

    def __init__(self) -> None:
        self.value: Any = _MISSING
        self.at = 0.0


class Fallback(Policy):
    """Answer a failed call from one of `sources`, tried in order until one does not raise.

    A source is a `LastGood`, a `Value`, a function (sync or async; called with the arguments of the protected
    call, after the error as first argument if `with_error`), or any other object, which is the value itself.
    What counts as failed: `on` (exception types, a predicate or a Classifier) and `on_result`; by default every
    exception, rejections and timeouts included. Cancellation is never answered.

    If all sources fail, the original exception is raised with a note, or the original value is returned. Raises
    ValueError at construction without a source.
    """

    def __init__(
        self,
        *sources: Any,
        on: On | None = None,
        on_result: Callable[[Any], bool] | None = None,
        with_error: bool = False,
        name: str | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        super().__init__(name, listeners)
        if not sources:
            raise ValueError("sources must hold at least one value or function")
        self.sources = sources
        self.with_error = with_error
        self._classifier = classifier(on, on_result)
        self._last_good = tuple(source for source in sources if isinstance(source, LastGood))

    def wrap(self, proceed: Handler) -> Handler:
        """Fold the fallback around `proceed`."""

        async def falling_back(call: Call) -> Any:
            try:
                result = await proceed(call)
            except Exception as error:
                if self._judge_error(call, error) is not FAILURE:
                    raise
                answer = await self._answer(call, error)
                if answer is _MISSING:
                    error.add_note(f"{self.name}: every fallback failed too")
                    raise
                return answer
            judge = (self._classifier or call.operation.classifier).result
            if judge is None or judge(result) is not FAILURE:
                for source in self._last_good:
                    source.keep(call.key, result)
                return result
            try:
                answer = await self._answer(call, None)
            except BaseException:  # cancelled: nobody will see the result
                await call.operation.discard(result)
                raise
            if answer is _MISSING:
                return result
            await call.operation.discard(result)
            return answer

        return falling_back

    def _judge_error(self, call: Call, error: Exception) -> Verdict:
        own: Classifier | None = self._classifier
        if own is not None:
            return own.error(error)
        return FAILURE if isinstance(error, RejectedError) else call.operation.classifier.error(error)

    async def _answer(self, call: Call, error: Exception | None) -> Any:
        for source in self.sources:
            try:
                answer = await self._ask(source, call, error)
            except Exception:  # on to the next one; the original error is what the caller gets in the end
                continue
            if self.listeners:
                self.emit(FallbackUsed(call.operation.name, self.name, _kind(source), error))
            return answer
        return _MISSING

    async def _ask(self, source: Any, call: Call, error: Exception | None) -> Any:
        if isinstance(source, LastGood):
            return source.find(call.key)
        if isinstance(source, Value):
            return source.value
        if not callable(source):
            return source
        answer = source(error, *call.args, **call.kwargs) if self.with_error else source(*call.args, **call.kwargs)
        return await answer if inspect.isawaitable(answer) else answer


def _kind(source: Any) -> str:
    if isinstance(source, LastGood):
        return "last_good"
    return "function" if callable(source) else "value"
