"""Events of `resilience` as structlog entries.

    payments.listen(StructlogListener())

writes lines such as `circuit_opened operation=charge policy=payments open_for=5.3`.
"""

from __future__ import annotations

from typing import Any

try:
    import structlog
except ImportError as error:
    raise ImportError("structlog is needed: pip install 'anyresilience[structlog]'") from error

from resilience.events import (
    CallFailed,
    CallRejected,
    CallSucceeded,
    CallTimedOut,
    CircuitIsolated,
    CircuitOpened,
    Event,
    FallbackUsed,
    RetryGaveUp,
    StoreDegraded,
)

__all__ = ["StructlogListener"]

_LEVELS: dict[type[Event], str] = {
    CallSucceeded: "debug",
    CallFailed: "warning",
    CallRejected: "warning",
    CallTimedOut: "warning",
    CircuitOpened: "warning",
    CircuitIsolated: "warning",
    FallbackUsed: "warning",
    RetryGaveUp: "warning",
    StoreDegraded: "error",
}


class StructlogListener:
    """A listener that logs every event: its kind in snake case, its fields as key-value pairs.

    `logger` is a structlog logger (default: `structlog.get_logger("resilience")`). Successes are logged at debug
    level, failures, rejections and opened circuits as warnings, an unreachable store as an error, all else as
    info; `levels` overrides the level of event types.
    """

    def __init__(self, logger: Any = None, *, levels: dict[type[Event], str] | None = None) -> None:
        self._logger = structlog.get_logger("resilience") if logger is None else logger
        self._levels = {**_LEVELS, **(levels or {})}
        for kind, level in self._levels.items():
            if level not in ("debug", "info", "warning", "error", "critical"):
                raise ValueError(f"levels must name log levels, got {level!r} for {kind.__name__}")

    def __call__(self, event: Event) -> None:
        """Log one event."""
        fields = {name: _plain(value) for name, value in event.as_dict().items() if value not in (None, "")}
        getattr(self._logger, self._levels.get(type(event), "info"))(event.kind, **fields)


def _plain(value: Any) -> Any:
    """Errors as text: a log entry should not keep their tracebacks alive."""
    return f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else value
