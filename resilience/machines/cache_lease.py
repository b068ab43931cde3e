"""An entry that several processes share, and the lease by which one of them fetches it for all.

    shared = SharedEntry()
    shared.look(now=0, token="a", lease=5e6, draw=0.0)      # Look("lease"): fetch, and store with that token
    shared.look(now=1, token="b", lease=5e6, draw=0.0)      # Look("wait", left=4999999): somebody does
    shared.store(2, "a", "value", "text", 6e7, 0, 0, 0.5e6)

A lease ends by itself, so that whoever fetches may crash; only its holder can store, renew or release. What is
put or dropped meanwhile ends it: a fetch that began before cannot store what it saw. The same as `cache.lua`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from .cache import EARLY, FRESH, SPARE, STALE, Entry


class Look(NamedTuple):
    """What a look found, and what is to be done.

    `fresh`, `stale` and `spare`: serve. `early` and `refresh`: serve what is fresh or stale, and fetch with the lease
    that was taken. `lease`: fetch, and on an error serve the spare if there is one. `wait`: another holds the lease,
    for `left` more. `none`: a look without a token, which takes no lease, found nothing.
    """

    state: str
    kind: str = ""
    payload: str = ""
    left: float = 0.0


class SharedEntry:
    """One entry and its lease. `kind` is a word of the caller's that says what the payload is."""

    def __init__(self) -> None:
        self.entry: Entry | None = None
        self.kind: str = ""
        self.token: str = ""
        """Whose lease it is; empty without one."""
        self.lease_until: float = -math.inf
        self.expected: bool = False
        """Whether somebody was told to wait, and has to hear of the end."""

    def look(self, now: float, token: str, lease: float, draw: float) -> Look:
        """Serve, take a lease of that length, or wait. `draw` is the luck of an early refresh."""
        free = token != "" and (now >= self.lease_until or self.token in ("", token))
        entry = self.entry
        if entry is not None:
            freshness = entry.freshness(now, draw)
            if freshness is FRESH:
                return self._served("fresh", entry)
            paused = now < entry.paused_until
            if freshness in (EARLY, STALE):
                if free and not paused:
                    self._take(now, token, lease)
                    return self._served("early" if freshness is EARLY else "refresh", entry)
                return self._served("fresh" if freshness is EARLY else "stale", entry)
            if freshness is SPARE and paused:
                return self._served("spare", entry)
            if freshness is not SPARE:
                entry = None
        found = Look("") if entry is None else self._served("", entry)
        if token == "":
            return Look("none")
        if free:
            self._take(now, token, lease)
            return found._replace(state="lease")
        self.expected = True
        return found._replace(state="wait", left=self.lease_until - now)

    def store(
        self,
        now: float,
        token: str,
        kind: str,
        payload: str,
        life: float,
        stale_for: float,
        spare_for: float,
        duration: float,
    ) -> bool:
        """Keep a value and end the lease; False if a token is given and its lease is no more. No token: put."""
        if token not in ("", self.token):
            return False
        expires = now + life
        self.entry = Entry(payload, expires, expires + stale_for, expires + spare_for, duration)
        self.kind = kind
        self._end()
        return True

    def renew(self, now: float, token: str, lease: float) -> bool:
        """Hold the lease for longer; False if it is another's, or nobody's."""
        if token == "" or token != self.token:
            return False
        self.lease_until = now + lease
        return True

    def release(self, now: float, token: str, pause: float) -> bool:
        """End the lease without a value; what is kept is not refreshed for `pause`. False if it is another's."""
        if token == "" or token != self.token:
            return False
        if self.entry is not None and pause > 0:
            self.entry.paused_until = now + pause
        self._end()
        return True

    def drop(self) -> bool:
        """Forget the value and end the lease; whether there was a value."""
        had, self.entry = self.entry is not None, None
        self._end()
        return had

    def _served(self, state: str, entry: Entry) -> Look:
        return Look(state, self.kind, entry.value)

    def _take(self, now: float, token: str, lease: float) -> None:
        self.token = token
        self.lease_until = now + lease

    def _end(self) -> None:
        self.token = ""
        self.lease_until = -math.inf
        self.expected = False
