"""What a fetch brought: a value to keep, an answer that says there is none, or a failure.

judge = Judge(policy, rule, classifier, negative, negative_result, pause=1.0, random=random.random)
fetched = await judge.fetch(call, proceed)
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple, TypeAlias, cast

from .. import clock
from ..call import Call, Handler
from ..errors import RejectedError, another
from ..events import CacheHit, CacheMissed, CacheRefreshed, CacheRefreshFailed, CallCoalesced
from ..machines.cache import CacheRule
from ..policy import Policy
from ..verdict import FAILURE, SUCCESS, Classifier, ErrorTypes, Verdict
from ._flight import Flight

Negative: TypeAlias = "ErrorTypes | Callable[[Exception], bool]"
"""Which exceptions are answers: types, or a predicate."""


class Kind(enum.Enum):
    """What a fetch brought."""

    GOOD = "value"
    NEGATIVE = "negative"
    """An answer that says there is none: kept, but not for long."""
    FAILED = "failed"
    """A spare value is better than this."""
    PASSED = "passed"
    """Says nothing about the value: passed on, not kept."""


class Fetched(NamedTuple):
    """The outcome of a fetch: a value, or an error that is not None."""

    kind: Kind
    value: Any
    error: Exception | None
    duration: float

    def given(self) -> Any:
        """The value. Raises the error."""
        if self.error is not None:
            raise self.error
        return self.value


class Judge:
    """Fetches, and says what it brought. The name and the listeners are those of `policy`."""

    def __init__(
        self,
        policy: Policy,
        rule: CacheRule,
        own: Classifier | None,
        negative: Callable[[Exception], bool] | None,
        negative_result: Callable[[Any], bool] | None,
        pause: float,
        random: Callable[[], float],
    ) -> None:
        self.policy = policy
        self.rule = rule
        self.pause = pause
        """Seconds after a failed fetch in which a spare value is served without another."""
        self.random = random
        self.pending: dict[Hashable, Any] = {}
        """Values that are being written behind the cache: newer than what a fetch would bring."""
        self._own = own
        self._negative = negative
        self._negative_result = negative_result

    async def fetch(self, call: Call, proceed: Handler) -> Fetched:
        """Run the call. The error of a broken predicate is one that is passed on."""
        began = clock.now()
        value: Any = None
        error: Exception | None = None
        try:
            value = await proceed(call)
        except Exception as raised:
            error = raised
        try:
            kind = self._kind_of_result(call, value) if error is None else self._kind_of_error(call, error)
        except Exception as broken:
            if error is None:
                await call.operation.discard(value)
            kind, value, error = Kind.PASSED, None, broken
        return Fetched(kind, value, error, clock.now() - began)

    def _kind_of_error(self, call: Call, error: Exception) -> Kind:
        if self._negative is not None and self._negative(error):
            return Kind.NEGATIVE
        if self._own is None and isinstance(error, RejectedError):
            return Kind.FAILED  # says nothing about the dependency, but there is no value either
        judge = self._own or call.operation.classifier
        return Kind.FAILED if judge.error(error) is FAILURE else Kind.PASSED

    def _kind_of_result(self, call: Call, value: Any) -> Kind:
        if self._negative_result is not None and self._negative_result(value):
            return Kind.NEGATIVE
        judge = (self._own or call.operation.classifier).result
        verdict: Verdict = SUCCESS if judge is None else judge(value)
        kinds: Mapping[Verdict, Kind] = {SUCCESS: Kind.GOOD, FAILURE: Kind.FAILED}
        return kinds.get(verdict, Kind.PASSED)

    def draw(self) -> float:
        """The luck of one look."""
        return self.rule.draw(self.random())

    def hit(self, call: Call, freshness: str, negative: bool = False) -> None:
        """Tell of a call that was answered."""
        if self.policy.listeners:
            self.policy.emit(CacheHit(call.operation.name, self.policy.name, freshness, negative))

    def missed(self, call: Call) -> None:
        """Tell of a call that was not."""
        if self.policy.listeners:
            self.policy.emit(CacheMissed(call.operation.name, self.policy.name))

    def joined(self, call: Call, flight: Flight) -> None:
        """Tell of a call that waits for another's fetch."""
        if self.policy.listeners:
            self.policy.emit(CallCoalesced(call.operation.name, self.policy.name, flight.waiting + 1))

    def refreshed(self, call: Call, reason: str, fetched: Fetched) -> None:
        """Tell what a refresh in the background brought."""
        if not self.policy.listeners:
            return
        operation, name = call.operation.name, self.policy.name
        if fetched.kind in (Kind.GOOD, Kind.NEGATIVE):
            self.policy.emit(CacheRefreshed(operation, name, reason, fetched.duration))
        else:
            self.policy.emit(CacheRefreshFailed(operation, name, reason, fetched.error))


def bare(error: Exception) -> Exception:
    """An error like this one without the frames that it came through: they would live as long as the cache."""
    copy = another(error)
    if copy is not error:  # else it cannot be made again
        copy.__cause__ = copy.__context__ = copy.__traceback__ = None
    return copy


def matcher(negative: Negative | None) -> Callable[[Exception], bool] | None:
    """The predicate of an option. Raises TypeError for what is neither exception types nor a predicate."""
    if negative is None or _is_predicate(negative):
        return cast("Callable[[Exception], bool] | None", negative)
    types = _types(negative)
    return lambda error: isinstance(error, types)


def by_name(negative: Negative | None) -> dict[str, type[Exception]]:
    """The errors that may be kept elsewhere: what is read there is turned into nothing else."""
    if negative is None:
        return {}
    if _is_predicate(negative):
        raise TypeError("negative must be exception types when the cache is in a store elsewhere, not a predicate")
    return {name_of(kind): kind for kind in _types(negative)}


def name_of(kind: type) -> str:
    """What a type is called everywhere."""
    return f"{kind.__module__}.{kind.__qualname__}"


def _is_predicate(negative: Negative) -> bool:
    return callable(negative) and not isinstance(negative, type)


def _types(negative: Negative) -> tuple[type[Exception], ...]:
    types = cast("tuple[type[Exception], ...]", negative if isinstance(negative, tuple) else (negative,))
    for kind in types:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise TypeError(f"negative must hold exception types derived from Exception, got {kind!r}")
    return types
