"""Processes that ask for four times what providers allow: hardly a 429, and hardly a token unused."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import pytest

from resilience_redis.server import Server
from tests.support.llm_server import LLMServer, llm_server
from tests.support.llm_worker import askers

REQUESTS, TOKENS = 60, 20_000

# What a request will use decides which of the limits binds.
BY_TOKENS = {"model": "by tokens", "limited": True, "words": 300, "most": 750}  # 829 tokens: 24 of them a minute
BY_REQUESTS = {"model": "by requests", "limited": True, "words": 60, "most": 100}  # 134 tokens: 60 use 8,040
UNLIMITED = {**BY_TOKENS, "model": "without limits", "limited": False}


def plan_of(server: LLMServer, redis: Server, prefix: str, minute: float) -> dict[str, Any]:
    return {
        "redis": redis.url,
        "prefix": prefix,
        "openai": server.openai,
        "anthropic": server.anthropic,
        "requests": REQUESTS,
        "tokens": TOKENS,
        "minute": minute,
        "margin": 0.04 * minute,
    }


def stage_of(kind: dict[str, Any], minute: float, minutes: float, processes: int) -> dict[str, Any]:
    """Four times as much as is allowed, by all processes together."""
    used = 4 + kind["words"] + int(0.7 * kind["most"])
    pace = 4 * min(REQUESTS, TOKENS / used) / minute / processes
    return {**kind, "pace": pace, "seconds": minutes * minute, "starts": time.monotonic() + 0.2}


def shares(server: LLMServer, kind: dict[str, Any]) -> dict[str, dict[str, float]]:
    """For both providers: requests answered with 429, and requests and tokens used of what was there."""
    found: dict[str, dict[str, float]] = {}
    for name, account in server.report().items():
        if name.endswith(f"/{kind['model']}"):
            found[name] = {
                "refused": account["refused"] / (account["admitted"] + account["refused"]),
                "tokens": account["used"] / account["given_tokens"],
                "requests": account["admitted"] / account["given_requests"],
            }
            print(name, {key: round(value, 3) for key, value in {**account, **found[name]}.items()})
    assert len(found) == 2
    return found


class Fleet:
    """Processes that go through the same stages."""

    def __init__(self, plan: dict[str, Any], processes: int) -> None:
        command = [sys.executable, "-m", "tests.support.llm_worker", json.dumps(plan)]
        self.minute = plan["minute"]
        self.members = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        assert [self.hear(each) for each in self.members] == ["ready\n"] * processes

    def stage(self, server: LLMServer, kind: dict[str, Any], minutes: float) -> dict[str, dict[str, float]]:
        """The shares at the end, while there is still demand."""
        stage = stage_of(kind, self.minute, minutes, len(self.members))
        for each in self.members:
            assert each.stdin is not None
            print(json.dumps(stage), file=each.stdin, flush=True)
        time.sleep(stage["starts"] + stage["seconds"] - 0.05 - time.monotonic())
        found = shares(server, kind)
        became: Counter[str] = Counter()
        for each in self.members:
            for outcomes in json.loads(self.hear(each)).values():
                became.update(outcomes)
        print("  both together:", dict(became))
        return found

    def hear(self, member: subprocess.Popen[str]) -> str:
        assert member.stdout is not None
        return member.stdout.readline()

    def end(self) -> None:
        for each in self.members:
            each.communicate(timeout=60)
        assert [each.returncode for each in self.members] == [0] * len(self.members)


@pytest.mark.long
def test_four_processes_use_what_they_may_and_no_more(redis_server: Server, redis_prefix: str) -> None:
    with llm_server(requests=REQUESTS, tokens=TOKENS, minute=3.0) as server:
        fleet = Fleet(plan_of(server, redis_server, redis_prefix, 3.0), 4)
        for kind, binding in ((BY_TOKENS, "tokens"), (BY_REQUESTS, "requests")):
            for share in fleet.stage(server, kind, 3.5).values():
                assert share["refused"] < 0.01
                assert share[binding] >= 0.95
        for share in fleet.stage(server, UNLIMITED, 2.0).values():
            assert share["refused"] > 0.5
        fleet.end()


@pytest.mark.asyncio
async def test_two_clients_share_the_limits(redis_server: Server, redis_prefix: str) -> None:
    minute, minutes = 2.0, 1.0
    with llm_server(requests=REQUESTS, tokens=TOKENS, minute=minute) as server:
        plan = plan_of(server, redis_server, redis_prefix, minute)
        async with askers(plan) as (_, first), askers(plan) as (_, second):
            stage = stage_of(BY_TOKENS, minute, minutes, 2)
            running = asyncio.gather(first.stage(stage), second.stage(stage))
            await asyncio.sleep(stage["starts"] + stage["seconds"] - 0.05 - time.monotonic())
            found = await asyncio.to_thread(shares, server, BY_TOKENS)
            await running
        for share in found.values():
            assert share["refused"] < 0.05
            assert share["tokens"] > 0.8
