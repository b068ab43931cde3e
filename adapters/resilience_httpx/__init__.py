"""Policies under the HTTP client you have: a transport for httpx and for httpx2.

    from resilience_httpx import ResilientTransport

    client = httpx2.AsyncClient(transport=ResilientTransport(payments))

Needs either library: `anyresilience[httpx2]` or `anyresilience[httpx]`. Raises ImportError without both.
"""

from __future__ import annotations

from .classify import FAILURES, THROTTLED, http_classifier
from .exchange import Report
from .host import require_host
from .options import TransportOptions
from .overrides import IDEMPOTENT, Overrides
from .retry_after import advised_delay
from .transport import ResilientTransport

require_host()

__all__ = [
    "FAILURES",
    "IDEMPOTENT",
    "THROTTLED",
    "Overrides",
    "Report",
    "ResilientTransport",
    "TransportOptions",
    "advised_delay",
    "http_classifier",
]
