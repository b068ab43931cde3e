from __future__ import annotations

from resilience.events import CallTimedOut, PermitAwaited
from resilience.testing import EventRecorder


def test_it_keeps_events_in_order_and_finds_them_by_class() -> None:
    recorder = EventRecorder()
    first, second = CallTimedOut("fetch", "Timeout", 1.0), PermitAwaited("fetch", "Bulkhead", "", 0.5)
    recorder(first)
    recorder(second)
    assert recorder.events == [first, second]
    assert recorder.kinds() == ["call_timed_out", "permit_awaited"]
    assert recorder.of(PermitAwaited) == [second]
    recorder.clear()
    assert recorder.events == []
