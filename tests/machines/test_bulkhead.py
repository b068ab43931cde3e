from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from resilience.machines.bulkhead import BulkheadMachine, Ticket


def queued(machine: BulkheadMachine, weight: int = 1, waiter: object | None = None) -> Ticket:
    ticket = machine.enqueue(weight, waiter)
    assert ticket is not None
    assert not ticket.granted
    return ticket


def full(limit: int = 1, queue: int = 10) -> BulkheadMachine:
    machine = BulkheadMachine(limit, queue)
    assert machine.try_acquire(limit)
    return machine


def test_it_admits_up_to_the_limit() -> None:
    machine = BulkheadMachine(3)
    assert [machine.try_acquire() for _ in range(4)] == [True, True, True, False]
    assert machine.in_use == 3
    assert machine.release() == ()
    assert machine.try_acquire()


def test_weights_count() -> None:
    machine = BulkheadMachine(5)
    assert machine.try_acquire(3)
    assert not machine.try_acquire(3)
    assert machine.try_acquire(2)
    machine.release(3)
    assert machine.in_use == 2


def test_what_somebody_else_has_granted_counts_even_beyond_the_limit() -> None:
    machine = BulkheadMachine(2, queue=1)
    machine.occupy(3)
    assert not machine.try_acquire()
    ticket = queued(machine)
    assert machine.release(2) == [ticket]
    assert machine.in_use == 2


def test_the_queue_is_bounded() -> None:
    machine = full(queue=2)
    first, second = queued(machine), queued(machine)
    assert machine.enqueue() is None
    assert machine.waiting == 2
    machine.abandon(first)
    assert machine.enqueue() is not None
    assert not second.granted


def test_without_a_queue_nobody_waits() -> None:
    assert full(queue=0).enqueue() is None


def test_first_come_first_served_and_the_waiter_comes_along() -> None:
    machine = full()
    tickets = [queued(machine, waiter=name) for name in "abc"]
    assert [ticket.waiter for ticket in machine.release()] == ["a"]
    assert [ticket.granted for ticket in tickets] == [True, False, False]
    assert [ticket.waiter for ticket in machine.release()] == ["b"]
    assert machine.in_use == 1


def test_enqueue_grants_at_once_when_there_is_room() -> None:
    ticket = BulkheadMachine(1).enqueue(waiter="w")
    assert ticket is not None
    assert ticket.granted
    assert ticket.waiter == "w"


def test_nobody_overtakes_a_heavy_head() -> None:
    machine = BulkheadMachine(4, queue=10)
    assert machine.try_acquire(3)
    heavy, light = queued(machine, 4), queued(machine, 1)
    assert not machine.try_acquire(1), "barged past the queue"
    assert machine.release(2) == []
    assert machine.release(1) == [heavy]
    assert machine.release(4) == [light]


def test_one_release_can_grant_several() -> None:
    machine = full(limit=3)
    tickets = [queued(machine) for _ in range(4)]
    assert machine.release(3) == tickets[:3]


def test_a_permit_granted_to_someone_who_left_goes_to_the_next_live_waiter() -> None:
    machine = full()
    first, second, third = queued(machine), queued(machine), queued(machine)
    assert machine.release() == [first]
    assert machine.abandon(second) == []
    assert machine.abandon(first) == [third]
    assert machine.in_use == 1
    assert machine.release() == ()
    assert machine.in_use == 0


def test_abandoning_twice_does_nothing() -> None:
    machine = full()
    ticket = queued(machine)
    machine.release()
    machine.abandon(ticket)
    assert machine.abandon(ticket) == ()
    assert machine.in_use == 0


def test_a_heavy_head_that_leaves_lets_the_lighter_ones_in() -> None:
    machine = BulkheadMachine(4, queue=10)
    machine.try_acquire(2)
    heavy, light, other = queued(machine, 4), queued(machine, 1), queued(machine, 1)
    assert machine.abandon(heavy) == [light, other]
    assert machine.in_use == 4


