"""What one process may admit of a shared limit while the store is away: its share, less what it has used lately.

    share = LocalShare(rules, share=None, max_keys=1000)
    share.used("tenant-7", (1,))         # admitted by the store
    share.divide(4)                       # four processes live
    share.line.try_take("tenant-7", (1,)) # the store is away
    share.owed(forgotten=False)           # it is back: what it does not know of yet

A share keeps account of what the process was admitted, all the time: so an outage does not begin with another
burst, and when the store is back it can be told what was used meanwhile, or everything if it has lost its memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..machines.rate_limiter import GCRA, Rule, TokenBucket
from ._line import Line
from ._lines import make_line
from .memory_ledger import MemoryLedger

MOST_OWED = 10_000
"""Keys of which the store is told when it is back."""

_ROUNDING = 1e-6
"""Units that are no use but rounding."""


class LocalShare:
    """A line in front of a share of the limits: `share` of them, by default one part for each live process."""

    def __init__(
        self, rules: Sequence[Rule[Any]], share: float | None, max_keys: int, common: Sequence[int] = ()
    ) -> None:
        self._whole = rules
        self._fixed = share
        self._parts: int = 1
        self._rules = [_scaled(rule, share or 1.0) for rule in rules]
        self._ledger = MemoryLedger(self._rules, max_keys, common)
        self.line: Line = make_line(self._ledger, self._rules)
        # What was admitted here since the store went away, by key and limit.
        self._admitted: dict[str, tuple[float, ...]] = {}

    def divide(self, parts: int) -> None:
        """So many processes live; no effect where the share is fixed."""
        if self._fixed is None and parts != self._parts:
            self._parts = parts
            self._rules = [_scaled(rule, 1.0 / parts) for rule in self._whole]
            self._ledger.rescale(self._rules)
            self.line.rescale(self._rules)

    def fitting(self, costs: Sequence[float]) -> tuple[float, ...]:
        """Costs that the share can ever admit: what is more than that is not held against a call."""
        return tuple(min(cost, rule.capacity) for rule, cost in zip(self._rules, costs, strict=True))

    def used(self, key: str, costs: Sequence[float]) -> None:
        """The store has admitted this."""
        self._ledger.charge(key, costs)

    def unused(self, key: str, costs: Sequence[float]) -> None:
        """What the store has admitted was given back."""
        self._ledger.refund(key, costs)

    def admitted(self, key: str, costs: Sequence[float]) -> None:
        """The line has admitted this, and the store does not know."""
        known = self._admitted.get(key)
        self._admitted[key] = tuple(costs) if known is None else tuple(map(sum, zip(known, costs, strict=True)))

    def owed(self, *, forgotten: bool) -> Iterator[tuple[str, tuple[float, ...]]]:
        """What the store has to be told: admissions of the outage, or all if it has lost its memory.

        Only as much of it as still counts by now. The next outage begins anew.
        """
        admitted, self._admitted = self._admitted, {}
        keys = [*self._ledger.keys()] if forgotten else [*admitted]
        for key in keys[-MOST_OWED:]:
            used = self._ledger.in_use(key)
            if not forgotten:
                used = tuple(map(min, zip(used, admitted[key], strict=True)))
            if max(used) > _ROUNDING:
                yield key, used


def _scaled(rule: Rule[Any], share: float) -> Rule[Any]:
    """The same rule with a share of its limit; periods grow instead where a window needs a whole unit."""
    kind: Any = type(rule)
    arguments = [rule.limit, rule.period / share]
    if isinstance(rule, GCRA | TokenBucket):
        arguments = [rule.limit * share, rule.period, max(1.0, rule.burst * share)]
    scaled: Rule[Any] = kind(*arguments)
    return scaled
