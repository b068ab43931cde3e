"""Pipelines from data: the same options, defaults and errors as in code."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import tomllib
from typing import Any

import pytest
from pydantic import ValidationError

from resilience import (
    Backoff,
    Bulkhead,
    Cache,
    CircuitBreaker,
    Classifier,
    Event,
    Fallback,
    Limit,
    MemoryStore,
    Pipeline,
    Policy,
    RateLimiter,
    Retry,
    SingleFlight,
    Store,
    Timeout,
    Verdict,
)
from resilience import settings as settings_module
from resilience.settings import PipelineSettings

ALL: list[dict[str, Any]] = [
    {"type": "fallback", "sources": [[]]},
    {"type": "timeout", "seconds": 10},
    {"type": "bulkhead", "limit": 50, "queue": 100, "max_wait": 0.5},
    {"type": "retry", "attempts": 4, "backoff": {"kind": "constant", "base": 1, "cap": 1}, "budget": None},
    {"type": "circuit_breaker", "period": 30, "failure_rate": 0.25, "mode": "shadow"},
    {"type": "rate_limiter", "rates": ["10/s", "100/minute"], "algorithm": "token_bucket", "burst": 5},
    {"type": "timeout", "seconds": 2},
]


def built(*policies: dict[str, Any], store: Store | None = None, **more: Any) -> Pipeline:
    return PipelineSettings.model_validate({"policies": list(policies), **more}).build(store=store)


def one(policy: dict[str, Any], store: Store | None = None) -> Policy:
    return built(policy, store=store).policies[0]


def problem(policy: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        PipelineSettings.model_validate({"policies": [policy]})
    (error,) = caught.value.errors()
    return f"{'.'.join(map(str, error['loc']))}: {error['msg']}"


def test_every_policy_with_its_options_in_order() -> None:
    fallback, timeout, bulkhead, retry, breaker, limiter, attempt = built(*ALL, name="payments").policies
    assert isinstance(fallback, Fallback)
    assert fallback.sources == ([],)
    assert isinstance(timeout, Timeout)
    assert timeout.seconds == 10
    assert isinstance(bulkhead, Bulkhead)
    assert (bulkhead.limit, bulkhead.queue, bulkhead.max_wait) == (50, 100, 0.5)
    assert isinstance(retry, Retry)
    assert (retry.attempts, retry.backoff, retry.budget) == (4, Backoff.constant(1), None)
    assert isinstance(breaker, CircuitBreaker)
    assert (breaker.rule.period, breaker.rule.failure_rate, breaker.mode) == (30, 0.25, "shadow")
    assert isinstance(limiter, RateLimiter)
    assert [(rule.algorithm, rule.limit, rule.period, rule.burst) for rule in limiter.rules] == [
        ("token_bucket", 10, 1, 5),
        ("token_bucket", 100, 60, 5),
    ]
    assert isinstance(attempt, Timeout)
    assert attempt.seconds == 2


def test_json_and_toml_say_the_same() -> None:
    toml = """
        name = "payments"
        [[policies]]
        type = "timeout"
        seconds = 10
        [[policies]]
        type = "retry"
        backoff = { kind = "equal", base = 0.1 }
    """
    data = tomllib.loads(toml)
    from_json = PipelineSettings.model_validate_json(json.dumps(data))
    assert from_json == PipelineSettings.model_validate(data)
    retry = from_json.build().policies[1]
    assert isinstance(retry, Retry)
    assert retry.backoff == Backoff.equal(0.1)
    assert from_json.build().name == "payments"


def test_what_is_written_out_is_read_back() -> None:
    settings = PipelineSettings.model_validate({"policies": ALL, "name": "payments"})
    assert PipelineSettings.model_validate_json(settings.model_dump_json(exclude_unset=True)) == settings


def test_pipelines_nest() -> None:
    inner = {"type": "pipeline", "name": "inner", "policies": [{"type": "timeout", "seconds": 1}]}
    nested = one(inner)
    assert isinstance(nested, Pipeline)
    assert nested.name == "inner"
    assert isinstance(nested.policies[0], Timeout)


def test_caches() -> None:
    cache = one({"type": "cache", "ttl": 60, "stale_for": 5.5, "ignore": ["self"], "max_entries": 10})
    assert isinstance(cache, Cache)
    assert (cache.rule.ttl, cache.rule.stale_for) == (60, 5.5)
    assert isinstance(one({"type": "single_flight", "ignore": ["self"]}), SingleFlight)
    store = MemoryStore()
    shared = {"type": "cache", "ttl": 60, "name": "users", "in_store": True}
    assert isinstance(one(shared, store), Cache)
    with pytest.raises(ValueError, match="with other settings"):
        one({**shared, "ttl": 61}, store)
    assert "stale_for must be at least 0" in problem({"type": "cache", "ttl": 60, "stale_for": -1})


def test_limits_with_names_and_dimensions() -> None:
    rates = ["10/s", {"rate": "20000/min", "burst": 5000, "dimension": "tokens", "keyed": False, "name": "all"}]
    limiter = one({"type": "rate_limiter", "rates": rates, "cost": {"requests": 1, "tokens": 7}})
    assert isinstance(limiter, RateLimiter)
    tokens = Limit("20000/min", burst=5000, dimension="tokens", keyed=False, name="all")
    assert limiter.limits.all == (Limit("10/s"), tokens)
    assert limiter.limits.rules[1].burst == 5000
    assert "got 'token'" in problem({"type": "rate_limiter", "rates": rates, "cost": {"token": 1}})
    with pytest.raises(ValidationError, match="dimension must be a non-empty string"):
        one({"type": "rate_limiter", "rates": [{"rate": "1/s", "dimension": ""}]})


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"type": "timeout", "seconds": 0}, "policies.0.timeout: Value error, seconds must be greater than 0"),
        ({"type": "timeout", "seconds": float("nan")}, "policies.0.timeout: Value error, seconds must be finite"),
        ({"type": "timeout", "seconds": "2"}, "policies.0.timeout.seconds: Input should be a valid number"),
        ({"type": "timeout", "seconds": True}, "policies.0.timeout.seconds: Input should be a valid number"),
        ({"type": "timeout"}, "policies.0.timeout.seconds: Field required"),
        ({"type": "retry", "name": ""}, "policies.0.retry: Value error, name must be a non-empty string"),
        ({"type": "retry", "tries": 3}, "policies.0.retry.tries: Extra inputs are not permitted"),
        ({"type": "retry", "attempts": 2.5}, "policies.0.retry.attempts: Input should be a valid integer"),
        ({"type": "retry", "backoff": {"base": -1}}, "policies.0.retry.backoff: Value error, base must be greater"),
        ({"type": "bulkhead", "limit": 2, "weight": 3}, "policies.0.bulkhead: Value error, weight must be at most"),
        ({"type": "circuit_breaker", "count": 5}, "policies.0.circuit_breaker: Value error, minimum_calls must be"),
        ({"type": "circuit_breaker", "mode": "dry"}, "policies.0.circuit_breaker.mode: Input should be 'enforce'"),
        ({"type": "rate_limiter", "rates": []}, "policies.0.rate_limiter.rates: List should have at least 1 item"),
        ({"type": "rate_limiter", "rates": ["fast"]}, "policies.0.rate_limiter: Value error, rate must look like"),
        ({"type": "fallback", "sources": []}, "policies.0.fallback.sources: List should have at least 1 item"),
        ({"type": "saga"}, "policies.0: Input tag 'saga' found using 'type' does not match any of"),
        ({"type": "pipeline", "policies": [{"type": "timeout", "seconds": -1}]}, "policies.0.pipeline.policies.0.t"),
    ],
)
def test_mistakes_name_the_place_and_the_rule(policy: dict[str, Any], expected: str) -> None:
    assert problem(policy).startswith(expected)


def test_shared_state_is_kept_in_the_store() -> None:
    store = MemoryStore()
    limited = {"type": "rate_limiter", "rates": ["10/s"], "name": "search", "in_store": True}
    first, second = one(limited, store), one(limited, store)
    assert isinstance(first, RateLimiter)
    assert isinstance(second, RateLimiter)
    assert first is not second
    with pytest.raises(ValueError, match="name 'search' is taken by a rate limiter with other settings"):
        one(limited | {"rates": ["20/s"]}, store)
    one(limited | {"rates": ["20/s"], "in_store": False}, store)


def test_sharing_needs_a_store_and_a_name() -> None:
    with pytest.raises(ValueError, match="store is required: bulkhead 'db' is to be in_store"):
        one({"type": "bulkhead", "limit": 1, "name": "db", "in_store": True})
    with pytest.raises(ValueError, match="name is required with a store"):
        one({"type": "circuit_breaker", "in_store": True}, MemoryStore())


def test_only_policies_with_shareable_state_can_be_shared() -> None:
    assert "Extra inputs are not permitted" in problem({"type": "timeout", "seconds": 1, "in_store": True})


@pytest.mark.anyio
async def test_build_takes_what_data_cannot_say() -> None:
    events: list[Event] = []
    nested = {"type": "pipeline", "policies": [{"type": "retry", "backoff": {"kind": "none"}}]}
    pipeline = PipelineSettings.model_validate({"policies": [nested]}).build(
        classifier=Classifier(result=lambda value: Verdict.FAILURE if value < 3 else Verdict.SUCCESS),
        listeners=[events.append],
    )
    counted = iter(range(10))

    async def count() -> int:
        return next(counted)

    assert await pipeline.call(count) == 2
    assert [event.kind for event in events] == [
        "retry_scheduled",
        "retry_scheduled",
        "retry_gave_up",
        "call_succeeded",
        "call_succeeded",
    ]


@pytest.mark.parametrize(("kind", "make"), vars(settings_module)["_POLICIES"].items())
def test_every_plain_option_has_its_field_and_default(kind: str, make: type[Policy]) -> None:
    (model,) = [model for model in vars(settings_module)["_MODELS"] if model.__name__ == f"{make.__name__}Settings"]
    in_code = {"on", "on_result", "with_error", "random", "listeners", "store"}
    in_code |= {"key", "weigh", "max_weight", "negative", "negative_result", "codec"}
    parameters = {
        name: parameter for name, parameter in inspect.signature(make).parameters.items() if name not in in_code
    }
    assert set(model.model_fields) - {"type", "in_store"} == set(parameters)
    for name, parameter in parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            assert model.model_fields[name].default == parameter.default


def test_there_is_a_json_schema_for_editors() -> None:
    schema = PipelineSettings.model_json_schema()
    assert schema["$defs"]["CircuitBreakerSettings"]["properties"]["open_for"]["default"] == 5.0


def test_without_pydantic_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['pydantic'] = None; import resilience.settings"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install 'anyresilience[settings]'" in done.stderr
