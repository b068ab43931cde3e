"""What one request may say for itself.

await client.post(url, extensions={"resilience": {"key": tenant, "cost": 5, "retry": True}})
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, cast

from resilience._validate import not_negative
from resilience.policy import Policy

from .stream_timeout import StreamTimeout

EXTENSION = "resilience"
"""Our name in the extensions of requests and responses."""

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"})
"""Methods that mean the same when sent twice (RFC 9110, section 9.2.2), and QUERY, a GET with a body."""


class Overrides(TypedDict, total=False):
    """The keys of `extensions["resilience"]` of a request; every one may be left out."""

    key: str
    """The partition (tenant, host) for policies that keep state per key."""
    cost: float
    """What the request weighs in rate limiters."""
    retry: bool
    """Whether it may be sent again, whatever its method. A body that cannot be replayed is never sent again."""
    policy: Policy | None
    """Another policy for this request; None sends it without any."""
    name: str
    """The name of the operation in events and errors."""
    idempotency_key: str | bool
    """The `Idempotency-Key` to send every time; True for one that is made up, False for none of ours."""
    stream_timeout: StreamTimeout | None
    """Other limits on the parts of the response; None for none."""


_NONE = Overrides()


def read_overrides(extensions: Mapping[str, Any]) -> Overrides:
    """The overrides of a request. Raises TypeError or ValueError for an unknown key or a wrong value."""
    given = extensions.get(EXTENSION)
    if given is None:
        return _NONE
    if not isinstance(given, Mapping):
        raise TypeError(f"extensions[{EXTENSION!r}] must be a mapping, got {given!r}")
    values = cast("Mapping[str, Any]", given)
    for field, value in values.items():
        if field not in Overrides.__annotations__:
            known = ", ".join(Overrides.__annotations__)
            raise ValueError(f"extensions[{EXTENSION!r}] has no key {field!r}; its keys are {known}")
        _check(field, value)
    return cast("Overrides", values)


def _check(field: str, value: Any) -> None:
    if field == "cost":
        not_negative("cost", value)
        return
    kinds: dict[str, tuple[type, ...]] = {
        "key": (str,),
        "retry": (bool,),
        "policy": (Policy, type(None)),
        "name": (str,),
        "idempotency_key": (str, bool),
        "stream_timeout": (StreamTimeout, type(None)),
    }
    if not isinstance(value, kinds[field]):
        wanted = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds[field])
        raise TypeError(f"{field} must be a {wanted}, got {value!r}")