def test_newcomers_are_admitted_again_once_the_last_waiter_has_left() -> None:
    machine = BulkheadMachine(2, queue=1)
    machine.try_acquire()
    ticket = queued(machine, 2)
    assert not machine.try_acquire()
    machine.abandon(ticket)
    assert machine.try_acquire()


def test_abandoned_tickets_do_not_pile_up_behind_a_waiting_head() -> None:
    machine = full(limit=2, queue=10)
    machine.release(1)
    head = queued(machine, 2)
    for _ in range(10_000):
        machine.abandon(queued(machine))
    assert len(machine._tickets) < 100  # pyright: ignore[reportPrivateUsage] # memory has no public face
    assert machine.waiting == 1
    assert machine.release() == [head]


def test_a_raised_limit_grants_and_a_lowered_one_takes_nothing_away() -> None:
    machine = full(limit=2)
    tickets = [queued(machine) for _ in range(3)]
    assert machine.resize(4) == tickets[:2]
    assert machine.resize(1) == []
    assert machine.in_use == 4
    for _ in range(3):
        assert machine.release() == []
    assert machine.release() == [tickets[2]]
    assert machine.limit == 1


def test_resize_applies_to_newcomers() -> None:
    machine = BulkheadMachine(1)
    machine.resize(2)
    assert machine.try_acquire(2)
    machine.resize(1)
    machine.release()
    assert not machine.try_acquire()


def test_a_ticket_heavier_than_a_lowered_limit_is_served_alone() -> None:
    machine = full(limit=3)
    heavy, light = queued(machine, 3), queued(machine, 1)
    machine.resize(2)
    assert machine.release(2) == []
    assert machine.release(1) == [heavy]
    assert machine.in_use == 3
    assert machine.release(3) == [light]


def test_drain_refuses_the_new_and_serves_the_queued() -> None:
    machine = full(queue=2)
    ticket = queued(machine)
    assert not machine.drained
    machine.drain()
    assert not machine.try_acquire()
    assert machine.enqueue() is None
    assert machine.release() == [ticket]
    assert not machine.drained
    machine.release()
    assert machine.drained
    assert not machine.try_acquire()
    machine.resize(5)
    assert not machine.try_acquire(), "a new limit must not end the draining"


def test_an_idle_bulkhead_drains_at_once() -> None:
    machine = BulkheadMachine(1)
    machine.drain()
    assert machine.drained


@pytest.mark.parametrize(
    ("limit", "queue", "error", "message"),
    [
        (0, 0, ValueError, "limit must be at least 1, got 0"),
        (1.5, 0, TypeError, "limit must be an integer, got 1.5"),
        (True, 0, TypeError, "limit must be an integer, got True"),
        (1, -1, ValueError, "queue must be at least 0, got -1"),
        (1, None, TypeError, "queue must be an integer, got None"),
    ],
)
def test_bad_construction(limit: Any, queue: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        BulkheadMachine(limit, queue)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (0, ValueError, "weight must be at least 1, got 0"),
        (-1, ValueError, "weight must be at least 1, got -1"),
        (4, ValueError, "weight must be at most the limit (3), got 4"),
        (2.5, TypeError, "weight must be an integer, got 2.5"),
        (float("nan"), TypeError, "weight must be an integer, got nan"),
    ],
)
@pytest.mark.parametrize("operation", ["try_acquire", "enqueue"])
def test_bad_weight(operation: str, weight: Any, error: type[Exception], message: str) -> None:
    machine = BulkheadMachine(3, queue=1)
    with pytest.raises(error) as caught:
        getattr(machine, operation)(weight)
    assert str(caught.value) == message
    assert (machine.in_use, machine.waiting) == (0, 0)


def test_bad_resize_changes_nothing() -> None:
    machine = BulkheadMachine(3)
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        machine.resize(0)
    assert machine.limit == 3


