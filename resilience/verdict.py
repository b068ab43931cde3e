"""What an outcome means: success, failure, or nothing at all.

Every policy that reacts to outcomes asks one classifier for a verdict:

    breaker = CircuitBreaker(failures=on(ConnectionError, result=lambda r: r.status >= 500))

A returned value can be a failure (an HTTP 503) and an exception can be ignored (a validation error).
Cancellation never reaches a classifier: it is always `Verdict.IGNORED`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Protocol


class Verdict(enum.Enum):
    """The meaning of one outcome for the policies that count outcomes."""

    SUCCESS = "success"
    FAILURE = "failure"
    IGNORED = "ignored"
    """Says nothing about the dependency: counted neither way."""


SUCCESS = Verdict.SUCCESS
FAILURE = Verdict.FAILURE
IGNORED = Verdict.IGNORED
