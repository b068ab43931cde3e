"""How a process calls the upstream, and the way it is mostly done: a timeout, and retries at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress

import httpx2

from .child import Job
from .plan import ATTEMPT_TIMEOUT, NAIVE_RETRIES


class Caller(ABC):
    """How one kind of process calls the upstream."""

    client: httpx2.AsyncClient

    @abstractmethod
    async def get(self) -> httpx2.Response:
        """One call, as the application sees it."""

    def breaker(self) -> str | None:
        """The state of the circuit."""
        return None

    def held(self) -> int:
        """Permits in use or waited for."""
        return 0

    async def __aenter__(self) -> Caller:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()


class Naive(Caller):
    """A timeout, and retries at once."""

    def __init__(self, job: Job) -> None:
        self.client: httpx2.AsyncClient = httpx2.AsyncClient(base_url=job.url, timeout=ATTEMPT_TIMEOUT, trust_env=False)

    async def get(self) -> httpx2.Response:
        """Try until it works or the retries are used up."""
        for _ in range(NAIVE_RETRIES):
            with suppress(httpx2.TransportError):
                response = await self.client.get("/")
                if response.status_code < 500:
                    return response
        return await self.client.get("/")
