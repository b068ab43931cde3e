"""Checks of options: they raise an error that names the field and the rule."""

from __future__ import annotations

import math


def check_integer(name: str, value: object, least: int) -> None:
    """Refuse what is not an integer (a bool is none) of at least `least`, naming the field and the rule."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")


def check_number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
) -> None:
    """Refuse what is not a finite number (a bool is none) in the bounds, naming the field and the rule."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value!r}")
    if above is not None and value <= above:
        raise ValueError(f"{name} must be greater than {above}, got {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most}, got {value!r}")


def number(field: str, value: float) -> float:
    """A finite number."""
    check_number(field, value)
    return value


def positive(field: str, value: float) -> float:
    """A finite number above 0."""
    check_number(field, value, above=0)
    return value


def not_negative(field: str, value: float) -> float:
    """A finite number, 0 or above."""
    check_number(field, value, least=0)
    return value


def at_most(field: str, value: float, bound: float) -> float:
    """A number that is not above `bound`."""
    check_number(field, value, most=bound)
    return value


def whole(field: str, value: int, least: int) -> int:
    """An integer, `least` or above."""
    check_integer(field, value, least)
    return value


def one_of(field: str, value: str, choices: tuple[str, ...]) -> str:
    """One of a few words."""
    if value not in choices:
        raise ValueError(f"{field} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value
