"""What is kept of earlier calls, for how long it is good, and what has to leave when there is no room.

    rule = CacheRule(ttl=60, stale_for=30)
    cache = CacheMachine(max_entries=1000)
    cache.put("key", rule.entry("value", now=0.0, duration=0.2, random=0.5), now=0.0)
    entry = cache.get("key")
    entry.freshness(now=10.0, draw=rule.draw(random=0.5))     # Freshness.FRESH

An entry is fresh until it expires, somewhat before that due for an *early* refresh by the luck of a draw, then stale
(served while it is refreshed), then a spare (served when a fetch fails), then gone. Moments come from the caller,
in seconds; in microseconds they work as well, if all are.

Early refresh: A. Vattani, F. Chierichetti, K. Lowenstein, "Optimal Probabilistic Cache Stampede Prevention",
VLDB 2015. Each look refreshes when now - duration * beta * ln(u) >= expiry: the slower the fetch, the earlier, and
the nearer the end, the likelier, whatever the rate of looks.
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from resilience._validate import check_integer, check_number

_SLICES = 8

_LUCKIEST = 37.0
"""More than -ln(u) can be: the numbers of `random()` are multiples of 2**-53."""


class Freshness(enum.Enum):
    """What an entry is good for."""

    FRESH = "fresh"
    EARLY = "early"
    """Fresh, but to be refreshed now, while others still find it fresh."""
    STALE = "stale"
    """Expired, good enough while it is being refreshed."""
    SPARE = "spare"
    """Good for nothing but to stand in for an error."""
    GONE = "gone"


FRESH = Freshness.FRESH
EARLY = Freshness.EARLY
STALE = Freshness.STALE
SPARE = Freshness.SPARE
GONE = Freshness.GONE


class Entry:
    """A value, or an error if `failed`, and the moments at which it changes its meaning."""

    __slots__ = ("calm_until", "duration", "expires", "failed", "paused_until", "spare_until", "stale_until", "value")

    def __init__(
        self,
        value: Any,
        expires: float,
        stale_until: float,
        spare_until: float,
        duration: float = 0.0,
        failed: bool = False,
    ) -> None:
        self.value: Any = value
        self.expires: float = expires
        self.stale_until: float = stale_until
        self.spare_until: float = spare_until
        self.duration: float = duration
        """How long it took to fetch; 0 means that it is never refreshed early."""
        self.failed: bool = failed
        self.paused_until: float = -math.inf
        """No refresh begins before: the last one failed."""
        self.calm_until: float = -math.inf
        """Before this it is fresh whatever the draw: a value that can be given without another look."""

    @property
    def until(self) -> float:
        """When it is gone."""
        return max(self.expires, self.stale_until, self.spare_until)

    def freshness(self, now: float, draw: float) -> Freshness:
        """What it is good for; `draw` is that of the rule for this look."""
        if now < self.expires:
            return EARLY if now + self.duration * draw >= self.expires else FRESH
        if now < self.stale_until:
            return STALE
        return SPARE if now < self.spare_until else GONE


@dataclass(frozen=True, slots=True)
class CacheRule:
    """How long entries are good for, in seconds.

    Each entry has a `ttl` of its own, shorter than the rule's by a random share of up to `jitter` (0 to 1), so that
    what was stored together does not expire together. After it, the value is served for `stale_for` while it is
    refreshed, and for `stale_if_error` when a fetch fails; both count from the expiry. Negative results live for
    `negative_ttl` and are never stale. `beta` scales the early refresh, 0 turns it off.
    """

    ttl: float
    jitter: float = 0.1
    stale_for: float = 0.0
    stale_if_error: float = 0.0
    negative_ttl: float = 5.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        check_number("ttl", self.ttl, above=0)
        check_number("jitter", self.jitter, least=0, most=1)
        check_number("stale_for", self.stale_for, least=0)
        check_number("stale_if_error", self.stale_if_error, least=0)
        check_number("negative_ttl", self.negative_ttl, above=0)
        check_number("beta", self.beta, least=0)

    @property
    def longest(self) -> float:
        """How long any entry may be good for anything."""
        return max(self.ttl + max(self.stale_for, self.stale_if_error), self.negative_ttl)

    def life(self, random: float, negative: bool = False) -> float:
        """Seconds until an entry expires; `random` is drawn from [0, 1)."""
        ttl = self.negative_ttl if negative else self.ttl
        return ttl * (1.0 - self.jitter * random)

    def entry(self, value: Any, now: float, duration: float, random: float) -> Entry:
        """An entry for a value that took `duration` to fetch."""
        expires = now + self.life(random)
        entry = Entry(value, expires, expires + self.stale_for, expires + self.stale_if_error, duration)
        entry.calm_until = expires - duration * self.beta * _LUCKIEST
        return entry

    def negative(self, value: Any, now: float, random: float, failed: bool) -> Entry:
        """An entry for an answer that says there is none: a value, or an error if `failed`."""
        expires = now + self.life(random, negative=True)
        return Entry(value, expires, expires, expires, 0.0, failed)

    def draw(self, random: float) -> float:
        """The luck of one look, from a number in [0, 1): exponential with mean `beta`."""
        return -self.beta * math.log(1.0 - random)


class CacheMachine:
    """Entries by key: at most `max_entries`, together at most `max_weight` as `weigh` weighs their values.

    The one that was not used for longest leaves first, in constant time. What is gone leaves at the next `put`, a
    slice of time late at most: `longest` is how long an entry lives, and its time is cut into eight slices.
    """

    def __init__(
        self,
        max_entries: int = 10_000,
        *,
        max_weight: float | None = None,
        weigh: Callable[[Any], float] | None = None,
        longest: float = 60.0,
    ) -> None:
        check_integer("max_entries", max_entries, 1)
        if max_weight is not None:
            check_number("max_weight", max_weight, above=0)
        if weigh is not None and not callable(weigh):
            raise TypeError(f"weigh must be a function of a value, got {weigh!r}")
        if (weigh is None) is not (max_weight is None):
            raise ValueError("weigh and max_weight must be given together")
        check_number("longest", longest, above=0)
        self.max_entries: int = max_entries
        self.max_weight: float = math.inf if max_weight is None else max_weight
        self.weight: float = 0.0
        """What all entries weigh; how many there are, without `weigh`."""
        self.evicted: int = 0
        """Entries that left for want of room, so far."""
        self._weigh = weigh
        self._slice = longest / _SLICES
        self._entries: OrderedDict[Hashable, tuple[Entry, float, int]] = OrderedDict()
        # Keys by the slice of time in which their entries are gone: sets, so that what leaves earlier leaves here too.
        self._ending: dict[int, set[Hashable]] = {}
        self._swept = 0

    def get(self, key: Hashable) -> Entry | None:
        """The entry of `key`, now the latest used; it may be gone already."""
        held = self._entries.get(key)
        if held is None:
            return None
        self._entries.move_to_end(key)
        return held[0]

    def find(self, key: Hashable) -> Entry | None:
        """The entry of `key`; changes nothing."""
        held = self._entries.get(key)
        return None if held is None else held[0]

    def put(self, key: Hashable, entry: Entry, now: float) -> bool:
        """Keep an entry in place of any other; False if it alone is too heavy.

        Raises ValueError or TypeError if `weigh` returned anything but a number of at least 0; then nothing changes.
        """
        weight = 1.0 if self._weigh is None or entry.failed else self._weigh(entry.value)
        check_number("weigh(value)", weight, least=0)
        self._sweep(now)
        self.drop(key)
        if weight > self.max_weight:
            return False
        ends = math.floor(entry.until / self._slice)
        self._entries[key] = (entry, weight, ends)
        self._ending.setdefault(ends, set()).add(key)
        self.weight += weight
        while len(self._entries) > self.max_entries or self.weight > self.max_weight:
            self.drop(next(iter(self._entries)))
            self.evicted += 1
        return True

    def drop(self, key: Hashable) -> bool:
        """Forget `key`; whether there was anything."""
        held = self._entries.pop(key, None)
        if held is None:
            return False
        _, weight, ends = held
        self.weight = self.weight - weight if self._entries else 0.0  # sums of fractions drift, an end is an end
        ending = self._ending[ends]
        ending.discard(key)
        if not ending:
            del self._ending[ends]
        return True

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._ending.clear()
        self.weight = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def _sweep(self, now: float) -> None:
        """Drop what was gone before this slice of time; looks only when a new one begins."""
        slice_now = math.floor(now / self._slice)
        if slice_now == self._swept:
            return
        self._swept = slice_now
        for ends in [ends for ends in self._ending if ends < slice_now]:
            for key in tuple(self._ending[ends]):
                self.drop(key)
