"""What an HTTP response or a transport error says about the server.

    http_classifier(failures=FAILURES | {520, 522})

A failed status is a failure like a broken connection; a 429 is none: the server works and wants less traffic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from functools import cache
from typing import Any

from resilience.errors import RejectedError
from resilience.verdict import DEFAULT_CLASSIFIER, FAILURE, IGNORED, SUCCESS, Advice, Classifier, Verdict

from .host import HOSTS
from .retry_after import advised_delay

FAILURES = frozenset({408, 425, 500, 502, 503, 504})
"""Statuses that count as failures and are retried."""
THROTTLED = frozenset({429})
"""Statuses by which a healthy server asks for less traffic: retried more slowly, and counted neither way."""

_CALLERS_FAULT = frozenset(
    {"CookieConflict", "DecodingError", "InvalidURL", "LocalProtocolError", "StreamError", "UnsupportedProtocol"}
)
"""Errors of both clients that a wrong request causes, and no server."""


def judge_error(error: Exception) -> Verdict:
    """The verdict on an exception: FAILURE, unless it is a rejection or the fault of the request (a bad URL)."""
    kind: Any = type(error)
    return _judge_kind(kind)


def http_classifier(
    *,
    failures: Collection[int] = FAILURES,
    throttled: Collection[int] = THROTTLED,
    error: Callable[[Exception], Verdict] = judge_error,
) -> Classifier:
    """A classifier for HTTP calls.

    A status in `failures` is a FAILURE; one in `throttled`, and any other from 500, is IGNORED; the rest are a
    SUCCESS. Responses that failed or throttled advise the delay of `advised_delay`. `error` judges exceptions.
    Raises TypeError if a status is not an integer, ValueError if it is outside 100 to 999 or in both sets.
    """
    failed, slowed = _statuses("failures", failures), _statuses("throttled", throttled)
    if failed & slowed:
        raise ValueError(f"failures and throttled must have no status in common, got {sorted(failed & slowed)}")

    verdicts = dict.fromkeys([*range(500, 1000), *slowed], IGNORED) | dict.fromkeys(failed, FAILURE)

    def judge_response(response: Any) -> Verdict:
        try:
            return verdicts.get(response.status_code, SUCCESS)
        except AttributeError:  # not a response: a fallback's value
            return SUCCESS

    def advice(response: Any, problem: Exception | None) -> Advice | None:
        if problem is not None:
            return DEFAULT_CLASSIFIER.advice(response, problem)
        status = getattr(response, "status_code", 0)
        if status in failed or status in slowed:
            delay = advised_delay(response.headers, time.time(), throttled=status in slowed)
            return Advice(delay, throttled=status in slowed)
        return None

    return Classifier(error, judge_response, advice)


def _statuses(field: str, values: Collection[int]) -> frozenset[int]:
    for status in values:
        if isinstance(status, bool) or not isinstance(status, int):
            raise TypeError(f"{field} must hold status codes, got {status!r}")
        if not 100 <= status <= 999:
            raise ValueError(f"{field} must hold status codes from 100 to 999, got {status!r}")
    return frozenset(values)


@cache
def _judge_kind(kind: Any) -> Verdict:
    if issubclass(kind, RejectedError):
        return IGNORED
    for base in kind.__mro__:
        if base.__name__ in _CALLERS_FAULT and base.__module__.partition(".")[0] in HOSTS:
            return IGNORED
    return FAILURE


HTTP_CLASSIFIER = http_classifier()
