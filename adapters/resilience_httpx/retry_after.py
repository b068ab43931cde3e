"""When a server wants to be asked again: `Retry-After` and its relatives.

    advised_delay({"retry-after": "1.5"}, now=time.time())  # 1.5

Servers write what they like into these fields. Whatever is there, reading it never raises: what is not understood
counts as absent, and whether a delay is too long to wait for is for `Retry` to decide.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

_DECIMAL = re.compile(r"\d+(\.\d*)?|\.\d+", re.ASCII)


def advised_delay(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds the server asks to wait, 0 or more; None if it says nothing that can be understood.

    `retry-after-ms` (milliseconds) goes before `Retry-After` (RFC 9110, section 10.2.3: seconds or a date; decimal
    seconds are understood too), being the more precise. A date is compared with the response's own `Date`, so that
    the clocks need not agree, or else with `now`, seconds since the epoch. Names in `headers` are in lower case,
    unless the mapping ignores case as those of HTTP clients do.
    """
    for name, read in _FIELDS:
        value = headers.get(name)
        if value is not None:
            delay = read(value.strip(), headers, now)
            if delay is not None:
                return delay
    return None


def _milliseconds(value: str, headers: Mapping[str, str], now: float) -> float | None:
    number = _decimal(value)
    return None if number is None else number / 1000


def _seconds_or_date(value: str, headers: Mapping[str, str], now: float) -> float | None:
    number = _decimal(value)
    if number is not None:
        return number
    until = _http_date(value)
    if until is None:
        return None
    sent = _http_date(headers.get("date", ""))
    return max(0.0, until - (now if sent is None else sent))


def _decimal(value: str) -> float | None:
    if not _DECIMAL.fullmatch(value):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _http_date(value: str) -> float | None:
    """Seconds since the epoch of a date in any of the three formats of HTTP; without a zone it is UTC."""
    try:
        date = parsedate_to_datetime(value)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


_FIELDS: tuple[tuple[str, Callable[[str, Mapping[str, str], float], float | None]], ...] = (
    ("retry-after-ms", _milliseconds),
    ("retry-after", _seconds_or_date),
)
"""Fields that advise a delay and how to read them, the most trusted first."""
