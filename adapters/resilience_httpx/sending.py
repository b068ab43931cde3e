"""How requests are sent: which may be sent again, and what headers every attempt gets.

sending = Sending(frozenset({"GET"}), retry_unsent=True, idempotency_key=True)
sending.claim(request, overrides)      # an Idempotency-Key, if it is to have one
sending.repeatable(request, overrides)
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from resilience import clock
from resilience.call import Call
from resilience.running._deadlines import deadline_of

from .overrides import Overrides

IDEMPOTENCY_KEY = "Idempotency-Key"

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)


@dataclass(frozen=True)
class Sending:
    """The options of a transport that concern single requests; checked when made."""

    methods: frozenset[str]
    retry_unsent: bool = True
    idempotency_key: bool | Callable[[Any], str] = False
    attempt_header: str | None = None
    deadline_header: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.retry_unsent, bool):
            raise TypeError(f"retry_unsent must be a bool, got {self.retry_unsent!r}")
        if not isinstance(self.idempotency_key, bool) and not callable(self.idempotency_key):
            raise TypeError(f"idempotency_key must be a bool or a function, got {self.idempotency_key!r}")
        for field in ("attempt_header", "deadline_header"):
            name: Any = getattr(self, field)
            if name is not None and not (isinstance(name, str) and _TOKEN.fullmatch(name)):
                raise ValueError(f"{field} must be the name of a header, got {name!r}")

    @property
    def announces(self) -> bool:
        """Whether attempts get headers of their own."""
        return self.attempt_header is not None or self.deadline_header is not None

    def claim(self, request: Any, overrides: Overrides) -> None:
        """Give a request an `Idempotency-Key` if it is to have one, and has none.

        The request itself gets it: the client copies it to where it is redirected, and sends it again with it.
        """
        told = overrides.get("idempotency_key")
        if told is False or IDEMPOTENCY_KEY in request.headers:
            return
        if told is None and (not self.idempotency_key or request.method in self.methods):
            return
        request.headers[IDEMPOTENCY_KEY] = told if isinstance(told, str) else self._made_up(request)

    def _made_up(self, request: Any) -> str:
        return self.idempotency_key(request) if callable(self.idempotency_key) else str(uuid4())

    def repeatable(self, request: Any, overrides: Overrides) -> bool:
        """Whether the sender allows that a request is sent again.

        What the request says itself decides; else its method, or an `Idempotency-Key`, with which a server recognises
        a repetition.
        """
        told = overrides.get("retry")
        return (request.method in self.methods or IDEMPOTENCY_KEY in request.headers) if told is None else told

    def announce(self, headers: Any, attempt: int, call: Call) -> None:
        """Tell the server which attempt this is, and how long its answer is of use."""
        if self.attempt_header is not None:
            headers[self.attempt_header] = str(attempt)
        if self.deadline_header is None:
            return
        deadline = deadline_of(call)
        if deadline != math.inf:
            left = max(0.0, deadline - clock.now())
            in_milliseconds = self.deadline_header.lower().endswith("-ms")
            headers[self.deadline_header] = f"{left * 1000:.0f}" if in_milliseconds else f"{left:.3f}"
