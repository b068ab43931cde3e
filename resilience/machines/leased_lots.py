"""Units debited ahead, by lot: which of them are valid now, which will be, which have ended.

    lots = Lots(interval=0.001)                # how long a unit takes, of the fastest limit
    lots.append(now, 20, now + 0.03, until)    # the last of 20 units is valid in 30 ms
    lots.count(now)                            # Count(held=20, loose=0, until=inf)
    lots.valid_at(1)                           # when the next unit is
    lot = lots.deduct(1)

The units of a lot become valid one interval after each other, as if each had been booked alone. No lot is used after
its end, nor prolonged by another.
"""

from __future__ import annotations

import math
from typing import NamedTuple

ROUNDING = 1e-6
"""The share of a cost that is let off: tenths, added up, are not exactly whole."""


class Lot:
    """Units granted together: the last is valid at `ready`, the others one interval before each other."""

    __slots__ = ("ready", "units", "until")

    def __init__(self, units: float, ready: float, until: float) -> None:
        self.units: float = units
        self.ready: float = ready
        self.until: float = until


class Count(NamedTuple):
    """What there is in all, what of it is valid, and when the first of that ends."""

    held: float
    loose: float
    until: float


class Lots:
    """Lots in the order in which they become valid."""

    __slots__ = ("_interval", "all")

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self.all: list[Lot] = []

    def count(self, now: float) -> Count:
        """Count, and drop what has ended."""
        self.all = [lot for lot in self.all if now < lot.until]
        held = loose = 0.0
        until = math.inf
        for lot in self.all:
            held += lot.units
            valid = lot.units if now >= lot.ready else lot.units - (lot.ready - now) / self._interval
            if valid > 0.0:
                loose += valid
                until = min(until, lot.until)
        return Count(held, loose, until)

    def prepend(self, units: float, now: float, until: float) -> None:
        """Add units that are valid now."""
        self.all.insert(0, Lot(units, now, until))

    def append(self, now: float, units: float, ready: float, until: float) -> None:
        """Add units that are valid after all others: the store has booked them one after the other."""
        if self.all and self.all[-1].ready > now:
            ready = max(ready, self.all[-1].ready + units * self._interval)
        self.all.append(Lot(units, ready, until))

    def valid_at(self, cost: float) -> float:
        """Return when the next units of that cost are valid."""
        valid_at, let_off = -math.inf, cost * ROUNDING
        for lot in self.all:
            if lot.units > 0.0 and cost > let_off:
                valid_at = max(valid_at, lot.ready - max(lot.units - cost, 0.0) * self._interval)
                cost -= lot.units
        return valid_at

    def deduct(self, cost: float) -> Lot | None:
        """Take the next units of that cost; the lot that they were from, None if there were several."""
        only: Lot | None = None
        several = False
        for lot in self.all:
            if cost <= 0.0:
                break
            units = min(lot.units, cost)
            lot.units -= units
            cost -= units
            if units > ROUNDING:
                only, several = lot, only is not None
        return None if several else only

    def put_back(self, lot: object, units: float) -> bool:
        """Put units back into the lot they were from; False if it has ended.

        They go behind all that were before them in the lot: none can be valid too early.
        """
        for known in self.all:
            if known is lot:
                known.units += units
                return True
        return False
