from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from resilience.machines.budget_slice import BudgetSlice
from resilience.machines.token_bank import Answer, Message, TokenBank

LIFETIME = 10.0


def told(part: BudgetSlice, sent: float = 0.0, **options: float | bool) -> Message:
    """One exchange with a bank that gives all that is wanted."""
    message = part.message(**options)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - floats and a bool
    part.answered(sent, Answer(message.want, 50.0))
    return message


def test_nothing_can_be_spent_that_was_not_lent() -> None:
    part = BudgetSlice(LIFETIME)
    assert not part.spend(1)
    assert part.idle
    assert told(part, need=30.0, least=14.0) == Message(1, 0, 0, 0, 30, 14)
    assert part.left == 50.0
    assert [part.spend(14) for _ in range(3)] == [True, True, False]
    assert not part.idle
    assert told(part) == Message(2, 28, 0, 2, 2, 0)
    assert part.tokens == 2


def test_what_happens_while_a_message_is_under_way_is_in_the_next_one() -> None:
    part = BudgetSlice(LIFETIME)
    told(part, need=30.0)
    part.earn(1)
    first = part.message()
    assert part.spend(14)
    part.earn(2)
    assert part.message(need=100.0) is first, "no other while there is no answer"
    part.answered(1.0, Answer(50.0, 0.0))
    assert part.tokens == 36
    assert told(part) == Message(3, 14, 2, 36, 36, 0)


def test_what_is_surrendered_cannot_be_spent_any_more() -> None:
    part = BudgetSlice(LIFETIME)
    told(part, need=30.0)
    assert part.message(surrender=True) == Message(2, 0, 0, 0, 0, 0)
    assert not part.spend(1)
    part.answered(0.0, Answer(0.0, 500.0))
    assert part.idle


def test_a_slice_ends_here_before_the_bank_writes_it_off() -> None:
    part = BudgetSlice(LIFETIME)
    told(part, sent=5.0, need=30.0)
    part.expire(14.4)
    assert part.tokens == 30
    part.spend(14)
    part.earn(3)
    part.message(need=50.0)
    part.expire(14.6)
    assert part.tokens == 0
    assert part.pending == Message(2, 14, 0, 0, 0, 0), "it may have been booked and forgotten: not to be earned twice"
    part.answered(15.0, Answer(0.0, 0.0))
    part.expire(30.0)
    assert part.idle


class Fleet(RuleBasedStateMachine):
    """Processes and a bank, with messages that are lost, late, repeated, and processes that die."""

    capacity = 1000.0

    def __init__(self) -> None:
        super().__init__()
        self.bank = TokenBank()
        self.now = 1000.0
        self.parts: dict[str, BudgetSlice] = {}
        self.sent: dict[str, float] = {}
        self.spent = self.earned = 0.0
        self.born = 0
        for _ in range(3):
            self.join()
        # All is spent, so that whatever is paid in counts, and would count twice.
        hog = BudgetSlice(LIFETIME)
        for _ in range(2):
            message = hog.message(self.capacity)
            hog.answered(self.now, self.bank.exchange(0, "hog.1", message, self.capacity, 1))
            hog.spend(self.capacity)
        self.spent = self.capacity

    def join(self) -> None:
        self.born += 1
        self.parts[f"p.{self.born}"] = BudgetSlice(LIFETIME)

    def part(self, index: int) -> tuple[str, BudgetSlice]:
        id = list(self.parts)[index]
        self.parts[id].expire(self.now)
        return id, self.parts[id]

    @rule(index=st.integers(0, 2), cost=st.sampled_from([5.0, 14.0]))
    def spend(self, index: int, cost: float) -> None:
        if self.part(index)[1].spend(cost):
            self.spent += cost

    @rule(index=st.integers(0, 2), amount=st.sampled_from([1.0, 14.0, 50.0]))
    def earn(self, index: int, amount: float) -> None:
        self.part(index)[1].earn(amount)
        self.earned += amount

    @rule(
        index=st.integers(0, 2),
        need=st.sampled_from([0.0, 14.0, 42.0]),
        surrender=st.booleans(),
        arrives=st.sampled_from([0, 1, 1, 1, 2]),
        answered=st.booleans(),
    )
    def exchange(self, index: int, need: float, surrender: bool, arrives: int, answered: bool) -> None:
        id, part = self.part(index)
        message = part.message(need, min(need, 14.0), surrender)
        for _ in range(arrives):
            answer = self.bank.exchange(int(self.now * 1e6), id, message, self.capacity, int(LIFETIME * 1e6))
            if answered and part.pending is not None:
                part.answered(self.now, answer)

    @rule(elapsed=st.sampled_from([0.1, 1.0, 4.0]))
    def wait(self, elapsed: float) -> None:
        self.now += elapsed

    @rule(index=st.integers(0, 2))
    def die(self, index: int) -> None:
        del self.parts[list(self.parts)[index]]
        self.join()

    @invariant()
    def nobody_spends_what_is_not_there(self) -> None:
        at_hand = 0.0
        for part in self.parts.values():
            part.expire(self.now)
            assert part.tokens >= 0
            at_hand += part.tokens
        assert self.spent + at_hand + (self.bank.tokens or 0.0) <= self.capacity + self.earned + 1e-9
        assert at_hand + (self.bank.tokens or 0.0) <= self.capacity + 1e-9

    def teardown(self) -> None:
        """When it is quiet, everything that is left is in the bank."""
        for index in range(3):
            for _ in range(2):  # one may have been under way
                self.exchange(index, 0.0, True, 1, True)
        self.nobody_spends_what_is_not_there()
        assert self.bank.slices == {} or all(
            each.tokens == 0 for id, each in self.bank.slices.items() if id in self.parts
        )


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
