"""What passes by in the body of an answer, and what it says was used.

    tally = Tally(OPENAI, host, response)
    tally.take(chunk)
    tally.used(estimate)

Events of a stream are read one by one and forgotten; a JSON answer is kept until it is whole, for only then it can
be read, and so is one that is compressed.
"""

from __future__ import annotations

from typing import Any

from resilience_httpx.host import Host

from .estimate import Estimate
from .model_call import json_value
from .profile import Profile
from .sse import EventReader
from .usage import Meter

MOST = 16 * 2**20
"""Bytes of an answer that are kept; of a longer one that is no stream of events, the estimate stands."""


class Tally:
    """Reads along in the body of one response. Never raises, whatever passes."""

    def __init__(self, profile: Profile, host: Host, response: Any) -> None:
        self._meter = Meter(profile)
        self._host = host
        self._encoding: str = response.headers.get("content-encoding", "identity")
        self._events = EventReader() if "event-stream" in response.headers.get("content-type", "") else None
        self._kept: bytearray | None = bytearray()

    def take(self, chunk: bytes) -> None:
        """Take in a part of the body as it was received."""
        if self._events is not None and self._encoding == "identity":
            self._see(chunk)
        elif self._kept is not None:
            self._kept += chunk
            if len(self._kept) > MOST:
                self._kept = None

    def whole(self, content: bytes) -> None:
        """Take in a body that is in memory and not compressed."""
        self._encoding = "identity"
        self.take(content)

    def used(self, estimate: Estimate) -> Estimate | None:
        """Tokens used by all that has passed; None if nothing could be understood, so that the estimate stands."""
        if self._events is not None and self._encoding == "identity":
            for value in self._events.end():
                self._meter.see(value)
        elif self._kept is not None:
            content = self._decoded(bytes(self._kept))
            if self._events is None:
                self._meter.see(json_value(content))
            else:
                self._see(content)
        understood = self._meter.seen or self._events is not None
        return self._meter.used(estimate) if understood else None

    def _see(self, chunk: bytes) -> None:
        assert self._events is not None
        for value in self._events.feed(chunk):
            self._meter.see(value)

    def _decoded(self, content: bytes) -> bytes:
        try:
            decoded: bytes = self._host.Response(
                200, headers={"content-encoding": self._encoding}, content=content
            ).content
        except Exception:  # whatever a decoder raises for a body that was cut
            return b""
        return decoded
