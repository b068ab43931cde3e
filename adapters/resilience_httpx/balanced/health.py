"""Active health checks: what is asked of every endpoint in the background, and what counts as well.

HealthCheck("/health", interval=5.0, timeout=1.0)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio

from resilience._validate import check_number
from resilience.machines.balancing import HealthRule

from ..host import host_of
from .endpoint import addressed
from .members import Member


def _ok(response: Any) -> bool:
    return bool(200 <= response.status_code < 300)


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A GET of `path` at every endpoint, every `interval` (5 s), which may take `timeout` (1 s).

    `jitter` (0.1) varies the interval by that part, up and down, so that clients do not check in step. After
    `unhealthy_after` (3) checks in a row that did not pass an endpoint gets no requests, after `healthy_after` (2) that
    did it gets them again. A check passes with a status of 200 to 299, or as `passes(response)` says.

    Raises TypeError or ValueError for values out of range.
    """

    path: str = "/"
    interval: float = 5.0
    timeout: float = 1.0
    healthy_after: int = 2
    unhealthy_after: int = 3
    jitter: float = 0.1
    passes: Callable[[Any], bool] = _ok

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path.startswith("/"):
            raise ValueError(f"path must begin with a slash, got {self.path!r}")
        check_number("interval", self.interval, above=0)
        check_number("timeout", self.timeout, above=0)
        check_number("jitter", self.jitter, least=0, most=1)
        HealthRule(self.healthy_after, self.unhealthy_after)
        if not callable(self.passes):
            raise TypeError(f"passes must be a function of the response, got {self.passes!r}")

    @property
    def rule(self) -> HealthRule:
        """How many checks it takes."""
        return HealthRule(self.healthy_after, self.unhealthy_after)

    def pause(self, draw: float) -> float:
        """Seconds to the next round; `draw` is uniform in [0, 1)."""
        return self.interval * (1 + self.jitter * (2 * draw - 1))

    async def check(self, member: Member, kind: type[Any], host: str) -> bool | None:
        """Make one check with a request of class `kind`; None if no connection was free, which says nothing."""
        limits = {"connect": self.timeout, "read": self.timeout, "write": self.timeout, "pool": self.timeout / 2}
        url = f"{member.endpoint.parts.scheme}://{member.endpoint.parts.netloc}{self.path}"
        request = kind("GET", url, extensions={"timeout": limits})
        passed = False
        with anyio.move_on_after(self.timeout):
            try:
                response = await member.transport(host_of(request)).handle_async_request(
                    addressed(request, member.endpoint, host)
                )
                try:
                    await response.aread()
                    passed = self.passes(response)
                finally:
                    await response.aclose()
            except Exception as error:
                return None if type(error).__name__ == "PoolTimeout" else False
        return passed
