"""A stand-in for the APIs of OpenAI and Anthropic on loopback, that counts tokens and enforces limits.

    with llm_server(requests=60, tokens=20_000, minute=4.0) as server:
        openai.AsyncOpenAI(base_url=server.openai, ...)
        anthropic.AsyncAnthropic(base_url=server.anthropic, ...)
        server.report()["openai/gpt-5"]["refused"]

Each model of each provider has limits of its own: two token buckets, of requests and of tokens, that fill all the
time, as those of the providers do; a "minute" may be as short as one likes. A request is charged at once what it will
use, and is refused if that is not there. A token is a word or a mark, not four characters. The answer has seven tenths
of the tokens that the request allows. It runs in a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

SHARE_WRITTEN = 0.7
"""Of the tokens that a request allows, so many are written."""
PIECES = 5
"""Events with text in a stream."""


@dataclass(frozen=True)
class LLMServer:
    """Where the stand-in is."""

    url: str

    @property
    def openai(self) -> str:
        return f"{self.url}/v1"

    @property
    def anthropic(self) -> str:
        return self.url

    def report(self) -> dict[str, dict[str, float]]:
        """For each provider and model: requests admitted and refused, tokens used, and what was there up to now."""
        with urllib.request.urlopen(f"{self.url}/report") as response:
            found: dict[str, dict[str, float]] = json.load(response)
        return found


@contextlib.contextmanager
def llm_server(**plan: float) -> Generator[LLMServer]:
    """Start one: `requests` and `tokens` a `minute` (seconds, default 60), `latency` seconds (default 0.02)."""
    command = [sys.executable, "-m", "tests.support.llm_server", json.dumps(plan)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield LLMServer(f"http://127.0.0.1:{int(process.stdout.readline())}")
    finally:
        process.kill()
        process.communicate()


def tokens_in(text: str) -> int:
    """Words and marks."""
    return len(re.findall(r"\w+|[^\w\s]", text))


class Bucket:
    """A token bucket that begins full."""

    def __init__(self, limit: float, minute: float) -> None:
        self.limit, self.rate = limit, limit / minute
        self._level, self._at, self._first = limit, time.monotonic(), 0.0

    def level(self) -> float:
        now = time.monotonic()
        self._level, self._at = min(self.limit, self._level + (now - self._at) * self.rate), now
        return self._level

    def lacks(self, units: float) -> float:
        """Seconds until so many are there."""
        return max(0.0, (min(units, self.limit) - self.level()) / self.rate)

    def take(self, units: float) -> None:
        self._first = self._first or time.monotonic()
        self._level = self.level() - units

    def given(self) -> float:
        """What was there to be taken since the first was."""
        return self.limit + (time.monotonic() - self._first) * self.rate if self._first else 0.0

    def full_after(self) -> float:
        return (self.limit - self.level()) / self.rate


class Account:
    """The limits of one model, and what came of its requests."""

    def __init__(self, requests: float, tokens: float, minute: float) -> None:
        self.requests, self.tokens = Bucket(requests, minute), Bucket(tokens, minute)
        self.admitted = self.refused = self.used = 0

    def admit(self, tokens: int) -> float:
        """Charge a request; or the seconds after which it has a chance."""
        wait = max(self.requests.lacks(1), self.tokens.lacks(tokens))
        if wait > 0.0:
            self.refused += 1
            return wait
        self.requests.take(1)
        self.tokens.take(tokens)
        self.admitted += 1
        self.used += tokens
        return 0.0

    def report(self) -> dict[str, float]:
        return {
            "admitted": self.admitted,
            "refused": self.refused,
            "used": self.used,
            "given_requests": self.requests.given(),
            "given_tokens": self.tokens.given(),
        }


def go_duration(seconds: float) -> str:
    """As OpenAI writes it: `60ms`, `7.66s`, `1m3.5s`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    return f"{seconds // 60:.0f}m{seconds % 60:.3g}s" if seconds >= 60 else f"{seconds:.3g}s"


def openai_headers(account: Account) -> dict[str, str]:
    return {
        f"x-ratelimit-{what}-{name}": value
        for name, bucket in (("requests", account.requests), ("tokens", account.tokens))
        for what, value in (
            ("limit", f"{bucket.limit:.0f}"),
            ("remaining", f"{max(0, int(bucket.level()))}"),
            ("reset", go_duration(bucket.full_after())),
        )
    }


def anthropic_headers(account: Account) -> dict[str, str]:
    return {
        f"anthropic-ratelimit-{name}-{what}": value
        for name, bucket in (("requests", account.requests), ("tokens", account.tokens))
        for what, value in (
            ("limit", f"{bucket.limit:.0f}"),
            ("remaining", f"{max(0, int(bucket.level()))}"),
            ("reset", (datetime.now(UTC) + timedelta(seconds=bucket.full_after())).isoformat()),
        )
    }


