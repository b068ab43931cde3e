"""A race of attempts at one call: who may start, who wins, when it is lost.

    race = HedgeRace(at_most=1)
    race.start()               # 0: the first attempt
    race.start()               # 1: a hedge; None if there may be no other
    race.failed()              # False: attempt 1 is still on its way
    race.succeeded(1)          # True: it has won

The rules, after Dean and Barroso, "The Tail at Scale" (CACM 2013), with one added that their successors got wrong: a
failure never ends the race while another attempt is on its way. If all fail the race falls to the first attempt, so
that nobody sees an outcome that he would not have seen without hedges.

    | attempt    | others live | race     | winner       |
    |------------|-------------|----------|--------------|
    | succeeded  | any         | over     | this attempt |
    | failed     | yes         | goes on  |              |
    | failed     | no          | over     | attempt 0    |
    | succeeded or failed after the race was over | | nothing changes | |
"""

from __future__ import annotations

from resilience._validate import check_integer


class HedgeRace:
    """One race of a first attempt and at most `at_most` others.

    Raises TypeError or ValueError unless `at_most` is an integer of at least 1.
    """

    __slots__ = ("at_most", "full", "live", "started", "winner")

    def __init__(self, at_most: int) -> None:
        check_integer("at_most", at_most, 1)
        self.at_most: int = at_most
        self.started: int = 0
        """Attempts so far, the first included."""
        self.live: int = 0
        """Attempts under way."""
        self.winner: int | None = None
        """The attempt whose outcome counts, once the race is decided."""
        self.full: bool = False
        """Whether no other attempt may start."""

    def start(self) -> int | None:
        """Send another attempt on its way and return its number; None if there may be no other."""
        if self.full:
            return None
        number = self.started
        self.live += 1
        self.started += 1
        self.full = number >= self.at_most
        return number

    def close(self) -> None:
        """Let no other attempt start."""
        self.full = True

    def succeeded(self, attempt: int) -> bool:
        """An attempt brought what was wanted; True if it is the first that did."""
        self.live -= 1
        if self.winner is not None:
            return False
        self.winner = attempt
        self.full = True
        return True

    def failed(self) -> bool:
        """An attempt brought nothing; True if that ends the race, because no other is under way."""
        self.live -= 1
        if self.winner is not None or self.live:
            return False
        self.winner = 0
        self.full = True
        return True
