"""One process's part of a shared retry budget: what it may spend without asking, and what it has to tell.

    part = BudgetSlice(lifetime=10.0)
    message = part.message(need=14.0, least=14.0)      # to the bank, see `token_bank`
    part.answered(sent, answer)
    part.spend(14.0)                                        # True

A message is built once and sent again until it is answered, so what it says is booked exactly once; what is spent and
earned meanwhile is in the next one.
"""

from __future__ import annotations

from resilience.machines.token_bank import Answer, Message

MARGIN = 0.05
"""The part of a lifetime that is left unused: clocks of machines differ a little."""


class BudgetSlice:
    """The tokens at hand, and the account with the bank. Times are in seconds."""

    __slots__ = ("_number", "_valid", "earned", "left", "lifetime", "pending", "spent", "tokens")

    def __init__(self, lifetime: float) -> None:
        self.lifetime: float = lifetime
        self.tokens: float = 0.0
        """What may be spent."""
        self.left: float | None = None
        """What the bank had when it last answered."""
        self.spent: float = 0.0
        self.earned: float = 0.0
        self.pending: Message | None = None
        """The message that has no answer yet."""
        self._number = 0
        self._valid = 0.0

    def spend(self, cost: float) -> bool:
        """Take `cost` if it is at hand."""
        if cost > self.tokens:
            return False
        self.tokens -= cost
        self.spent += cost
        return True

    def earn(self, amount: float) -> None:
        """Pay into the bank, with the next message."""
        self.earned += amount

    def message(self, need: float = 0.0, least: float = 0.0, surrender: bool = False) -> Message:
        """The message to send now: the one that has no answer yet, or else a new one.

        A new one asks for `need` more than is at hand, `least` of it or nothing. With `surrender` all that is at hand
        goes back; it cannot be spent from this moment on.
        """
        if self.pending is None:
            self._number += 1
            if surrender:
                self.tokens = 0.0
            self.pending = Message(self._number, self.spent, self.earned, self.tokens, self.tokens + need, least)
            self.spent = self.earned = 0.0
        return self.pending

    def answered(self, sent: float, answer: Answer) -> None:
        """The bank has answered the message that was (last) sent at `sent`."""
        assert self.pending is not None
        self.tokens += answer.held - self.pending.keep
        self.left = answer.left
        self.pending = None
        self._valid = sent + self.lifetime * (1 - MARGIN)

    def expire(self, now: float) -> None:
        """Drop what the bank may write off soon, and say nothing twice that it may have forgotten to have heard."""
        if now >= self._valid:
            self.tokens = 0.0
            if self.pending is not None:
                self.pending = self.pending._replace(earned=0.0, keep=0.0, want=0.0)

    @property
    def idle(self) -> bool:
        """Whether there is nothing at hand and nothing to tell."""
        return not (self.tokens or self.spent or self.earned or self.pending)
