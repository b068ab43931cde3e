from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from resilience.machines.leased_permits import GONE, QUEUED, Answer, Claim, Entry, LeasedPermits

LEASE = 100


class Story:
    """A record with a limit, a queue and a clock; time passes only when told."""

    def __init__(self, limit: int = 1, queue: int = 10, now: int = 1_000_000) -> None:
        self.record = LeasedPermits()
        self.limit, self.queue, self.now = limit, queue, now

    def acquire(self, id: str, weight: int = 1) -> int:
        return self.record.acquire(self.now, id, weight, self.limit, self.queue, LEASE).token

    def release(self, id: str, mark: bool = False) -> bool:
        return self.record.release(self.now, id, self.limit, LEASE, mark)

    def renew(self, *ids: str, force: bool = False, token: int = 7, weight: int = 1) -> list[int]:
        claims = [Claim(id, weight, token) for id in ids]
        return self.record.renew(self.now, claims, self.limit, LEASE, force)[0]


def test_permits_up_to_the_limit_then_the_queue_then_refusals() -> None:
    story = Story(limit=2, queue=1)
    assert story.acquire("a.1") > 0
    assert story.acquire("a.2") > 0
    assert story.acquire("b.1") == QUEUED
    before = vars(story.record).copy()
    assert story.record.acquire(story.now, "b.2", 1, 2, 1, LEASE) == Answer(GONE, 2, 1)
    assert vars(story.record) == before, "a refusal was written down"
    assert story.record.peek(story.now) == Answer(story.record.fence, 2, 1)


def test_first_come_first_served_and_the_owner_is_named() -> None:
    story = Story()
    story.acquire("a.1")
    assert [story.acquire(id) for id in ("b.1", "c.1")] == [QUEUED, QUEUED]
    assert story.release("a.1")
    ((id, token),) = story.record.handed
    assert id == "b.1"
    assert story.acquire("b.1") == token, "asked again, it hears of its grant"
    assert story.acquire("c.1") == QUEUED
    assert story.record.in_use == 1


def test_tokens_grow_with_every_grant_and_are_the_time_at_least() -> None:
    story = Story(limit=3, now=500)
    tokens = [story.acquire(id) for id in ("a.1", "a.2")]
    story.now = 900
    tokens.append(story.acquire("a.3"))
    assert tokens == [500, 501, 900]
    fresh = LeasedPermits()  # all is lost, and the tokens still grow
    assert fresh.acquire(901, "a.4", 1, 3, 0, LEASE).token == 901


def test_asking_again_and_releasing_again_change_nothing() -> None:
    story = Story(limit=2)
    first = story.acquire("a.1")
    assert story.acquire("a.1") == first
    assert story.record.in_use == 1
    assert story.release("a.1")
    assert not story.release("a.1")
    assert story.record.in_use == 0


def test_what_is_not_renewed_is_free_when_its_lease_ends_and_not_before() -> None:
    story = Story()
    story.acquire("dead.1")
    assert story.acquire("b.1") == QUEUED
    story.now += LEASE // 2
    assert story.renew("b.1", token=QUEUED) == [QUEUED]
    story.now += LEASE // 2 - 1
    assert story.renew("b.1", token=QUEUED) == [QUEUED]
    story.now += 1
    assert story.renew("b.1", token=QUEUED) == [story.record.fence]
    assert story.record.handed == [("b.1", story.record.fence)]


def test_a_dead_waiter_does_not_block_the_queue_nor_keep_what_it_was_granted() -> None:
    story = Story()
    story.acquire("a.1")
    story.acquire("dead.1")
    story.now += LEASE // 2
    story.acquire("c.1")
    story.renew("a.1")
    story.release("a.1")
    assert [id for id, _ in story.record.handed] == ["dead.1"]
    story.now += LEASE // 2  # one lease after its last sign of life
    story.renew("c.1", token=QUEUED)
    assert [id for id, _ in story.record.handed] == ["c.1"]


