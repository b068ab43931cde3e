"""A retry budget that many processes share: one bank of tokens, of which each holds a slice for its next retries.

    bank = TokenBank()
    answer = bank.exchange(now, "p1", Message(1, spent=0, earned=0, keep=0, want=42, least=14), 500, 10_000_000)
    answer.held                    # 42.0: p1 may spend so much without asking
    answer.left                    # 458.0: what others can have

The specification of `scripts/budget.lua`: same answers, same state. Times are whole microseconds of the server.

What a process may spend was taken from the bank before, so all of them together never spend more than the bank held
and successes have paid in since; what is in the bank and in slices is never more than the capacity. A slice of which
nothing is heard for a lifetime is written off as spent.
"""

from __future__ import annotations

from typing import NamedTuple


class Message(NamedTuple):
    """What a process tells the bank. It is repeated, with the same number, until there is an answer.

    `spent` and `earned` since the message before, `keep` is what it still has and goes on spending from, `want` how
    much it would like to have in all. It gets at least `least` more, or nothing.
    """

    number: int
    spent: float
    earned: float
    keep: float
    want: float
    least: float


class Answer(NamedTuple):
    """The slice `held` by who asked, at least what it keeps; and what is `left` in the bank."""

    held: float
    left: float


class Slice(NamedTuple):
    """The tokens of one process, and the number of its last message."""

    tokens: float
    number: int


class TokenBank:
    """The record of one budget; full at first."""

    def __init__(self) -> None:
        self.tokens: float | None = None
        """What is in the bank; None: nobody has asked yet."""
        self.lent: float = 0.0
        """What is in slices."""
        self.slices: dict[str, Slice] = {}
        self.until: dict[str, int] = {}
        """When a slice is written off."""

    def exchange(self, now: int, id: str, message: Message, capacity: float, lifetime: int) -> Answer:
        """Book what was spent and earned, and lend what is wanted; a message that is repeated is only answered."""
        self._write_off(now, lifetime)
        known = self.slices.get(id)
        if known is None or known.number != message.number:
            known = self._book(id, known.tokens if known else 0.0, message, capacity)
        self.until[id] = now + lifetime
        return Answer(known.tokens, self.tokens or 0.0)

    def _book(self, id: str, held: float, message: Message, capacity: float) -> Slice:
        tokens = capacity if self.tokens is None else self.tokens
        self.lent = max(0.0, self.lent - held)
        tokens = tokens + held - message.spent - message.keep + message.earned
        tokens = max(0.0, min(tokens, capacity - self.lent - message.keep))
        more = min(message.want - message.keep, tokens)
        if more <= 0 or more < message.least:
            more = 0.0
        self.tokens = tokens - more
        known = self.slices[id] = Slice(message.keep + more, message.number)
        self.lent = self.lent + known.tokens
        return known

    def _write_off(self, now: int, lifetime: int) -> None:
        """Forget slices whose time is over. A clock that was set back prolongs none beyond a lifetime."""
        gone = sorted((until, id) for id, until in self.until.items() if until <= now)
        for _, id in gone:
            self.lent = max(0.0, self.lent - self.slices.pop(id).tokens)
            del self.until[id]
        for id, until in self.until.items():
            self.until[id] = min(until, now + lifetime)
        if not self.slices:
            self.lent = 0.0
