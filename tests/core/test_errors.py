from __future__ import annotations

import pickle

import pytest

from resilience import (
    BulkheadFullError,
    CircuitOpenError,
    HazardWarning,
    RateLimitedError,
    RejectedError,
    ResilienceError,
    StoreUnavailableError,
    TimedOutError,
    errors,
)


def test_the_tree() -> None:
    assert all(issubclass(kind, RejectedError) for kind in (CircuitOpenError, BulkheadFullError, RateLimitedError))
    assert all(issubclass(kind, ResilienceError) for kind in (RejectedError, TimedOutError, StoreUnavailableError))
    assert issubclass(TimedOutError, TimeoutError)
    assert not issubclass(TimedOutError, RejectedError)
    assert issubclass(HazardWarning, UserWarning)
    for name in (
        kind.__name__ for kind in vars(errors).values() if isinstance(kind, type) and kind.__module__ == errors.__name__
    ):
        assert name in (errors.__doc__ or "")


@pytest.mark.parametrize("kind", [CircuitOpenError, BulkheadFullError, RateLimitedError])
def test_a_rejection_says_who_why_and_until_when(kind: type[RejectedError]) -> None:
    error = kind("full", policy="db", retry_after=2.5)
    assert (str(error), error.reason, error.policy, error.retry_after) == ("full", "full", "db", 2.5)
    assert (kind("full").policy, kind("full").retry_after) == ("", None)


def test_a_timeout_says_which() -> None:
    error = TimedOutError("late", policy="whole", seconds=2.0)
    assert (str(error), error.policy, error.seconds) == ("late", "whole", 2.0)


def restored(error: Exception) -> Exception:
    copied: Exception = pickle.loads(pickle.dumps(error))
    return copied


@pytest.mark.parametrize("kind", [CircuitOpenError, BulkheadFullError, RateLimitedError])
def test_rejections_travel_between_processes(kind: type[RejectedError]) -> None:
    error = kind("full", policy="db", retry_after=2.5)
    error.add_note("noted")
    other = restored(error)
    assert isinstance(other, kind)
    assert (str(other), other.policy, other.retry_after, other.__notes__) == ("full", "db", 2.5, ["noted"])


def test_timeouts_travel_between_processes() -> None:
    other = restored(TimedOutError("late", policy="whole", seconds=2.0))
    assert isinstance(other, TimedOutError)
    assert (str(other), other.policy, other.seconds) == ("late", "whole", 2.0)