def test_a_dead_head_of_the_queue_leaves_it() -> None:
    story = Story()
    story.acquire("a.1")
    story.acquire("dead.1")
    story.now += LEASE - 1
    assert story.renew("a.1") != [GONE]
    story.acquire("c.1")
    story.now += 1
    assert story.record.peek(story.now).waiting == 1
    story.release("a.1")
    assert [id for id, _ in story.record.handed] == ["c.1"]


def test_nobody_overtakes_a_heavy_head() -> None:
    story = Story(limit=4)
    story.acquire("a.1", 3)
    assert story.acquire("heavy.1", 4) == QUEUED
    assert story.acquire("light.1", 1) == QUEUED
    story.release("a.1")
    assert [id for id, _ in story.record.handed] == ["heavy.1"]
    story.release("heavy.1")
    assert [id for id, _ in story.record.handed] == ["light.1"]


def test_a_waiter_that_leaves_lets_the_next_ones_in() -> None:
    story = Story(limit=4)
    story.acquire("a.1", 2)
    story.acquire("heavy.1", 4)
    story.acquire("light.1", 1)
    assert story.release("heavy.1")
    assert [id for id, _ in story.record.handed] == ["light.1"]


def test_each_process_brings_its_own_limit() -> None:
    """While a fleet is being replaced: nothing breaks, nothing is taken away, who is too heavy goes alone."""
    story = Story(limit=5)
    story.acquire("new.1", 2)
    story.acquire("new.2", 2)
    assert story.acquire("new.3", 4) == QUEUED
    story.limit = 3
    assert story.acquire("old.1") == QUEUED
    assert story.record.in_use == 4
    story.release("new.1")
    assert story.record.handed == []
    story.release("new.2")
    assert [id for id, _ in story.record.handed] == ["new.3"], "heavier than the limit, it is served alone"
    story.limit = 5
    story.renew("old.1", token=QUEUED)
    assert [id for id, _ in story.record.handed] == ["old.1"], "a larger limit makes room at once"


def test_a_late_command_finds_its_id_gone() -> None:
    story = Story(limit=2)
    assert not story.release("a.1", mark=True)
    assert story.acquire("a.1") == GONE
    assert story.renew("a.1", force=True) == [GONE]
    assert story.record.in_use == 0
    story.now += LEASE
    assert story.record.peek(story.now) == Answer(0, 0, 0)
    assert not story.record.entries, "marks go with their lease"


def test_a_mark_may_be_left_by_a_release_that_had_something_to_give_back() -> None:
    story = Story()
    story.acquire("a.1")
    story.acquire("b.1")
    assert story.release("a.1", mark=True)
    assert story.record.handed != []
    assert story.record.entries["a.1"] == Entry(0, GONE)
    assert not story.release("a.1", mark=True)


def test_after_a_loss_of_the_record_those_who_hold_are_believed_while_there_is_room() -> None:
    story = Story(limit=2)
    assert story.renew("a.1", token=1_500_000) == [1_500_000]
    assert story.record.fence == 1_500_000, "later grants have larger tokens"
    assert story.acquire("b.1") == 1_500_001
    assert story.renew("c.1") == [GONE]
    assert story.acquire("d.1") == QUEUED
    story.release("b.1")
    assert story.renew("e.1", token=QUEUED) == [GONE], "who waits has to ask again"


def test_nobody_is_believed_past_the_queue() -> None:
    story = Story(limit=3)
    story.acquire("a.1", 2)
    story.acquire("b.1", 3)
    assert story.renew("c.1") == [GONE]


def test_with_force_all_that_runs_is_counted() -> None:
    story = Story(limit=2)
    story.acquire("a.1", 2)
    assert story.renew("b.1", force=True, weight=2, token=GONE) == [story.record.fence]
    assert story.record.in_use == 4
    story.release("a.1")
    assert story.acquire("c.1") == QUEUED
    story.release("b.1")
    assert story.record.in_use == 1


