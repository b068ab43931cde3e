"""State per key, bounded: what is idle leaves by itself, what still means something stays.

machines = Partitions(lambda: CircuitBreakerMachine(rule), droppable=lambda m: m.admission is not None)
machines.get("https://api.example")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from ._validate import whole

M = TypeVar("M")


class Partitions(Generic[M]):
    """At most about `max_keys` states, least recently used first out.

    A state for which `droppable` is false (an open circuit, a permit in use) is never dropped, even if that
    means more than `max_keys` of them. Two generations instead of a list in order of use: a reading costs one
    look-up, and a turn of the generations is paid for by the keys that were added since the last.
    """

    def __init__(self, make: Callable[[], M], droppable: Callable[[M], bool], max_keys: int = 10_000) -> None:
        self.make = make
        """Makes the state of a new key; may be replaced."""
        self._droppable = droppable
        self._half = max(1, whole("max_keys", max_keys, 1) // 2)
        self._young: dict[str, M] = {}
        self._old: dict[str, M] = {}

    def get(self, key: str) -> M:
        """The state of `key`, made if there is none."""
        state = self._young.get(key)
        return self._revive(key) if state is None else state

    def recent(self, key: str) -> M | None:
        """The state of `key` if it is of the younger generation; changes nothing, also for those that look after it."""
        return self._young.get(key)

    def find(self, key: str) -> M | None:
        """The state of `key` if there is one; changes nothing."""
        state = self._young.get(key)
        return self._old.get(key) if state is None else state

    def drop(self, key: str) -> None:
        """Forget `key`."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    def items(self) -> Iterator[tuple[str, M]]:
        """All keys with their states, oldest generation first."""
        yield from list(self._old.items())
        yield from list(self._young.items())

    def values(self) -> list[M]:
        """All states."""
        return [*self._old.values(), *self._young.values()]

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def _revive(self, key: str) -> M:
        state = self._old.pop(key, None)
        if state is None:
            state = self.make()
        if len(self._young) >= self._half:
            self._turn()
        self._young[key] = state
        return state

    def _turn(self) -> None:
        droppable = self._droppable
        kept = {key: state for key, state in self._old.items() if not droppable(state)}
        kept.update(self._young)
        self._old, self._young = kept, {}
        if "" in kept:  # calls without a key all share this one, and engines hold on to it
            self._young[""] = kept.pop("")
