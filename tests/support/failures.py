"""Errors and predicates that tests of policies share."""

from __future__ import annotations

from typing import Any


class DownError(ConnectionError):
    """The dependency's failure; a new one for each attempt, since errors gather notes."""


def is_bad(value: Any) -> bool:
    return isinstance(value, str) and value == "bad"


def is_down(error: Exception) -> bool:
    return isinstance(error, DownError)


def always(value: Any) -> bool:
    return True


def broken(value: Any) -> bool:
    raise ZeroDivisionError("a broken predicate")
