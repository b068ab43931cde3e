"""The slice of a limit that one process holds: serving from it, sizing the next one, giving back what is unused.

Where the store hands units out (`leased_ledger.py`), this keeps them, by lot: the units of a lot become valid one
after the other, and none is used after its end. The store counts that from when it answered, we from when the
question was sent, so we stop first.

    slice = Slice(0.001, now)                         # seconds that a unit takes to come back
    slice.decide(now, cost=1, patience=0.0)           # Answer(Verdict.STRICT), and Verdict.ASK the next time
    request = slice.ask(now)                          # to be sent: left, returned, want, ahead
    slice.granted(sent, now, Gift(loose, lease, fresh, wait, others_wait))
    slice.quick(now, 1)                               # True: that was all

A slice is what was asked for, admitted or not, in the last two intervals of a tenth of a second, and is renewed
shortly before it runs out. Times are seconds.
"""

from __future__ import annotations

import enum
import math
from typing import NamedTuple

from resilience.machines.leased_lots import ROUNDING, Lot, Lots

INTERVAL = 0.1
"""Demand is what is asked for in so many seconds."""

HORIZON = 2
"""A slice is to last for so many intervals."""

LIFETIME = 0.3
"""How long a slice may be used from when all of it is valid."""

AHEAD = 0.5
"""How long a slice may take to become valid, beyond what calls are willing to wait."""

PATIENCE = 10.0
"""What of the patience of calls counts at most."""

MEMORY = 1.0
"""How long an empty limit is taken for empty: units that others give back are seen after that."""

LEAST = 2.0
"""Demand below that is not worth a slice: a slice of one unit is dearer than asking for the unit."""


class Verdict(enum.Enum):
    """What a call is told."""

    TAKEN = enum.auto()
    """It may go after the wait: its units are taken."""
    REFUSED = enum.auto()
    """It may not; it could after the wait."""
    ASK = enum.auto()
    """A slice is wanted, or on its way: then ask again."""
    STRICT = enum.auto()
    """It has to ask the store for itself."""


class Answer(NamedTuple):
    """A verdict, the wait that belongs to it, in seconds, and the lot that the units are from."""

    verdict: Verdict
    wait: float = 0.0
    lot: object = None


_ASK, _STRICT = Answer(Verdict.ASK), Answer(Verdict.STRICT)


class Ask(NamedTuple):
    """What to tell the store. Units are whole."""

    left: float
    returned: float
    want: float
    ahead: float


class Gift(NamedTuple):
    """What the store has answered: see `Grant`, whose waits it has, in seconds."""

    loose: float
    lease: float
    fresh: float
    wait: float
    others_wait: float


