"""Values as parts of keys: told from all that are merely equal to them, and as text that every process understands.

freeze((1, True)) == freeze((1, True)) != freeze((1.0, 1))
say(freeze((1, True)))         # "tuple(int:1,bool:True)"
"""

from __future__ import annotations

import dataclasses
import enum
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias, cast

Frozen: TypeAlias = "tuple[type, Any]"
"""A value with its type, so that no two that are merely equal are taken for each other."""

PLAIN: frozenset[type] = frozenset({str, bytes, int, bool, type(None)})
"""Types whose values, of one type, are equal only if they are the same for every purpose."""

_SPOKEN = frozenset(
    {
        "datetime.date",
        "datetime.datetime",
        "datetime.time",
        "datetime.timedelta",
        "decimal.Decimal",
        "fractions.Fraction",
        "uuid.UUID",
    }
)
"""Types of the standard library whose `repr` says more than their equality does, and the same in every process."""


def freeze(value: Any) -> Frozen:
    """The value as a part of a key. Raises TypeError if it cannot be hashed."""
    kind = kind_of(value)
    if kind in PLAIN:
        return kind, value
    if kind is float:
        return kind, value.hex()  # tells -0.0 from 0.0, and a NaN is equal to itself
    if tuple in kind.__mro__:
        return kind, tuple(freeze(each) for each in value)
    if frozenset in kind.__mro__:
        return kind, frozenset(freeze(each) for each in value)
    if _is_frozen_dataclass(kind):
        return kind, tuple(freeze(getattr(value, field.name)) for field in dataclasses.fields(value) if field.compare)
    if _word(kind) in _SPOKEN:
        return kind, repr(value)
    hash(value)
    return kind, value


def kind_of(value: object) -> type:
    """The type of a value, for type checkers too."""
    return type(value)


def _is_frozen_dataclass(kind: type) -> bool:
    rules = getattr(kind, "__dataclass_params__", None)
    return rules is not None and bool(rules.frozen and rules.eq)


def _word(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def say(frozen: Frozen) -> str:
    """A frozen value as text. Raises TypeError for one that means something only in this process."""
    kind, content = frozen
    word = _word(kind)
    if kind in PLAIN or kind is float or word in _SPOKEN:
        return f"{word}:{content!r}"
    if isinstance(content, tuple):
        return f"{word}({','.join(say(each) for each in cast('tuple[Frozen, ...]', content))})"
    if isinstance(content, frozenset):
        return f"{word}({','.join(sorted(say(each) for each in cast('frozenset[Frozen]', content)))})"
    if isinstance(content, enum.Enum):
        return f"{word}.{content.name}"
    if isinstance(content, Instance):
        content = content.value
        if not isinstance(content, type):
            raise TypeError(f"a {type(content).__name__} counts by its identity")
    if isinstance(content, type):
        return f"type:{content.__module__}.{content.__qualname__}"
    raise TypeError(f"a {word} has no form that is the same everywhere")


class Instance:
    """An object by its identity, without keeping it alive if that can be helped."""

    __slots__ = ("_held", "_id", "_reference")

    def __init__(self, value: Any) -> None:
        self._id = id(value)
        self._held: Any = None
        try:
            self._reference: Callable[[], Any] = weakref.ref(value)
        except TypeError:
            self._held = value
            self._reference = lambda: value

    @property
    def value(self) -> Any:
        return self._reference()

    def __hash__(self) -> int:
        return self._id

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Instance) or self._id != other._id:
            return False
        mine = self._reference()
        return mine is not None and mine is other._reference()  # an id may be given out again
