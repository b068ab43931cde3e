from __future__ import annotations

import pickle
import traceback

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


class OwnError(Exception):
    """What it is made of is not what it says, and its constructor takes neither."""

    def __init__(self, *, code: int) -> None:
        super().__init__("odd")
        self.code = code


class OwnOSError(OSError):
    def __init__(self, *, code: int) -> None:
        super().__init__(code, "own")


class StubbornError(Exception):
    def __new__(cls, secret: str = "") -> StubbornError:
        if not secret:
            raise RuntimeError("no")
        return super().__new__(cls)

    def __init__(self, secret: str = "") -> None:
        super().__init__()


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a", 1),
        KeyError("k"),
        OwnError(code=7),
        OSError("plain"),
        OSError(2, "gone", "file"),
        OSError(2, "gone", "file", None, "other"),
        FileNotFoundError(2, "gone"),
        OwnOSError(code=5),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        ImportError("no", name="x", path="y"),
        StopAsyncIteration(3),
        ExceptionGroup("several", [ValueError(1), KeyError(2)]),
        RateLimitedError("full", policy="db", retry_after=2.5),
        CircuitOpenError(policy="db", key="k", state="isolated"),
    ],
    ids=repr,
)
def test_another_of_any_kind_says_the_same(error: Exception) -> None:
    cause, context = ValueError("cause"), KeyError("context")
    error.add_note("noted")
    error.__cause__, error.__context__ = cause, context
    copy = errors.another(error)
    assert copy is not error
    assert (type(copy), str(copy), repr(copy), copy.args) == (type(error), str(error), repr(error), error.args)
    assert (copy.__cause__, copy.__context__, copy.__suppress_context__) == (cause, context, True)
    for name in ("errno", "filename", "filename2", "object", "name", "code", "exceptions", "retry_after", "key"):
        assert getattr(copy, name, None) == getattr(error, name, None)
    copy.add_note("mine")
    assert error.__notes__ == ["noted"]


def test_another_has_the_traceback_so_far_and_its_own_from_then_on() -> None:
    def depth(error: BaseException) -> int:
        return len(list(traceback.walk_tb(error.__traceback__)))

    def raised(error: ValueError) -> ValueError:
        with pytest.raises(ValueError) as caught:
            raise error
        return caught.value

    error = raised(ValueError("once"))
    before = depth(error)
    copies = [errors.another(error) for _ in range(2)]
    for copy in copies:
        for _ in range(3):
            raised(copy)
    assert depth(error) == before == 1
    assert [depth(copy) for copy in copies] == [4, 4]


def test_what_cannot_be_made_again_is_itself() -> None:
    error = StubbornError("x")
    assert errors.another(error) is error