def test_a_renewal_says_when_the_next_lease_ends() -> None:
    story = Story(limit=2)
    assert story.record.renew(story.now, [], 2, LEASE, False) == ([], -1)
    story.acquire("a.1")
    story.now += 30
    assert story.record.renew(story.now, [], 2, LEASE, False) == ([], LEASE - 30)


def test_a_clock_that_is_set_back_leaves_leases_the_rest_they_had() -> None:
    story = Story()
    token = story.acquire("a.1")
    story.now -= 500_000
    assert story.acquire("b.1") == QUEUED
    assert story.record.leases["a.1"] == story.now + LEASE
    story.now += LEASE - 1
    story.renew("b.1", token=QUEUED)
    assert story.record.handed == []
    story.now += 1
    story.renew("b.1", token=QUEUED)
    assert story.record.handed == [("b.1", token + 1)], "tokens grow nevertheless"


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (0, ValueError, "weight must be at least 1, got 0"),
        (4, ValueError, r"weight must be at most the limit \(3\), got 4"),
        (1.0, TypeError, "weight must be an integer, got 1.0"),
    ],
)
def test_impossible_weights_are_refused(weight: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LeasedPermits().acquire(0, "a.1", weight, 3, 0, LEASE)


class Fleet(RuleBasedStateMachine):
    """Owners that know what they were told, and a record that must never contradict the living ones."""

    def __init__(self) -> None:
        super().__init__()
        self.record = LeasedPermits()
        self.now = 1_000_000
        self.number = 0
        self.last_token = 0
        self.alive: dict[str, int] = {}
        """The end of the lease by what its owner knows: from the moment of its last success."""

    def note(self) -> None:
        for _, token in self.record.handed:
            assert token > self.last_token
            self.last_token = token

    @rule(weight=st.integers(1, 3), queue=st.integers(0, 3))
    def acquire(self, weight: int, queue: int) -> None:
        self.number += 1
        id = f"p.{self.number}"
        waited = bool(self.record.queue)
        answer = self.record.acquire(self.now, id, weight, 3, queue, LEASE)
        self.note()
        if answer.token > 0:
            assert answer.token > self.last_token
            assert not waited or not self.record.queue, "overtook the queue"
            self.last_token = answer.token
        if answer.token != GONE:
            self.alive[id] = self.now + LEASE

    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.sampled_from(sorted(self.alive)), unique=True)) if self.alive else []
        claims = [Claim(id, *self.record.entries.get(id, Entry(1, QUEUED))) for id in ids]
        tokens, _ = self.record.renew(self.now, claims, 3, LEASE, False)
        self.note()
        for id, token in zip(ids, tokens, strict=True):
            assert token != GONE or self.alive[id] <= self.now, "a lease was ended early"
            self.alive[id] = self.now + LEASE
            if token == GONE:
                del self.alive[id]

    @rule(data=st.data(), mark=st.booleans())
    def release(self, data: st.DataObject, mark: bool) -> None:
        if self.alive:
            id = data.draw(st.sampled_from(sorted(self.alive)))
            known = self.alive.pop(id) > self.now
            assert self.record.release(self.now, id, 3, LEASE, mark) >= known
            self.note()

    @rule(elapsed=st.integers(0, LEASE))
    def wait(self, elapsed: int) -> None:
        self.now += elapsed

    @invariant()
    def units_are_in_one_place(self) -> None:
        record = self.record
        held = {id: entry for id, entry in record.entries.items() if entry.token > 0}
        assert record.in_use == sum(entry.weight for entry in held.values()) <= 3
        assert list(record.queue.values()) == sorted(record.queue.values())
        assert set(record.queue) == {id for id, entry in record.entries.items() if entry.token == QUEUED}
        assert set(record.leases) == set(record.entries)
        assert len({entry.token for entry in held.values()}) == len(held)
        assert record.fence >= self.last_token
        for id, until in self.alive.items():
            assert until <= self.now or record.leases[id] == until


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
