"""What guards that may refuse a call have in common: modes, the count of refusals, and the event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Literal, TypeAlias, TypeVar
from weakref import WeakSet

from ._validate import one_of
from .call import Call
from .errors import RejectedError
from .events import CallRejected, Listener
from .policy import Guard

Token = TypeVar("Token")

Mode: TypeAlias = Literal["enforce", "shadow", "off"]
"""`enforce`: refuse. `shadow`: decide, count and report, but let every call pass. `off`: do nothing at all."""


class Switch:
    """On while all of several guards enforce: one look for a frame that would have to look at each."""

    __slots__ = ("__weakref__", "_guards", "on")

    def __init__(self, guards: Sequence[RejectingGuard[Any]]) -> None:
        self._guards = guards
        self.turn()
        for guard in guards:
            guard.connect(self)

    def turn(self) -> None:
        """Look at the guards again."""
        self.on: bool = all(guard.enforced for guard in self._guards)


class RejectingGuard(Guard[Token], Generic[Token]):
    """A guard with a mode, which may be changed at any time."""

    def __init__(self, name: str | None, listeners: Sequence[Listener], mode: Mode, keyed: bool) -> None:
        super().__init__(name, listeners)
        self._switches: WeakSet[Switch] = WeakSet()
        self.mode = mode
        self.keyed = keyed
        self.rejected: int = 0
        """Calls refused so far, those of shadow mode included."""

    @property
    def mode(self) -> Mode:
        """`enforce`, `shadow` or `off`. Setting anything else raises ValueError."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        one_of("mode", mode, ("enforce", "shadow", "off"))
        self._mode: Mode = mode
        self.enforced: bool = mode == "enforce"
        for switch in self._switches:
            switch.turn()

    def connect(self, switch: Switch) -> None:
        """Tell `switch` whenever the mode changes."""
        self._switches.add(switch)

    def key_of(self, call: Call) -> str:
        """The partition of a call: its key, or one for all if this guard is not keyed."""
        return call.key if self.keyed else ""

    def partition(self, key: str) -> str:
        """The partition of a key: itself, or one for all if this guard is not keyed."""
        return key if self.keyed else ""

    def reject(self, call: Call, error: RejectedError) -> None:
        """Count and report a refusal; raises `error` unless in shadow mode."""
        self.rejected += 1
        shadow = self._mode == "shadow"
        if self.listeners:
            self.emit(CallRejected(call.operation.name, self.name, error, error.retry_after, shadow))
        if not shadow:
            raise error
