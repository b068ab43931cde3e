"""A listener that remembers.

recorder = EventRecorder()
pipeline.listen(recorder)
...
assert recorder.kinds() == ["retry_scheduled", "call_succeeded"]
"""

from __future__ import annotations

from typing import TypeVar

from ..events import Event

E = TypeVar("E", bound=Event)


class EventRecorder:
    """Keeps every event in `events`, oldest first."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        """Remember an event."""
        self.events.append(event)

    def kinds(self) -> list[str]:
        """The kind of every event, such as `circuit_opened`."""
        return [event.kind for event in self.events]

    def of(self, kind: type[E]) -> list[E]:
        """The events of one class."""
        return [event for event in self.events if isinstance(event, kind)]

    def clear(self) -> None:
        """Forget what happened so far."""
        self.events.clear()
