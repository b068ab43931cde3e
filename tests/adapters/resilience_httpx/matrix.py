"""Everything that can come together in one request, and what has to come of it.

for case in cases(http2=False):
    case.expected()   # how often it is sent, what the breaker counts, and the answer

The expectation is computed here from the rules in the documentation, not from the code.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from tests.support.http_server import Answer

ATTEMPTS = 3
PATIENCE = 0.5
"""Seconds for an attempt, where the server hangs."""

CONTENT = bytes(range(256)) * 100
OK = Answer(200, b"fine")
RESET_MID_BODY = Answer(200, b"ab?", ending="reset", pieces=2, pause=0.02)

FAULTS: dict[str, tuple[Answer, ...]] = {
    "none": (OK,),
    "not found": (Answer(404, b"no"), OK),
    "not implemented": (Answer(501, b"no"), OK),
    "503 once": (Answer(503, b"no"), OK),
    "503 chunked, large": (Answer(503, bytes(150_000), chunked=True, pieces=4), OK),
    "503 always": (Answer(503, b"no"),),
    "502, cut, 200": (Answer(502, b"no"), Answer(0, ending="cut"), OK),
    "429 with milliseconds": (Answer(429, b"slow", {"retry-after-ms": "3"}), OK),
    "429 with a Go duration": (Answer(429, b"slow", {"x-ratelimit-reset": "4ms"}), OK),
    "503 for an hour": (Answer(503, b"later", {"retry-after": "1h"}), OK),
    "503 with rubbish": (Answer(503, b"no", {"retry-after": "\x80soon", "x-ratelimit-reset": "NaN"}), OK),
    "reset": (Answer(0, ending="reset"), OK),
    "cut always": (Answer(0, ending="cut"),),
    "hang once": (Answer(0, ending="hang"), OK),
    "cut in the body": (Answer(200, b"fine", ending="cut"), OK),
    "reset in the body": (RESET_MID_BODY, OK),
    "503, cut in the body": (Answer(503, b"none", ending="cut"), OK),
    "no content": (Answer(204, b""),),
}
METHODS = ("GET", "PUT", "POST", "POST with key", "DELETE")
BODIES = ("none", "bytes", "multipart", "async file", "generator")


@dataclass(frozen=True)
class Expected:
    """What has to come of a case."""

    sends: int
    calls: int
    """What the breaker has counted in all, and as failures."""
    failures: int
    status: int
    """Of the answer; 0 if an error is raised."""
    body: bytes
    errors: tuple[str, ...]
    """Names of the classes of which the error may be."""


@dataclass(frozen=True)
class Case:
    """One request."""

    method: str
    body: str
    fault: str
    stream: bool
    redirect: int
    http2: bool

    @property
    def answers(self) -> tuple[Answer, ...]:
        answers = FAULTS[self.fault]
        if self.http2 and answers[0].status == 503 and answers[0].ending == "cut":
            # A response that is given up does not end its connection there, and the next request would be sent over
            # one that is cut. So only its stream is.
            return replace(answers[0], ending="reset"), *answers[1:]
        return answers

    @property
    def hangs(self) -> bool:
        return any(answer.ending == "hang" for answer in self.answers)

    @property
    def arriving(self) -> tuple[str, bytes]:
        """The method of the requests that meet the fault, and a part of their body."""
        if self.redirect == 303:
            return "GET", b""
        return self.method.split()[0], b"" if self.body == "none" else CONTENT

    def request(self) -> dict[str, Any]:
        """The arguments for the client."""
        bodies: dict[str, Any] = {
            "none": {},
            "bytes": {"content": CONTENT},
            "multipart": {"files": {"a": ("name", io.BytesIO(CONTENT))}, "data": {"b": "2"}},
            "async file": {"content": File(CONTENT)},
            "generator": {"content": generated()},
        }
        headers = {"Idempotency-Key": "7"} if "key" in self.method else {}
        return {"method": self.method.split()[0], "headers": headers, **bodies[self.body]}

    def expected(self) -> Expected:
        """By the rules: who may be sent again, what is a failure, and what is left when nothing more is tried."""
        may_repeat = self.redirect == 303 or (self.method != "POST" and self.body != "generator")
        redirected = 1 if self.redirect else 0  # the answer before was a success
        calls, failures, sends = redirected, 0, 0
        while True:
            answer = self.answers[min(sends, len(self.answers) - 1)]
            sends += 1
            failed = not answer.status or answer.status in (502, 503) or self._breaks_off(answer)
            calls += failed or answer.status not in (429, 501)
            failures += failed
            asks_again = not answer.status or answer.status in (429, 502, 503)
            too_late = answer.headers.get("retry-after") == "1h"
            if not asks_again or not may_repeat or too_late or sends == ATTEMPTS:
                break
        errors = self._errors(answer)
        return Expected(sends, calls, failures, 0 if errors else answer.status, answer.body, errors)

    def _breaks_off(self, answer: Answer) -> bool:
        return answer.ending != "complete"

    def _errors(self, answer: Answer) -> tuple[str, ...]:
        if answer.ending == "hang":
            return ("TimedOutError", "TimeoutException")
        if answer.ending == "reset" and not self.http2:
            return ("ReadError",)
        return () if answer.ending == "complete" else ("RemoteProtocolError",)


def cases(http2: bool) -> Iterator[Case]:
    """All that make sense."""
    for method, body, fault, stream, redirect in product(METHODS, BODIES, FAULTS, (False, True), (0, 303, 307)):
        if method == "GET" and body != "none":
            continue
        if redirect == 307 and body in ("generator", "async file"):
            continue  # the client itself has nothing left of them for the second place
        yield Case(method, body, fault, stream, redirect, http2)


async def generated() -> AsyncIterator[bytes]:
    for start in range(0, len(CONTENT), 10_000):
        yield CONTENT[start : start + 10_000]


class File:
    """An async file, as they come with several libraries."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def __aiter__(self) -> AsyncIterator[bytes]:
        raise AssertionError("files are read")

    async def aread(self, size: int) -> bytes:
        return self._file.read(size)

    async def seek(self, position: int) -> int:
        return self._file.seek(position)

    async def tell(self) -> int:
        return self._file.tell()