@pytest.mark.parametrize("weight", [2, 0, -1])
def test_more_cannot_be_released_than_is_in_use(weight: int) -> None:
    machine = full()
    with pytest.raises(ValueError, match=rf"weight must be between 1 and what is in use \(1\), got {weight}"):
        machine.release(weight)
    assert machine.in_use == 1


class AgainstAModel(RuleBasedStateMachine):
    """Random histories against lists: holders are weights, the queue is a list, cancelling removes from it."""

    def __init__(self) -> None:
        super().__init__()
        self.limit, self.queue = 4, 5
        self.machine = BulkheadMachine(self.limit, self.queue)
        self.holders: list[int] = []
        self.waiters: list[Ticket] = []
        # Granted, but the waiter has not run yet: it may still be cancelled.
        self.woken: list[Ticket] = []
        self.draining = False

    def used(self) -> int:
        return sum(self.holders) + sum(ticket.weight for ticket in self.woken)

    def expect_granted(self, granted: Any) -> None:
        expected: list[Ticket] = []
        while self.waiters:
            head = self.waiters[0]
            if self.used() and self.used() + head.weight > self.limit:
                break
            expected.append(self.waiters.pop(0))
            self.woken.append(head)
        assert list(granted) == expected
        assert all(ticket.granted for ticket in expected)

    @rule(weight=st.integers(1, 4))
    def arrive(self, weight: int) -> None:
        if weight > self.limit:
            with pytest.raises(ValueError, match="weight must be at most the limit"):
                self.machine.try_acquire(weight)
            return
        room = not self.draining and not self.waiters and self.used() + weight <= self.limit
        assert self.machine.try_acquire(weight) == room
        if room:
            self.holders.append(weight)
            return
        ticket = self.machine.enqueue(weight)
        assert (ticket is None) == (self.draining or len(self.waiters) >= self.queue)
        if ticket is not None:
            assert not ticket.granted
            self.waiters.append(ticket)

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        weight = self.holders.pop(data.draw(st.integers(0, len(self.holders) - 1)))
        self.expect_granted(self.machine.release(weight))

    @precondition(lambda self: self.woken)
    @rule(data=st.data())
    def wake(self, data: st.DataObject) -> None:
        self.holders.append(self.woken.pop(data.draw(st.integers(0, len(self.woken) - 1))).weight)

    @precondition(lambda self: self.woken)
    @rule(data=st.data())
    def cancel_woken(self, data: st.DataObject) -> None:
        ticket = self.woken.pop(data.draw(st.integers(0, len(self.woken) - 1)))
        self.expect_granted(self.machine.abandon(ticket))
        assert self.machine.abandon(ticket) == ()

    @precondition(lambda self: self.waiters)
    @rule(data=st.data())
    def cancel_waiting(self, data: st.DataObject) -> None:
        ticket = self.waiters.pop(data.draw(st.integers(0, len(self.waiters) - 1)))
        self.expect_granted(self.machine.abandon(ticket))
        assert not ticket.granted

    @rule(limit=st.integers(1, 6))
    def resize(self, limit: int) -> None:
        self.limit = limit
        self.expect_granted(self.machine.resize(limit))

    @precondition(lambda self: len(self.holders) > 3)
    @rule()
    def drain(self) -> None:
        self.draining = True
        self.machine.drain()

    @invariant()
    def no_permit_is_lost(self) -> None:
        assert self.machine.in_use == self.used()
        assert self.machine.waiting == len(self.waiters)
        assert self.machine.limit == self.limit
        assert self.machine.drained == (self.draining and not self.used() and not self.waiters)

    def teardown(self) -> None:
        # When everybody who holds leaves, everybody who waits is served, in order, and nothing remains.
        while self.holders or self.woken:
            self.holders += [ticket.weight for ticket in self.woken]
            self.woken.clear()
            self.expect_granted(self.machine.release(self.holders.pop()))
        assert not self.waiters
        assert (self.machine.in_use, self.machine.waiting) == (0, 0)


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
