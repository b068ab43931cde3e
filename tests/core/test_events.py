from __future__ import annotations

import dataclasses
import logging
from functools import partial
from typing import Any

import anyio
import pytest

from resilience import Bulkhead, CircuitBreaker, RateLimiter, Retry, Timeout, events
from resilience.events import CircuitOpened, Event
from resilience.policies import bulkhead, circuit_breaker, rate_limiter, retry, timeout
from resilience.testing import HANG, EventRecorder, FaultScript
from tests.support.engine import Engine

pytestmark = pytest.mark.anyio

KINDS = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event)]


def test_events_are_frozen_records_with_a_kind() -> None:
    opened = CircuitOpened("fetch", "db", "eu", 3, 5.0)
    assert opened.kind == "circuit_opened"
    assert opened.as_dict() == {"operation": "fetch", "policy": "db", "key": "eu", "generation": 3, "open_for": 5.0}
    changed: Any = opened
    with pytest.raises(dataclasses.FrozenInstanceError):
        changed.key = "us"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_every_event_says_which_call_and_policy(kind: type[Event]) -> None:
    assert [field.name for field in dataclasses.fields(kind)][:2] == ["operation", "policy"]
    assert kind.__doc__


async def test_a_listener_that_raises_is_logged_and_breaks_nothing(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = EventRecorder()

    def broken(event: Event) -> None:
        raise ZeroDivisionError(event.kind)

    policy = Timeout(1, listeners=[broken, recorder])
    with caplog.at_level(logging.ERROR, logger="resilience"):
        outcome = await engine(policy).outcome(FaultScript(HANG))
    assert isinstance(outcome.error, TimeoutError)
    assert recorder.kinds() == ["call_timed_out"]
    (record,) = caplog.records
    assert record.name == "resilience"
    assert "failed on CallTimedOut" in record.getMessage()
    assert record.exc_info is not None


async def test_a_listener_may_stop_listening_while_it_is_told(engine: Engine) -> None:
    policy = Timeout(1)
    heard: list[Event] = []

    def once(event: Event) -> None:
        heard.append(event)
        stop()

    stop = policy.listen(once)
    recorder = EventRecorder()
    policy.listen(recorder)
    for _ in range(2):
        await engine(policy).outcome(FaultScript(HANG))
    assert len(heard) == 1
    assert len(recorder.events) == 2


def test_a_listener_must_be_callable() -> None:
    wrong: Any = 5
    with pytest.raises(TypeError, match="listener must be callable, got 5"):
        Timeout(1).listen(wrong)


async def test_no_event_is_built_while_nobody_listens(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []

    def note(name: str, *fields: object) -> None:
        built.append(name)

    for module in (bulkhead, circuit_breaker, rate_limiter, retry, timeout):
        for name in ("CallTimedOut", "RetryScheduled", "RetryGaveUp", "CircuitOpened", "PermitAwaited"):
            monkeypatch.setattr(module, name, partial(note, name), raising=False)

    async def storm(*listeners: EventRecorder) -> None:
        protected = engine(
            Bulkhead(1, queue=9, listeners=listeners),
            Retry(2, random=lambda: 0.0, listeners=listeners),
            CircuitBreaker(count=2, minimum_calls=2, listeners=listeners),
            RateLimiter("1/s", burst=1, listeners=listeners),
            Timeout(1, listeners=listeners),
        )
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(protected.outcome, FaultScript(HANG, repeat=True))

    await storm()
    assert built == []
    await storm(EventRecorder())
    assert set(built) >= {"CallTimedOut", "RetryScheduled", "CircuitOpened", "PermitAwaited"}
