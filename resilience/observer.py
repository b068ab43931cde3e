"""What a pipeline tells its listeners about whole calls, as a guard around its policies."""

from __future__ import annotations

from typing import Any

from . import clock
from .call import Call
from .events import CallFailed, CallSucceeded
from .policy import Guard


class Observer(Guard[float]):
    """Report success or failure of every call; the token is the time at which it began."""

    def enter(self, call: Call) -> float:
        """Note the time."""
        return clock.now()

    def leave(self, call: Call, token: float, result: Any, error: BaseException | None) -> None:
        """Report. A cancelled call is neither a success nor a failure."""
        if not self.listeners:
            return
        operation, duration = call.operation.name, clock.now() - token
        if error is None:
            self.emit(CallSucceeded(operation, self.name, duration, call.attempt))
        elif isinstance(error, Exception):
            self.emit(CallFailed(operation, self.name, duration, call.attempt, error))
