"""The limits themselves: what they are made of, whose they are, who comes first, and what an outage does."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from resilience import RateLimitedError
from resilience_llm import ANTHROPIC, OPENAI, Estimate, LimitFields, LLMLimits, ModelCall, Profile
from resilience_llm.turns import Turns
from resilience_redis import RedisStore
from resilience_redis.server import Server

from .support import charged, limits_of

CALL = ModelCall("/v1/chat/completions", {"model": "m", "max_tokens": 500})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of requests, tokens, input_tokens, output_tokens must be given"),
        ({"requests": 0}, "requests must be greater than 0"),
        ({"tokens": "many"}, "rate must look like"),
        ({"tokens": True}, "tokens must be a number"),
        ({"requests": 1, "key": "user"}, "key must be 'model', 'api_key', None or a function"),
        ({"requests": 1, "max_wait": -1}, "max_wait must be at least 0"),
        ({"requests": 1, "margin": -1}, "margin must be at least 0"),
        ({"requests": "1/s", "margin": 1}, "margin must be shorter than the period of requests, 1 s"),
        ({"requests": 1, "estimate": 5}, "estimate must be a function"),
        ({"requests": 1, "mode": "on"}, "mode must be one of"),
        ({"requests": 1, "name": ""}, "name must be"),
        ({"tokens": 100_000_000}, "limit must be at most 1000000 per second"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        LLMLimits(OPENAI, **options)


def test_bad_profiles_are_refused() -> None:
    with pytest.raises(TypeError, match="profile must be a Profile"):
        LLMLimits("openai", requests=1)  # type: ignore[arg-type] # on purpose
    for change, message in (
        ({"name": ""}, "name must be a non-empty string"),
        ({"paths": ()}, "paths must be a tuple"),
        ({"paths": "/x"}, "paths must be a tuple"),
        ({"estimate": 5}, "estimate must be a function"),
    ):
        wrong: dict[str, Any] = change
        with pytest.raises((ValueError, TypeError), match=message):
            dataclasses.replace(OPENAI, **wrong)


def test_a_bucket_holds_a_margin_less_than_the_limit() -> None:
    limits = LLMLimits(OPENAI, requests=60, tokens=2_000_000, input_tokens="1/s", margin=0.5)
    assert [(rule.limit, rule.period, rule.burst) for rule in limits.limiter.rules] == [
        (60, 60, 59.5),
        (2_000_000, 60, pytest.approx(2_000_000 * (1 - 0.5 / 60))),
        (1, 1, 1),
    ]
    assert limits.limiter.name == "llm-openai"


def path_of(call: ModelCall) -> str:
    return call.path


def tenant_of(call: ModelCall) -> Any:
    return call.body.get("user")


def always(estimate: Estimate) -> Callable[[ModelCall], Estimate]:
    return lambda call: estimate


@pytest.mark.parametrize(
    ("profile", "key", "headers", "expected"),
    [
        (OPENAI, "model", {}, "m"),
        (OPENAI, None, {}, ""),
        (OPENAI, "api_key", {"authorization": "Bearer secret"}, "bffde20413347b7a"),
        (OPENAI, "api_key", {"api-key": "Bearer secret"}, "bffde20413347b7a"),
        (ANTHROPIC, "api_key", {"x-api-key": "Bearer secret", "authorization": "no"}, "bffde20413347b7a"),
        (ANTHROPIC, "api_key", {}, "e3b0c44298fc1c14"),
        (OPENAI, path_of, {}, "/p"),
    ],
)
def test_keys(profile: Profile, key: Any, headers: dict[str, str], expected: str) -> None:
    assert limits_of(profile, key=key).key_of(ModelCall("/p", {"model": "m"}, headers)) == expected
    assert ModelCall("/p", {"model": 7}).model == ""


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("options", "estimate", "expected"),
    [
        ({}, Estimate(10.2, 20.5), (1, 32)),
        ({}, Estimate(1e6, 1e6), (1, 20_000)),  # more than there ever is: a whole bucket
        ({}, Estimate(0, 0), (1, 0)),
        ({"requests": None}, Estimate(0, 0), (1,)),
        ({"tokens": None}, Estimate(10, 20), (1,)),
        ({"tokens": None, "input_tokens": "99/d", "output_tokens": "99/d"}, Estimate(10, 20), (1, 10, 20)),
    ],
)
async def test_what_is_reserved(options: dict[str, Any], estimate: Estimate, expected: tuple[int, ...]) -> None:
    limits = limits_of(estimate=always(estimate), **options)
    booked = await limits.reserve(CALL)
    assert await charged(limits) == expected
    await limits.settle(booked, Estimate(1, 2))
    used = {"requests": 1, "tokens": 3, "input_tokens": 1, "output_tokens": 2}
    assert await charged(limits) == tuple(used[each] for each in limits.limiter.limits.dimensions)
    await limits.refund(booked)  # it was settled


@pytest.mark.anyio
async def test_what_was_used_beyond_the_limit_is_a_debt() -> None:
    limits = limits_of()
    await limits.settle(await limits.reserve(CALL), Estimate(20_000, 5_000))
    with pytest.raises(RateLimitedError) as caught:
        await limits.reserve(CALL)
    assert caught.value.retry_after == pytest.approx(5_500 * 86_400 / 20_000, rel=0.01)


def test_a_key_that_is_no_string_is_an_error_of_its_author() -> None:
    with pytest.raises(TypeError, match="key must return a string, got None"):
        limits_of(key=tenant_of).key_of(CALL)


@pytest.mark.anyio
async def test_a_wrong_estimate_is_an_error_of_its_author() -> None:
    limits = limits_of(estimate=always(Estimate(-1, 0)))
    with pytest.raises(ValueError, match=r"estimate.input must be at least 0"):
        await limits.reserve(CALL)
    assert await charged(limits) == (0, 0)


@pytest.mark.anyio
async def test_who_waits_too_long_is_refused_and_who_is_cancelled_costs_nothing() -> None:
    limits = LLMLimits(OPENAI, requests="1/300ms", margin=0, max_wait=0.45)
    outcomes = list[str]()

    async def ask(name: str) -> None:
        try:
            await limits.reserve(CALL)
            outcomes.append(name)
        except RateLimitedError as error:
            outcomes.append(f"{name} refused by {error.limit}")

    async def give_up(scope: anyio.CancelScope) -> None:
        await anyio.sleep(0.01)
        scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "first")
        await anyio.sleep(0.01)
        scope = anyio.CancelScope()
        group.start_soon(give_up, scope)
        with scope:
            await limits.reserve(CALL)  # the head of the line
        for name in ("second", "third", "fourth"):
            group.start_soon(ask, name)
            await anyio.sleep(0.002)
    assert outcomes == ["first", "second", "third refused by requests", "fourth refused by requests"]
    assert limits._turns._lines == {}


@pytest.mark.anyio
async def test_turns_are_first_come_first_served_for_each_key() -> None:
    turns, order = Turns(), list[str]()

    async def take(name: str, key: str, patience: float) -> None:
        async with turns.turn(key, patience) as left:
            assert left <= patience
            order.append(name if left else f"{name} late")
            await anyio.sleep(0.02)

    async with anyio.create_task_group() as group:
        for name, key, patience in (("a", "x", 9), ("b", "x", 9), ("c", "x", 0.01), ("d", "x", 9), ("e", "y", 9)):
            group.start_soon(take, name, key, patience)
            await anyio.sleep(0.001)
    assert order == ["a", "e", "c late", "b", "d"]


@pytest.mark.asyncio
async def test_processes_share_and_an_outage_is_no_error(own_server: Server, redis_prefix: str) -> None:
    options: dict[str, Any] = {"requests": "60/d", "tokens": "20000/d", "margin": 0, "max_wait": 1.0}
    async with (
        RedisStore.from_url(own_server.url, prefix=redis_prefix, timeout=1.0) as here,
        RedisStore.from_url(own_server.url, prefix=redis_prefix, timeout=1.0) as there,
    ):
        one = LLMLimits(OPENAI, store=here, estimate=lambda call: Estimate(100, 400), **options)
        other = LLMLimits(OPENAI, store=there, **options)
        booked = await one.reserve(CALL)
        assert await charged(other) == (1, 500)
        await one.learn(booked, 200, {"x-ratelimit-remaining-tokens": "15000"})
        assert await charged(other) == (1, 5_000)
        await one.settle(booked, Estimate(100, 50))
        assert await charged(other) == (1, 4_650)
        second, third = await one.reserve(CALL), await one.reserve(CALL)
        assert own_server.pid is not None
        os.kill(own_server.pid, signal.SIGKILL)
        await one.settle(second, Estimate(1, 1))
        await one.refund(third)
        await one.learn(third, 200, {"x-ratelimit-remaining-tokens": "5"})
        await one.learn(third, 429, {"retry-after": "5"})
        with pytest.raises(RateLimitedError):
            await one.reserve(CALL)  # this process alone keeps what it was told


@pytest.mark.anyio
async def test_a_profile_of_ones_own() -> None:
    ours = Profile(
        name="ours",
        paths=("/generate",),
        headers=(LimitFields("output_tokens", "x-left", "x-reset"),),
        throttled=frozenset({503}),
        estimate=lambda call: Estimate(len(call.body["text"]), 10),
    )
    limits = LLMLimits(ours, output_tokens="100/d", margin=0, max_wait=0)
    booked = await limits.reserve(ModelCall("/generate", {"text": "abc", "model": "m"}))
    assert booked.estimate == Estimate(3, 10)
    await limits.learn(booked, 200, {"x-left": "40"})
    assert await charged(limits) == (60,)
    await limits.learn(booked, 503, {"x-left": "0", "x-reset": "7s"})
    assert (await limits.limiter.peek(key="m", cost={"output_tokens": 1})).wait == pytest.approx(7 + 864, abs=1)
