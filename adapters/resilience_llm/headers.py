"""What a provider says of its limits in the headers of a response.

    told(response.headers, OPENAI)     # [Told("requests", 59, 0), Told("tokens", 19500, 0)]

Understands the fields of the profile, and `RateLimit` of the IETF draft (draft-ietf-httpapi-ratelimit-headers-10, and
the form of version 07). Whatever is there, reading it never raises: what is not understood counts as absent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from .profile import Profile

LONGEST = 86_400.0
"""Seconds; who asks for a longer time is not believed."""

_NUMBER = re.compile(r"\d{1,15}(?:\.\d{0,9})?", re.ASCII)
_DURATION = re.compile(r"(?:(\d{1,9}(?:\.\d{0,9})?)(ms|us|µs|ns|d|h|m|s))+", re.ASCII)
_PART = re.compile(r"(\d{1,9}(?:\.\d{0,9})?)(ms|us|µs|ns|d|h|m|s)", re.ASCII)
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
# An item of a structured list: a string or token, and its parameters.
_ITEM = re.compile(
    r'\s*(?:"((?:[^"\\]|\\.){0,200})"|([A-Za-z*][^\s;,"]{0,200}))((?:\s*;\s*[a-z*][a-z0-9_.*-]{0,40}'
    r'(?:=(?:"(?:[^"\\]|\\.){0,200}"|[^\s;,"]{0,200}))?){0,20})\s*(?:,|$)',
    re.ASCII,
)
_PARAMETER = re.compile(r';\s*([a-z*][a-z0-9_.*-]*)=(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))', re.ASCII)
_OLD = re.compile(r"\s*(limit|remaining|reset)\s*=\s*(\d{1,15})", re.ASCII)


class Told(NamedTuple):
    """What remains of one limit according to a response, and the seconds in which nothing comes back."""

    dimension: str
    remaining: float
    reset_after: float


def told(headers: Mapping[str, str], profile: Profile) -> list[Told]:
    """Everything that the headers of a response say about limits; names are in lower case or in any."""
    own = (_of_profile(headers, each.dimension, each.remaining) for each in profile.headers)
    return [each for each in own if each is not None] + list(_of_draft(headers))


def exhausted_for(headers: Mapping[str, str], profile: Profile, now: float) -> float | None:
    """Seconds until the first limit of which nothing remains is whole again; None if no header says so.

    `now` is seconds since the epoch, for headers with a date.
    """
    resets = [
        seconds_until(headers.get(each.reset, ""), now)
        for each in profile.headers
        if number(headers.get(each.remaining, "")) == 0
    ]
    known = [each for each in resets if each is not None]
    known += [each.reset_after for each in _of_draft(headers) if each.remaining == 0]
    return min(known, default=None)


def number(text: str) -> float | None:
    """A number of at least 0; None for anything else."""
    text = text.strip()
    return float(text) if _NUMBER.fullmatch(text) else None


def seconds_until(text: str, now: float) -> float | None:
    """Seconds, from a duration as Go writes it (`1m3.5s`), a number of seconds, or a date (RFC 3339).

    None for anything else, and for more than a day.
    """
    text = text.strip()
    seconds = number(text)
    if seconds is None and len(text) < 100:
        if _DURATION.fullmatch(text):
            seconds = sum(float(count) * _SECONDS[unit] for count, unit in _PART.findall(text))
        else:
            until = _date(text)
            seconds = None if until is None else max(0.0, until - now)
    return seconds if seconds is not None and seconds <= LONGEST else None


def _of_profile(headers: Mapping[str, str], dimension: str, remaining: str) -> Told | None:
    left = number(headers.get(remaining, ""))
    # Their reset is when the bucket is full again; the first units are back at once.
    return None if left is None else Told(dimension, left, 0.0)


def _of_draft(headers: Mapping[str, str]) -> Iterator[Told]:
    """`RateLimit: "default";r=50;t=30`, its unit from `RateLimit-Policy: "default";q=100;w=60;qu="requests"`."""
    field = headers.get("ratelimit", "")[:2000]
    units = {name: given.get("qu", "") for name, given in _items(headers.get("ratelimit-policy", "")[:2000])}
    for name, given in _items(field):
        remaining, reset = number(given.get("r", "")), number(given.get("t", "0"))
        if remaining is not None and reset is not None and reset <= LONGEST:
            yield Told(_dimension(name, units.get(name, "")), remaining, reset)
    old = {name: float(value) for name, value in _OLD.findall(field)}
    if "remaining" in old and old.get("reset", 0.0) <= LONGEST:
        yield Told("requests", old["remaining"], old.get("reset", 0.0))


def _dimension(name: str, unit: str) -> str:
    """What a policy counts: its unit if it has one that is not the default, else what its name says."""
    said = (unit if unit not in ("", "requests") else name).replace("-", "_").lower()
    return next((each for each in ("input_tokens", "output_tokens", "tokens") if each in said), unit or "requests")


def _items(field: str) -> Iterator[tuple[str, dict[str, str]]]:
    place = 0
    while place < len(field) and (item := _ITEM.match(field, place)):
        place = max(item.end(), place + 1)
        yield item[1] or item[2] or "", {each[0]: each[1] or each[2] for each in _PARAMETER.findall(item[3])}


def _date(text: str) -> float | None:
    try:
        date = datetime.fromisoformat(text)
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None
