"""When a server wants to be asked again: `Retry-After` and its relatives.

    advised_delay({"retry-after": "1.5"}, now=time.time())  # 1.5

Servers write what they like into these fields. Whatever is there, reading it never raises: what is not understood
counts as absent, and whether a delay is too long to wait for is for `Retry` to decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from .moments import LONGEST, decimal, moment_of, seconds_until

_KINDS = ("", "-requests", "-tokens", "-input-tokens", "-output-tokens")
_PAIRS = tuple(
    (f"{prefix}-remaining{kind}", f"{prefix}-reset{kind}")
    for prefix in ("x-ratelimit", "x-rate-limit", "ratelimit")
    for kind in _KINDS[:3]
) + tuple((f"anthropic-ratelimit{kind}-remaining", f"anthropic-ratelimit{kind}-reset") for kind in _KINDS[1:])
"""What is left of a limit and when it is whole again, as OpenAI, GitHub, Anthropic and many others call it."""

_LIMIT = re.compile(r"(?:^|[;,\s])(r|t)\s*=\s*(\d{1,15})", re.ASCII)


def advised_delay(headers: Mapping[str, str], now: float, *, throttled: bool = True) -> float | None:
    """Seconds the server asks to wait, 0 or more; None if it says nothing that can be understood.

    `retry-after-ms` (milliseconds) goes before `Retry-After` (RFC 9110, section 10.2.3), being the more precise;
    both before the limits that are used up, of which the last to be whole again counts: `x-ratelimit-reset` with
    its relatives, and the `RateLimit` field of the IETF draft. A limit that says nothing of what is left counts only
    if `throttled`: that is, if limits were the reason for the answer.

    Values may be in any form that `seconds_until` knows. Moments are compared with the response's own `Date`, so that
    the clocks need not agree, or else with `now`, seconds since 1970. Names in `headers` are in lower case, unless
    the mapping ignores case as those of HTTP clients do.
    """
    milliseconds = decimal(headers.get("retry-after-ms", "").strip())
    if milliseconds is not None:
        return milliseconds / 1000
    sent = moment_of(headers.get("date", ""))
    now = now if sent is None else sent
    delay = seconds_until(headers.get("retry-after", "").strip(), now)
    return max(_resets(headers, now, throttled), default=None) if delay is None else delay


def _resets(headers: Mapping[str, str], now: float, throttled: bool) -> Iterator[float]:
    """Seconds until each limit that is used up is whole again."""
    for remaining, reset in _PAIRS:
        value = headers.get(reset)
        if value is None:
            continue
        delay = seconds_until(value.strip(), now)
        left = decimal(headers.get(remaining, "").strip())
        if delay is not None and (throttled if left is None else left <= 0):
            yield delay
    for item in headers.get("ratelimit", "")[: 20 * LONGEST].split(","):
        said = dict(_LIMIT.findall(item))
        if "t" in said and (int(said["r"]) == 0 if "r" in said else throttled):
            yield float(said["t"])
