"""Durations and moments as servers write them, which is in every way there is.

    seconds_until("1m3.5s", now)                 # 63.5, and "60ms" 0.06
    seconds_until("2026-11-22T21:50:38Z", now)   # seconds from now, 0.0 if it has passed

Nothing here raises: what is not understood is None. Numbers too large for any pause are moments.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST = 100
"""Characters of a value that is still read: no date and no number of any use has more."""

_EPOCH_SECONDS, _EPOCH_MILLISECONDS = 1e9, 1e11
"""From here on a number is a moment, in seconds or milliseconds since 1970: a pause would be longer than 31 years."""

_DECIMAL = re.compile(r"\d+(\.\d*)?|\.\d+", re.ASCII)
_PART = r"(?:\d+(?:\.\d*)?|\.\d+)"
_GO = re.compile(rf"(?:{_PART}(?:ns|us|\u00b5s|\u03bcs|ms|s|m|h|d))+", re.ASCII)
_GO_PART = re.compile(rf"({_PART})(ns|us|\u00b5s|\u03bcs|ms|s|m|h|d)", re.ASCII)
_UNITS = {"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "\u03bcs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_UNITS["d"] = 86_400.0
_RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)?", re.ASCII)


def seconds_until(value: str, now: float) -> float | None:
    """Seconds from `now` (since 1970) that a value means, 0 or more; None if it is not understood.

    Understood are decimal seconds, durations as Go writes them (`1m3.5s`, `60ms`; `d` is a day), seconds and
    milliseconds since 1970, RFC 3339, and the three formats of dates in HTTP.
    """
    number = decimal(value)
    if number is None:
        number = _go_duration(value)
    elif number >= _EPOCH_SECONDS:
        moment = number / 1000 if number >= _EPOCH_MILLISECONDS else number
        return max(0.0, moment - now)
    if number is not None:
        return number
    moment_or_none = moment_of(value)
    return None if moment_or_none is None else max(0.0, moment_or_none - now)


def decimal(value: str) -> float | None:
    """A number without a sign or an exponent, finite."""
    if len(value) > LONGEST or not _DECIMAL.fullmatch(value):
        return None
    return float(value)


def moment_of(value: str) -> float | None:
    """Seconds since 1970 of a date in RFC 3339 or any format of HTTP; without a zone it is UTC."""
    if len(value) > LONGEST:
        return None
    try:
        date = _rfc_3339(value) or parsedate_to_datetime(value)
        moment = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError, AttributeError):
        return None
    return moment if math.isfinite(moment) else None


def _rfc_3339(value: str) -> datetime | None:
    found = _RFC_3339.fullmatch(value)
    if found is None:
        return None
    day, time, fraction, zone = found.groups()
    # Python reads six digits of a second, Go writes up to nine.
    return datetime.fromisoformat(f"{day}T{time}{(fraction or '.')[:7].ljust(7, '0')}{(zone or 'Z').upper()}")


def _go_duration(value: str) -> float | None:
    if len(value) > LONGEST or not _GO.fullmatch(value):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _GO_PART.findall(value))
