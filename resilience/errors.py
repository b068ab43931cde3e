"""Everything the library raises.

    ResilienceError
    ├── RejectedError                the call did not run; `retry_after` says when to try again
    │   ├── CircuitOpenError
    │   ├── BulkheadFullError
    │   └── RateLimitedError
    ├── TimedOutError                also a TimeoutError; the call ran out of time
    ├── PermitLostError              a shared permit could not be renewed, and its call was cancelled
    └── StoreUnavailableError        shared state could not be reached in time

    HazardWarning                    a pipeline that will not do what its author expects

An exception of the protected call itself is never wrapped: what the call raised is what you catch.
"""

from __future__ import annotations

from contextlib import suppress
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, TypeVar

E = TypeVar("E", bound=BaseException)


class ResilienceError(Exception):
    """Base of all errors raised by this library."""


class RejectedError(ResilienceError):
    """A policy refused the call before it ran.

    `policy` names the policy that refused, `retry_after` is the number of seconds after which a new try
    has a chance (`None`: unknown).
    """

    # Slots, because an error costs a third of one with a dictionary, and an overloaded service makes many.
    __slots__ = ("policy", "retry_after")

    policy: str
    retry_after: float | None

    def __init__(self, message: str, *, policy: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.policy = policy
        self.retry_after = retry_after

    @property
    def reason(self) -> str:
        """The message, for events and logs."""
        return str(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return remade, (type(self), self.args, attributes_of(self))


def attributes_of(error: BaseException) -> dict[str, Any]:
    """Everything that was set on an error, for those who make another like it."""
    slots = [name for kind in type(error).__mro__ for name in getattr(kind, "__slots__", ())]
    return {**{name: getattr(error, name) for name in slots if hasattr(error, name)}, **vars(error)}


def remade(kind: type[E], args: tuple[Any, ...], attributes: dict[str, Any]) -> E:
    """Make an error without its `__init__`, whose signature is anybody's."""
    error = kind.__new__(kind, *args)
    error.args = args
    for name, value in attributes.items():
        setattr(error, name, list(value) if name == "__notes__" else value)
    return error


def another(error: E) -> E:
    """An exception like `error`, for somebody else to raise: what is raised twice grows a traceback and notes twice.

    Same type, arguments, attributes, cause and traceback so far. One that cannot be made again is returned itself.
    """
    try:
        copy = remade(type(error), error.args, attributes_of(error))
    except Exception:
        return error
    for name, member in [each for kind in type(error).__mro__ for each in vars(kind).items()]:
        # What is kept in C, such as the `errno` of an OSError, is in no dictionary.
        if not name.startswith("__") and isinstance(member, MemberDescriptorType | GetSetDescriptorType):
            with suppress(AttributeError, TypeError):
                value = getattr(error, name)
                if getattr(copy, name, None) is not value:  # an OSError with a filename of None is another
                    setattr(copy, name, value)
    copy.__cause__, copy.__context__ = error.__cause__, error.__context__
    copy.__suppress_context__ = error.__suppress_context__
    return copy.with_traceback(error.__traceback__)


class CircuitOpenError(RejectedError):
    """The circuit does not admit the call.

    `key` names the circuit in a keyed breaker. `state` says why: it is `open`, `isolated`, `half-open` with all its
    probes taken, `closing` and admits only a share of the calls, or `unknown` while a shared store does not answer.
    """

    __slots__ = ("key", "state")

    key: str
    state: str

    def __init__(
        self,
        message: str = "",
        *,
        policy: str = "",
        retry_after: float | None = None,
        key: str = "",
        state: str = "open",
    ) -> None:
        super().__init__(message, policy=policy, retry_after=retry_after)
        self.key = key
        self.state = state

    def __str__(self) -> str:
        if self.args and self.args[0]:
            return str(self.args[0])
        when = "" if self.retry_after is None else f", try again in {self.retry_after:.3g} s"
        return f"{self.policy}{f' for {self.key!r}' if self.key else ''} is {self.state}{when}"


_new_circuit_open = CircuitOpenError.__new__


def circuit_refusal(policy: str, retry_after: float | None, key: str = "", state: str = "open") -> CircuitOpenError:
    """The error without a message yet: an open circuit may refuse a million calls that nobody reads about."""
    error = _new_circuit_open(CircuitOpenError)
    error.policy = policy
    error.retry_after = retry_after
    error.key = key
    error.state = state
    return error


class BulkheadFullError(RejectedError):
    """All permits are in use and the queue is full, or the wait for a permit was too long."""


class RateLimitedError(RejectedError):
    """The rate limit is used up, and waiting for it would take longer than allowed.

    `limit` is the name of the one that binds, of several; empty where a store that does not answer is the reason.
    """

    __slots__ = ("limit",)

    limit: str

    def __init__(self, message: str, *, policy: str = "", retry_after: float | None = None, limit: str = "") -> None:
        super().__init__(message, policy=policy, retry_after=retry_after)
        self.limit = limit


class TimedOutError(ResilienceError, TimeoutError):
    """The call did not finish within the seconds given to a `Timeout`.

    `policy` names the `Timeout` whose deadline passed and `seconds` is its setting, so that of several
    nested timeouts it is clear which one fired.
    """

    def __init__(self, message: str, *, policy: str = "", seconds: float = 0.0) -> None:
        super().__init__(message)
        self.policy = policy
        self.seconds = seconds


class PermitLostError(ResilienceError):
    """The lease of a shared permit could not be renewed in time, and the call that held it was cancelled.

    Raised by a `Bulkhead` with `on_lost="cancel"`. `policy` names it, `key` the permits. The call may have done
    part of its work.
    """

    def __init__(self, message: str, *, policy: str = "", key: str = "") -> None:
        super().__init__(message)
        self.policy = policy
        self.key = key


class StoreUnavailableError(ResilienceError):
    """A shared store did not answer within its deadline, or could not be reached at all.

    Policies handle it as their `on_outage` says; it reaches callers only from direct store operations.
    """


class HazardWarning(UserWarning):
    """A pipeline was built whose parts work against each other (a timeout inside a shorter one, ...)."""
