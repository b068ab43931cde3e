"""What an outcome means: success, failure, or nothing at all.

Every policy that reacts to outcomes asks one classifier for a verdict:

    breaker = CircuitBreaker(on=ConnectionError, on_result=lambda r: r.status >= 500)

A returned value can be a failure (an HTTP 503) and an exception can be ignored (a validation error).
Cancellation never reaches a classifier: it is always `Verdict.IGNORED`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from .errors import RejectedError


class Verdict(enum.Enum):
    """The meaning of one outcome for the policies that count outcomes."""

    SUCCESS = "success"
    FAILURE = "failure"
    IGNORED = "ignored"
    """Says nothing about the dependency: counted neither way."""


SUCCESS = Verdict.SUCCESS
FAILURE = Verdict.FAILURE
IGNORED = Verdict.IGNORED

ErrorTypes: TypeAlias = "type[Exception] | tuple[type[Exception], ...]"
On: TypeAlias = "ErrorTypes | Callable[[Exception], bool] | Classifier"
"""What counts as a failure: exception types, a predicate on exceptions, or a whole classifier."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What the dependency itself asks of those who retry."""

    delay: float | None = None
    """At least this many seconds before the next try (`Retry-After`)."""
    throttled: bool = False
    """The dependency is not broken but wants less: retry more slowly, and do not count it as a failure."""


def _any_failure(error: Exception) -> Verdict:
    return IGNORED if isinstance(error, RejectedError) else FAILURE


def _own_advice(result: object, error: Exception | None) -> Advice | None:
    """Exceptions may carry `retry_after` seconds, as ours do."""
    delay = getattr(error, "retry_after", None)
    return Advice(float(delay)) if isinstance(delay, int | float) else None


@dataclass(frozen=True, slots=True)
class Classifier:
    """Turns outcomes into verdicts.

    `error` judges an exception: by default every `Exception` is a failure, except a `RejectedError`, which
    says nothing about the dependency. `result` judges a returned value; `None`, the default, means that
    every returned value is a success and costs nothing to judge. `advice` reads what the dependency asks
    of retries: by default the `retry_after` attribute of an exception.
    """

    error: Callable[[Exception], Verdict] = _any_failure
    result: Callable[[Any], Verdict] | None = None
    advice: Callable[[Any, Exception | None], Advice | None] = _own_advice


DEFAULT_CLASSIFIER = Classifier()


def classifier(on: On | None, on_result: Callable[[Any], bool] | None) -> Classifier | None:
    """Build a policy's own classifier from its options, or None to use the one that comes with the call.

    Raises TypeError when `on` is none of the accepted kinds.
    """
    if isinstance(on, Classifier):
        if on_result is not None:
            raise TypeError("on_result must be left out when on is a Classifier: the classifier judges results")
        return on
    if on is None and on_result is None:
        return None
    return Classifier(_error_judge(on), _result_judge(on_result))


def _error_judge(on: ErrorTypes | Callable[[Exception], bool] | None) -> Callable[[Exception], Verdict]:
    if on is None:
        return _any_failure
    if isinstance(on, type | tuple):
        types = cast("tuple[object, ...]", on if isinstance(on, tuple) else (on,))
        for item in types:
            if not (isinstance(item, type) and issubclass(item, Exception)):
                raise TypeError(f"on must hold exception types derived from Exception, got {item!r}")
        wanted = cast("tuple[type[Exception], ...]", types)
        return lambda error: FAILURE if isinstance(error, wanted) else IGNORED
    if not callable(on):
        raise TypeError(f"on must be exception types, a predicate or a Classifier, got {on!r}")
    predicate = on
    return lambda error: FAILURE if predicate(error) else IGNORED


def _result_judge(on_result: Callable[[Any], bool] | None) -> Callable[[Any], Verdict] | None:
    if on_result is None:
        return None
    if not callable(on_result):
        raise TypeError(f"on_result must be a predicate on returned values, got {on_result!r}")
    return lambda result: FAILURE if on_result(result) else SUCCESS