def event(data: dict[str, Any], named: bool = False) -> bytes:
    name = f"event: {data['type']}\n" if named else ""
    return f"{name}data: {json.dumps(data)}\n\n".encode()


def written(tokens: int) -> list[str]:
    """The text of an answer, in pieces."""
    cuts = [tokens * part // PIECES for part in range(PIECES + 1)]
    return ["word " * (end - begin) for begin, end in itertools.pairwise(cuts)]


class App:
    """The endpoints."""

    def __init__(self, requests: float, tokens: float, minute: float = 60.0, latency: float = 0.02) -> None:
        self.latency = latency
        self.accounts: dict[str, Account] = {}
        self._new = functools.partial(Account, requests, tokens, minute)

    def account(self, provider: str, model: str) -> Account:
        return self.accounts.setdefault(f"{provider}/{model}", self._new())

    async def report(self, request: Request) -> Response:
        return JSONResponse({name: account.report() for name, account in self.accounts.items()})

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        account = self.account("openai", body["model"])
        asked = sum(4 + tokens_in(each["content"]) for each in body["messages"])
        answered = max(1, int(SHARE_WRITTEN * body["max_completion_tokens"]))
        wait = account.admit(asked + answered)
        headers = openai_headers(account)
        if wait:
            headers |= {"retry-after": f"{wait:.3f}", "retry-after-ms": f"{wait * 1000:.0f}"}
            error = {"message": "Rate limit reached", "type": "tokens", "param": None, "code": "rate_limit_exceeded"}
            return JSONResponse({"error": error}, 429, headers)
        usage = {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
        common = {"id": "chatcmpl-1", "created": 0, "model": body["model"]}
        if body.get("stream"):
            told = usage if body.get("stream_options", {}).get("include_usage") else None
            return StreamingResponse(self.chat_events(common, answered, told), 200, headers, "text/event-stream")
        await asyncio.sleep(self.latency)
        message = {"role": "assistant", "content": "".join(written(answered))}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return JSONResponse({**common, "object": "chat.completion", "choices": [choice], "usage": usage}, 200, headers)

    async def chat_events(
        self, common: dict[str, Any], answered: int, usage: dict[str, int] | None
    ) -> AsyncGenerator[bytes]:
        common = {**common, "object": "chat.completion.chunk"}
        for piece in written(answered):
            await asyncio.sleep(self.latency / PIECES)
            yield event({**common, "choices": [{"index": 0, "delta": {"content": piece}}], "usage": None})
        yield event({**common, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None})
        if usage is not None:
            yield event({**common, "choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"

    async def messages(self, request: Request) -> Response:
        body = await request.json()
        account = self.account("anthropic", body["model"])
        asked = sum(4 + tokens_in(each["content"]) for each in body["messages"])
        answered = max(1, int(SHARE_WRITTEN * body["max_tokens"]))
        wait = account.admit(asked + answered)
        headers = anthropic_headers(account)
        if wait:
            error = {"type": "rate_limit_error", "message": "This request would exceed your rate limit"}
            return JSONResponse({"type": "error", "error": error}, 429, headers | {"retry-after": f"{wait:.3f}"})
        usage = {"input_tokens": asked, "cache_read_input_tokens": 7, "output_tokens": answered}
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "stop_sequence": None}
        if body.get("stream"):
            start: dict[str, Any] = {
                **message,
                "content": [],
                "stop_reason": None,
                "usage": {**usage, "output_tokens": 1},
            }
            return StreamingResponse(self.message_events(start, answered), 200, headers, "text/event-stream")
        await asyncio.sleep(self.latency)
        content = [{"type": "text", "text": "".join(written(answered))}]
        return JSONResponse({**message, "content": content, "stop_reason": "end_turn", "usage": usage}, 200, headers)

    async def message_events(self, start: dict[str, Any], answered: int) -> AsyncGenerator[bytes]:
        yield event({"type": "message_start", "message": start}, True)
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        yield event(block, True)
        for piece in written(answered):
            await asyncio.sleep(self.latency / PIECES)
            delta = {"type": "text_delta", "text": piece}
            yield event({"type": "content_block_delta", "index": 0, "delta": delta}, True)
        yield event({"type": "content_block_stop", "index": 0}, True)
        end = {"stop_reason": "end_turn", "stop_sequence": None}
        yield event({"type": "message_delta", "delta": end, "usage": {"output_tokens": answered}}, True)
        yield event({"type": "message_stop"}, True)


def main(plan: dict[str, float]) -> None:
    app = App(**plan)
    routes = [
        Route("/report", app.report),
        Route("/v1/chat/completions", app.chat, methods=["POST"]),
        Route("/v1/messages", app.messages, methods=["POST"]),
    ]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        config = uvicorn.Config(Starlette(routes=routes), log_config=None, access_log=False, lifespan="off", ws="none")
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
