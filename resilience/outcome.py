"""The outcome of a call as a value, for callers who would rather look than catch.

outcome = await payments.outcome(charge, order)
if outcome.ok:
    print(outcome.value)
"""

from __future__ import annotations

from typing import Generic, Never, TypeVar, cast

from .errors import RejectedError

T_co = TypeVar("T_co", covariant=True)


class Outcome(Generic[T_co]):
    """Either the returned value or the exception of one protected call.

    Cancellation is not an outcome: it is always raised.
    """

    __slots__ = ("_value", "error")

    error: Exception | None
    """What the call, or a policy, raised; None if the call returned."""

    def __init__(self, value: T_co | None = None, error: Exception | None = None) -> None:
        self._value = value
        self.error = error

    @property
    def ok(self) -> bool:
        """Whether the call returned."""
        return self.error is None

    @property
    def rejected(self) -> bool:
        """Whether a policy refused the call before it ran."""
        return isinstance(self.error, RejectedError)

    @property
    def value(self) -> T_co:
        """The returned value. Raises the error if there is one."""
        if self.error is not None:
            raise self.error
        return cast(T_co, self._value)

    def __repr__(self) -> str:
        return f"Outcome({self._value!r})" if self.error is None else f"Outcome(error={self.error!r})"


def rejected(error: RejectedError) -> Outcome[Never]:
    """The outcome of a call that was refused."""
    return Outcome(None, error)
