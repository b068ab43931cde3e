"""Server-sent events that carry JSON, read while they pass by.

    reader = EventReader()
    reader.feed(b'data: {"a"')       # []
    reader.feed(b': 1}\\n\\n')       # [{"a": 1}]

A reader holds one unfinished event at most (WHATWG HTML, section 9.2.6; lines end in LF or CRLF).
"""

from __future__ import annotations

from typing import Any

from .model_call import json_value

MOST = 16 * 2**20
"""Bytes of one event; a longer one is passed over."""


class EventReader:
    """Turns chunks of bytes, cut anywhere, into the JSON values of the events that they complete."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []
        self._held = 0

    def feed(self, chunk: bytes) -> list[Any]:
        """The values completed by a chunk; what is no JSON is passed over."""
        found: list[Any] = []
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            self._keep(part)
            line = bytes(self._line).removesuffix(b"\r")
            self._line.clear()
            if line.startswith(b"data:"):
                self._data.append(line[5:])
            elif not line:
                found += self.end()
        self._keep(rest)
        return found

    def end(self) -> list[Any]:
        """The value of the event that is whole, if there is one: at an empty line, or at the end of a stream."""
        data, self._data = b"\n".join(self._data), []
        whole, self._held = self._held <= MOST, 0
        value = json_value(data) if data and whole else None
        return [] if value is None else [value]

    def _keep(self, part: bytes) -> None:
        self._held += len(part)
        if self._held <= MOST:
            self._line += part
