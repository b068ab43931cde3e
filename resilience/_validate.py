"""Checks of options: each returns the value or raises an error that names the field and the rule."""

from __future__ import annotations

import math


def number(field: str, value: float) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{field} must be a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{field} must be finite, got {value!r}")
    return value


def positive(field: str, value: float) -> float:
    """A finite number above 0."""
    if number(field, value) <= 0:
        raise ValueError(f"{field} must be greater than 0, got {value!r}")
    return value


def not_negative(field: str, value: float) -> float:
    """A finite number, 0 or above."""
    if number(field, value) < 0:
        raise ValueError(f"{field} must be at least 0, got {value!r}")
    return value


def at_most(field: str, value: float, bound: float) -> float:
    """A number that is not above `bound`."""
    if value > bound:
        raise ValueError(f"{field} must be at most {bound:g}, got {value!r}")
    return value


def whole(field: str, value: int, least: int) -> int:
    """An integer, `least` or above."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{field} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{field} must be at least {least}, got {value!r}")
    return value


def one_of(field: str, value: str, choices: tuple[str, ...]) -> str:
    """One of a few words."""
    if value not in choices:
        raise ValueError(f"{field} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value
