"""What was asked in one turn of the event loop, and what is under way to the server.

turn = Turn(groups, until)
trip = Trip([turn], cargo, give_up)
"""

from __future__ import annotations

import asyncio
from typing import TypeAlias

from resilience_redis.connection.batch import Batch, Errand, Group, Single
from resilience_redis.connection.loan import Loan

Cargo: TypeAlias = list[Batch | Single | Errand]


class Turn:
    """What was asked in one turn of the loop, and until when the callers wait for it."""

    __slots__ = ("groups", "until")

    def __init__(self, groups: list[Group | Errand], until: float) -> None:
        self.groups = groups
        self.until = until

    def fail(self, error: Exception) -> None:
        """Let go whoever still waits."""
        for group in self.groups:
            group.fail(error)


class Trip:
    """What is under way, by connection or by task, and when it is given up even if nobody waits for it."""

    __slots__ = ("by", "cargo", "give_up", "turns")

    def __init__(self, turns: list[Turn], cargo: Cargo, give_up: float) -> None:
        self.turns = turns
        self.cargo = cargo
        self.give_up = give_up
        self.by: Loan | asyncio.Task[None] | None = None

    def is_late(self, now: float) -> bool:
        """Whether somebody's time is over."""
        return any(turn.until <= now for turn in self.turns)

    def drop_turns(self, now: float) -> list[Turn]:
        """Return those whose time is over, and forget them."""
        over = [turn for turn in self.turns if turn.until <= now]
        self.turns = [turn for turn in self.turns if turn.until > now]
        return over

    def end(self) -> None:
        """Give it up: the connection closes, and whether it was carried out stays unknown."""
        if isinstance(self.by, Loan):
            self.by.abort()
        elif self.by is not None:
            self.by.cancel()
