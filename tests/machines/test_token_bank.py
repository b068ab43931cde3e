from __future__ import annotations

from resilience.machines.token_bank import Answer, Message, Slice, TokenBank

LIFETIME = 100


class Story:
    """A bank with a clock; messages are numbered by themselves."""

    def __init__(self, capacity: float = 100.0) -> None:
        self.bank = TokenBank()
        self.capacity = capacity
        self.now = 1_000
        self.numbers: dict[str, int] = {}

    def tell(
        self, id: str, *, spent: float = 0, earned: float = 0, keep: float = 0, want: float = 0, least: float = 0
    ) -> Answer:
        number = self.numbers[id] = self.numbers.get(id, 0) + 1
        return self.send(id, Message(number, spent, earned, keep, want, least))

    def send(self, id: str, message: Message) -> Answer:
        return self.bank.exchange(self.now, id, message, self.capacity, LIFETIME)


def test_what_is_wanted_is_lent_while_there_is_any() -> None:
    story = Story()
    assert story.tell("a", want=60) == (60, 40)
    assert story.tell("b", want=60) == (40, 0)
    assert story.tell("c", want=1) == (0, 0)
    assert story.bank.lent == 100


def test_at_least_what_is_of_use_or_nothing() -> None:
    story = Story()
    story.tell("a", want=90)
    assert story.tell("b", want=28, least=14) == (0, 10)
    assert story.tell("b", want=28, least=10) == (10, 0)


def test_what_is_spent_is_gone_and_what_is_not_kept_comes_back() -> None:
    story = Story()
    story.tell("a", want=60)
    assert story.tell("a", spent=14, keep=6, want=6) == (6, 80)
    assert story.tell("a", keep=0) == (0, 86)
    assert story.bank.lent == 0


def test_what_is_earned_fills_the_bank_up_to_the_capacity_with_all_slices() -> None:
    story = Story()
    story.tell("a", want=50)
    story.tell("a", spent=30, keep=20, want=20)
    assert story.tell("b", earned=10) == (0, 60)
    assert story.tell("b", earned=1000) == (0, 80)
    assert story.tell("a", spent=20) == (0, 80), "what is spent leaves room"


def test_a_message_that_is_repeated_is_booked_once() -> None:
    story = Story()
    story.tell("a", want=50)
    message = Message(2, 20, 5, 10, 40, 0)
    first = story.send("a", message)
    assert first == (40, 45)
    assert story.send("a", message) == first
    story.tell("b", want=5)
    assert story.send("a", message) == (40, 40)


def test_a_slice_of_which_nothing_is_heard_is_written_off() -> None:
    story = Story()
    story.tell("dead", want=60)
    story.now += LIFETIME - 1
    assert story.tell("a", earned=100) == (0, 40), "it may still be spending"
    story.now += 1
    assert story.tell("a", earned=100) == (0, 100)
    assert "dead" not in story.bank.slices


def test_one_that_was_written_off_and_lives_pays_for_what_it_spent() -> None:
    story = Story()
    story.tell("a", want=60)
    story.now += LIFETIME
    story.tell("b", earned=100)
    assert story.tell("a", spent=30) == (0, 70)
    assert story.tell("a", spent=500) == (0, 0)


def test_nobody_loses_what_it_goes_on_spending_from() -> None:
    story = Story(capacity=10)
    assert story.tell("a", keep=25, want=25) == (25, 0)
    assert story.bank.lent == 25
    assert story.tell("b", want=5, earned=3) == (0, 0)
    assert story.tell("a", spent=20, keep=5, want=5) == (5, 0)
    assert story.tell("b", earned=7) == (0, 5)


def test_a_smaller_capacity_holds_from_the_next_message_on() -> None:
    story = Story()
    story.tell("a", want=10)
    story.capacity = 50
    assert story.tell("a", keep=10, want=10) == (10, 40)
    story.capacity = 100
    assert story.tell("a", keep=10, want=10, earned=5) == (10, 45)


def test_a_clock_that_is_set_back_prolongs_no_slice_beyond_a_lifetime() -> None:
    story = Story()
    story.tell("dead", want=60)
    story.now -= 900
    story.tell("a")
    story.now += LIFETIME - 1
    story.tell("a")
    assert story.bank.slices["dead"] == Slice(60, 1)
    story.now += 1
    assert story.tell("a", earned=100) == (0, 100)