class Slice:
    """Units of one key that one process holds. `interval` is how long a unit takes, of the fastest limit."""

    __slots__ = (
        "_asked",
        "_blocked_cost",
        "_blocked_until",
        "_counted",
        "_demand",
        "_hoping",
        "_next_patience",
        "_patience",
        "_pause",
        "_recorded",
        "_resume",
        "_rolled",
        "_trip",
        "asking",
        "loose",
        "lots",
        "low",
        "until",
    )

    def __init__(self, interval: float, now: float) -> None:
        self.lots: Lots = Lots(interval)
        """What `quick` took is not deducted yet."""
        self.loose: float = 0.0
        """What can be used now, as far as it is known."""
        self.until: float = now
        """When the first of that ends."""
        self._counted = 0.0  # the same when it was counted last
        self.asking: bool = False
        """Whether a question is under way."""
        self._hoping = False  # and whether it is for more, and not only to give back
        self.low: float = 0.0
        """What will be used up by the time an answer is here."""
        self._recorded = 0.0  # the most that the store has on record for us
        self._asked = 0.0
        self._demand = 0.0
        self._rolled = now
        self._trip = 0.001
        self._resume = now  # no question before that
        self._pause = INTERVAL
        self._blocked_until = now
        self._blocked_cost = 0.0
        self._patience = self._next_patience = 0.0

    def quick(self, now: float, cost: float) -> bool:
        """Take the cost if nothing speaks against it and nothing else is to be done; most calls end here."""
        if cost < self.loose - self.low and now < self.until:
            self.loose -= cost
            self._asked += cost
            return True
        return False

    def decide(self, now: float, cost: float, patience: float) -> Answer:
        """Answer a call, which `quick` did not."""
        self._asked += cost
        return self.again(now, cost, patience)

    def again(self, now: float, cost: float, patience: float) -> Answer:
        """Answer a call that was told to ask and has waited for it."""
        held = self.held(now)
        if patience > 0.0 and cost > self.loose:
            self._next_patience = max(self._next_patience, min(patience, PATIENCE))
        if cost - cost * ROUNDING <= held:
            wait = self.lots.valid_at(cost) - now
            if wait > patience:
                return Answer(Verdict.REFUSED, max(wait, 0.0))
            return Answer(Verdict.TAKEN, max(wait, 0.0), self._take(now, cost))
        blocked = self._blocked_until - now
        if cost >= self._blocked_cost and patience < blocked:
            return Answer(Verdict.REFUSED, blocked)
        # Not for a call that is most of the demand: a slice would be as large as its cost.
        if cost <= max(self._demand, self._asked - cost) and (self.asking or self.wanting(now)):
            return _ASK
        return _STRICT

    def held(self, now: float) -> float:
        """Return what there is, now or later, after having counted what is valid and dropped what has ended."""
        self.lots.deduct(self._counted - self.loose)
        held, self.loose, self.until = self.lots.count(now)
        self._counted = self.loose
        return held

    @property
    def want(self) -> float:
        """How many units a slice should have."""
        return float(math.floor(HORIZON * max(self._demand, self._asked)))

    @property
    def active(self) -> bool:
        """Whether anything is held, asked for, or under way."""
        return self.asking or self._demand > 0.0 or self._asked > 0.0 or bool(self.lots.all)

    def wanting(self, now: float) -> bool:
        """Whether it is time to ask for more; nobody asks while an answer is awaited."""
        if self.asking or now < self._resume:
            return False
        held = self.held(now)
        return held <= self.low and self.want - held >= LEAST

    def ask(self, now: float) -> Ask:
        """Return what to tell the store, and remember that a question is under way.

        What is returned is given up here and now: whether or not the answer ever comes, it is not used any more.
        """
        returned = self.excess(now)
        self._take(now, returned)
        left, want = float(math.ceil(self.held(now) - ROUNDING)), self.want
        self._recorded = left
        self.asking = True
        self._hoping = want - left >= LEAST
        return Ask(left, returned, want, AHEAD + max(self._patience, self._next_patience))

    def granted(self, sent: float, now: float, gift: Gift) -> None:
        """Add what the store has answered to a question that was sent at `sent`."""
        self.asking = False
        self._trip += (now - sent - self._trip) / 4
        self.held(now)
        loose, fresh = gift.loose, gift.fresh
        self._recorded += loose + fresh
        if loose > 0:
            self.lots.prepend(loose, now, sent + gift.lease)
        if fresh > 0:
            self.lots.append(now, fresh, now + gift.wait, sent + gift.wait + LIFETIME)
        if loose + fresh > 0:
            self._pause = INTERVAL
            self.held(now)
        elif self._hoping:
            self._resume = now + self._pause
            self._pause = min(2 * self._pause, MEMORY)
            self.refused(now, 1.0, gift.others_wait)
        self._set_low()

    def failed(self, now: float) -> None:
        """No answer came: what it may have granted stays debited, and is never used."""
        self.asking = False
        self._resume = now + INTERVAL

    def refused(self, now: float, cost: float, wait: float) -> None:
        """Remember what the store has said: nothing of that cost is there before."""
        self._blocked_until = now + min(wait, MEMORY)
        self._blocked_cost = cost

    def give_back(self, now: float, cost: float, lot: object) -> bool:
        """Put units back into the lot they were from; False if it has ended, or is not on record any more."""
        if self.held(now) + cost > self._recorded + ROUNDING or not self.lots.put_back(lot, cost):
            return False
        self.held(now)
        return True

    def drop(self) -> None:
        """Use nothing of this any more."""
        self.lots.all = []
        self.loose = self._counted = self._recorded = 0.0

    def roll(self, now: float) -> None:
        """End an interval, about every `INTERVAL`. Demand rises at once, falls by halves, and is over at once."""
        fresh = self._asked * INTERVAL / max(now - self._rolled, INTERVAL)
        self._demand = max(fresh, (self._demand + fresh) / 2) if fresh else 0.0
        self._asked = 0.0
        self._rolled = now
        self._patience, self._next_patience = self._next_patience, 0.0
        self.held(now)
        self._set_low()

    def excess(self, now: float) -> float:
        """Return how many units lie unused: beyond twice the demand, or all of them when there is none."""
        self.held(now)
        if self.loose <= 2 * self.want:
            return 0.0
        return float(math.floor(self.loose - self.want))

    def _set_low(self) -> None:
        self.low = min(2 * self._trip * self._demand / INTERVAL, self.want / 2)

    def _take(self, now: float, cost: float) -> Lot | None:
        """Deduct the cost, and count what is left; the lot that it was from, None if there were several."""
        lot = self.lots.deduct(cost)
        self.held(now)
        return lot
