"""Everything the library raises.

    ResilienceError
    ├── RejectedError                the call did not run; `retry_after` says when to try again
    │   ├── CircuitOpenError
    │   ├── BulkheadFullError
    │   └── RateLimitedError
    ├── TimedOutError                also a TimeoutError; the call ran out of time
    └── StoreUnavailableError        shared state could not be reached in time

    HazardWarning                    a pipeline that will not do what its author expects

An exception of the protected call itself is never wrapped: what the call raised is what you catch.
"""

from __future__ import annotations


class ResilienceError(Exception):
    """Base of all errors raised by this library."""


class RejectedError(ResilienceError):
    """A policy refused the call before it ran.

    `policy` names the policy that refused, `retry_after` is the number of seconds after which a new try
    has a chance (`None`: unknown).
    """

    def __init__(self, message: str, *, policy: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.policy = policy
        self.retry_after = retry_after

    @property
    def reason(self) -> str:
        """The message, for events and logs."""
        return str(self.args[0])


class CircuitOpenError(RejectedError):
    """The circuit is open (or isolated, or all its probe slots are taken)."""


class BulkheadFullError(RejectedError):
    """All permits are in use and the queue is full, or the wait for a permit was too long."""


class RateLimitedError(RejectedError):
    """The rate limit is used up, and waiting for it would take longer than allowed."""


class TimedOutError(ResilienceError, TimeoutError):
    """The call did not finish within the seconds given to a `Timeout`.

    `policy` names the `Timeout` whose deadline passed and `seconds` is its setting, so that of several
    nested timeouts it is clear which one fired.
    """

    def __init__(self, message: str, *, policy: str = "", seconds: float = 0.0) -> None:
        super().__init__(message)
        self.policy = policy
        self.seconds = seconds


class StoreUnavailableError(ResilienceError):
    """A shared store did not answer within its deadline, or could not be reached at all.

    Policies handle it as their `on_outage` says; it reaches callers only from direct store operations.
    """


class HazardWarning(UserWarning):
    """A pipeline was built whose parts work against each other (a timeout inside a shorter one, ...)."""
