"""`resilience redis inspect` and `reset`, on real servers, as they are typed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from resilience import Cache, CircuitBreaker
from resilience.cli.app import app
from resilience.cli.redis.commands import KindOption
from resilience.limits.limiter_state import LimiterSpec
from resilience.machines.retry_budget import TokenBudget
from resilience.permits.permits_state import BulkheadSpec
from resilience_redis import RedisStore
from resilience_redis.inspection import KINDS
from resilience_redis.limits.leased import LeasedLimiter
from resilience_redis.server import Server
from tests.support.cluster import cluster
from tests.support.redis import plain_redis, redis_prefix, redis_server
from tests.support.rules import ALGORITHMS, make_rule
from tests.support.servers import node

__all__ = ["plain_redis", "redis_prefix", "redis_server"]

PATIENT = 5.0


def command(*words: str, answer: str = "") -> Result:
    return CliRunner().invoke(app, ["redis", *words], input=answer, catch_exceptions=False)


def inspected(url: str, prefix: str, *words: str) -> dict[str, Any]:
    result = command("inspect", url, "--prefix", prefix, "--json", *words)
    assert (result.exit_code, result.stderr) == (0, "")
    data: dict[str, Any] = json.loads(result.stdout)
    return data


def use(url: str, prefix: str, work: Callable[[RedisStore], Coroutine[Any, Any, None]]) -> None:
    """Do something with a store, and leave."""

    async def whole() -> None:
        async with RedisStore.from_url(url, prefix=prefix, timeout=PATIENT) as store:
            await work(store)

    asyncio.run(whole())


def test_every_kind_can_be_chosen() -> None:
    assert [each.value for each in KindOption] == list(KINDS)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_limits_tell_what_the_limiter_would_be_told(
    redis_server: Server, redis_prefix: str, plain_redis: Any, algorithm: str
) -> None:
    rules = (make_rule(algorithm, 10, 3600.0), make_rule(algorithm, 100, 7200.0))

    async def work(store: RedisStore) -> None:
        limiter = store.limiter(LimiterSpec("search", rules))
        await limiter.acquire("tenant:7", (4, 8), 0.0)
        decision = await limiter.peek("tenant:7", (1, 1))
        data = await asyncio.to_thread(inspected, redis_server.url, redis_prefix)
        [found] = data["limits"]
        assert (found["name"], found["key"], found["algorithm"]) == ("search", "tenant:7", algorithm)
        assert [(each["limit"], each["period"]) for each in found["limits"]] == [(10, 3600), (100, 7200)]
        assert [each["remaining"] for each in found["limits"]] == pytest.approx(decision.remaining, abs=0.1)
        assert found["wait"] == pytest.approx(decision.wait, abs=10)
        assert (data["cut"], data["other"]) == (False, [])

    use(redis_server.url, redis_prefix, work)
    plain_redis.delete(f"{{{redis_prefix}:catalogue}}:v1")
    first, second = inspected(redis_server.url, redis_prefix)["limits"]
    assert {first["period"], second["period"]} == {3600, 7200}
    for found in (first, second):
        if "used" in found:
            assert found["used"] == (4 if found["period"] == 3600 else 8)
        if "tokens" in found:
            assert found["tokens"] == (6 if found["period"] == 3600 else 92)
        if algorithm in ("gcra", "leaky_bucket"):
            assert found["free_in"] == pytest.approx(1440 if found["period"] == 3600 else 576, abs=10)
        assert 0 <= found.get("free_in", 0) <= 2 * 7200


def test_limits_of_all_keys_together_beside_those_of_each(redis_server: Server, redis_prefix: str) -> None:
    rules = (make_rule("gcra", 10, 3600.0), make_rule("gcra", 100, 3600.0))

    async def work(store: RedisStore) -> None:
        limiter = store.limiter(LimiterSpec("mixed", rules, common=(1,)))
        await limiter.acquire("a", (4, 4), 0.0)
        await limiter.acquire("b", (2, 2), 0.0)

    use(redis_server.url, redis_prefix, work)
    found = {each["key"]: each for each in inspected(redis_server.url, redis_prefix)["limits"]}
    left = {key: [each["remaining"] for each in found[key]["limits"]] for key in ("a", "b")}
    assert left == {"a": pytest.approx([6, 94], abs=0.1), "b": pytest.approx([8, 94], abs=0.1)}
    assert sorted(found) == ["", "a", "b"]
    result = command("reset", redis_server.url, "--prefix", redis_prefix, "--name", "mixed", "--yes")
    assert (result.exit_code, "3 reset" in result.stdout) == (0, True)


def test_reservations(redis_server: Server, redis_prefix: str) -> None:
    async def work(store: RedisStore) -> None:
        limiter = store.limiter(LimiterSpec("tokens", (make_rule("gcra", 1000, 3600.0),)))
        assert not isinstance(limiter, LeasedLimiter)
        for id in ("order 1", "order 2"):
            await limiter.reserve("t7", id, (100,), 0.0, 600.0)
        await limiter.settle("t7", "order 2", (30.0,), 600.0)

    use(redis_server.url, redis_prefix, work)
    data = inspected(redis_server.url, redis_prefix)
    found = [(each["key"], each["id"], each["settled"], each["charged"]) for each in data["reservations"]]
    assert sorted(found) == [("t7", "order 1", False, [100]), ("t7", "order 2", True, [30])]


def test_budgets(redis_server: Server, redis_prefix: str) -> None:
    url = redis_server.url

    async def work(store: RedisStore) -> None:
        budget = store.budget("search", lambda: TokenBudget(capacity=500))
        await budget.stock(budget.transient_cost)
        data = await asyncio.to_thread(inspected, url, redis_prefix)
        [found] = data["budgets"]
        [slice_] = found["slices"]
        assert found["name"] == "search"
        assert found["tokens"] + slice_["tokens"] == 500
        assert found["lent"] == slice_["tokens"] > 0

    use(url, redis_prefix, work)


def test_entries_of_a_cache(redis_server: Server, redis_prefix: str) -> None:
    async def work(store: RedisStore) -> None:
        await Cache(ttl=100, stale_for=50, jitter=0, name="pages", store=store).call(number, 7)

    use(redis_server.url, redis_prefix, work)
    [found] = inspected(redis_server.url, redis_prefix)["cache"]
    assert (found["name"], found["fetching"]) == ("pages", 0)
    assert 90 < found["fresh"] <= 100 < 140 < found["stale"] <= 150
    assert found["length"] >= len('{"value":7}')


def test_permits_and_processes(redis_server: Server, redis_prefix: str) -> None:
    url = redis_server.url

    async def work(store: RedisStore) -> None:
        permits = store.bulkheads(BulkheadSpec("reports", limit=3, queue=10))
        await permits.acquire("t7", 2, 1.0)
        await permits.acquire("t7", 1, 1.0)
        waiting = asyncio.create_task(permits.acquire("t7", 1, PATIENT))
        data: dict[str, Any] = {}
        async with asyncio.timeout(PATIENT):
            while not (data and data["members"] and data["permits"] and data["permits"][0]["waiting"]):
                data = await asyncio.to_thread(inspected, url, redis_prefix)
        found: dict[str, Any] = data["permits"][0]
        assert (found["name"], found["key"], found["in_use"], found["waiting"]) == ("reports", "t7", 3, 1)
        assert sorted(each["weight"] for each in found["holders"]) == [1, 2]
        assert found["fence"] == max(each["token"] for each in found["holders"])
        assert all(0 < each["lease"] < 11 for each in found["holders"])
        assert data["members"][0]["processes"] == 1
        tables = (await asyncio.to_thread(command, "inspect", url, "--prefix", redis_prefix)).stdout
        assert "reports" in tables
        assert "weight 2" in tables
        waiting.cancel()

    use(url, redis_prefix, work)


def test_tables_say_nothing_to_the_terminal_that_is_not_theirs(redis_server: Server, redis_prefix: str) -> None:
    async def work(store: RedisStore) -> None:
        await store.limiter(LimiterSpec("[bold]", (make_rule("gcra", 10, 3600.0),))).acquire("\x1b[2J", (1,), 0.0)

    use(redis_server.url, redis_prefix, work)
    result = command("inspect", redis_server.url, "--prefix", redis_prefix)
    assert result.exit_code == 0
    assert "[bold]" in result.stdout
    assert "\\x1b[2J" in result.stdout
    assert "\x1b" not in result.stdout


def test_keys_of_others_are_shown_and_do_no_harm(redis_server: Server, redis_prefix: str, plain_redis: Any) -> None:
    plain_redis.set(f"{{{redis_prefix}:a:b}}:gcra:v1:0:1000000", "no number")
    plain_redis.hset(f"{{{redis_prefix}:c:d}}:gcra:v1:0:1000000", "no", "string")
    plain_redis.set(f"{{{redis_prefix}:what}}:is:this", "1")
    plain_redis.set(f"{{{redis_prefix}s:a:b}}:gcra:v1:0:1000000", "1")
    plain_redis.set(f"{{{redis_prefix}:\udcff}}".encode(errors="surrogateescape"), "1")
    data = inspected(redis_server.url, redis_prefix)
    assert ["error" in each for each in data["limits"]] == [True, True]
    assert len(data["other"]) == 2
    assert command("inspect", redis_server.url, "--prefix", redis_prefix).exit_code == 0


def test_a_namespace_is_text_and_no_pattern(redis_server: Server, redis_prefix: str) -> None:
    async def work(store: RedisStore) -> None:
        await store.limiter(LimiterSpec("a", (make_rule("gcra", 10, 3600.0),))).acquire("k", (1,), 0.0)

    for prefix in ("*", "[a]", "{a}%"):
        use(redis_server.url, redis_prefix + prefix, work)
        assert len(inspected(redis_server.url, redis_prefix + prefix)["limits"]) == 1
    assert inspected(redis_server.url, redis_prefix)["limits"] == []
    for prefix in ("*", "[a]", "{a}%"):
        result = command("reset", redis_server.url, "--prefix", redis_prefix + prefix, "--yes")
        assert (result.exit_code, "1 reset" in result.stdout) == (0, True)


def test_it_reads_so_many_keys_and_says_that_there_are_more(redis_server: Server, redis_prefix: str) -> None:
    async def work(store: RedisStore) -> None:
        limiter = store.limiter(LimiterSpec("many", (make_rule("gcra", 10, 3600.0),)))
        await asyncio.gather(*(limiter.acquire(str(key), (1,), 0.0) for key in range(1200)))

    use(redis_server.url, redis_prefix, work)
    data = inspected(redis_server.url, redis_prefix, "--limit", "7")
    assert (len(data["limits"]), data["cut"]) == (7, True)
    data = inspected(redis_server.url, redis_prefix, "--limit", "1200")
    assert (len(data["limits"]), data["cut"]) == (1200, False)
    shown = command("inspect", redis_server.url, "--prefix", redis_prefix, "--limit", "7").stdout
    assert "only 7 keys were read" in shown


def test_reset_asks_and_deletes_only_what_was_chosen(redis_server: Server, redis_prefix: str, plain_redis: Any) -> None:
    async def work(store: RedisStore) -> None:
        for name in ("one", "two"):
            limiter = store.limiter(LimiterSpec(name, (make_rule("gcra", 10, 3600.0),)))
            for key in "abc":
                await limiter.acquire(key, (1,), 0.0)

    use(redis_server.url, redis_prefix, work)
    plain_redis.set(f"{redis_prefix}:not:ours", "1")
    plain_redis.set(f"{{{redis_prefix}-2:one:a}}:gcra:v1:0:1000000", "1")
    words = ("reset", redis_server.url, "--prefix", redis_prefix, "--name", "one", "--kind", "limits")
    for answer in ("", "n\n", "what?\n"):
        asked = command(*words, answer=answer)
        assert asked.exit_code == 1
        assert "Reset these 3 keys" in asked.stdout
        assert "nothing was reset" in asked.stdout
    assert len(inspected(redis_server.url, redis_prefix)["limits"]) == 6
    done = command(*words, answer="y\n")
    assert done.exit_code == 0
    assert "3 reset" in done.stdout
    assert [each["name"] for each in inspected(redis_server.url, redis_prefix)["limits"]] == ["two"] * 3
    assert command("reset", redis_server.url, "--prefix", redis_prefix, "--yes").exit_code == 0
    nothing = command("reset", redis_server.url, "--prefix", redis_prefix)
    assert (nothing.exit_code, "nothing to reset" in nothing.stdout) == (0, True)
    assert plain_redis.exists(f"{redis_prefix}:not:ours", f"{{{redis_prefix}-2:one:a}}:gcra:v1:0:1000000") == 2
    assert "nothing in the namespace" in command("inspect", redis_server.url, "--prefix", redis_prefix).stdout


@pytest.mark.parametrize("verb", ["inspect", "reset"])
def test_without_redis_py_it_says_what_to_install(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    result = command(verb, "redis://127.0.0.1:1")
    assert result.exit_code == 2
    assert result.stderr.strip() == "resilience: needs redis: pip install 'anyresilience[redis]'"


@pytest.mark.parametrize("verb", ["inspect", "reset"])
def test_errors_are_one_line(verb: str) -> None:
    with node("--requirepass", "secret") as server:
        for url, reason in (
            ("redis://127.0.0.1:1", "connecting to 127.0.0.1:1"),
            ("nonsense", "URL"),
            (server.url, "uthentication|authenticated"),
            (server.url.replace("redis://", "redis://app:wrong@"), "password"),
        ):
            result = command(verb, url)
            assert result.exit_code == 1
            assert result.stdout == ""
            assert result.stderr.startswith("resilience redis: ")
            assert any(each in result.stderr for each in reason.split("|")), result.stderr
            assert result.stderr.count("\n") == 1
            assert "wrong@" not in result.stderr


def test_a_user_without_permission_hears_so() -> None:
    with node() as server:
        url = server.url_of_user("looker", "+ping", "+info")
        result = command("inspect", url)
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
        assert "permission" in result.stderr
        assert "secret" not in result.stderr


def test_a_user_who_may_only_read_sees_what_was_booked() -> None:
    async def work(store: RedisStore) -> None:
        await store.limiter(LimiterSpec("search", (make_rule("fixed_window", 10, 3600.0),))).acquire("a", (4,), 0.0)

    with node() as server:
        use(server.url, "resilience", work)
        url = server.url_of_user("looker", "~*", "+@read", "+ping", "+info", "+time", "+@connection")
        [limit] = inspected(url, "resilience")["limits"]
        assert (limit["name"], limit["key"], limit["used"]) == ("search", "a", 4)
        refused = command("reset", url, "--yes")
        assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
        assert len(inspected(url, "resilience")["limits"]) == 1


def test_every_master_of_a_cluster_is_asked() -> None:
    with cluster(masters=3) as it:

        async def work() -> None:
            async with it.client() as client, RedisStore(client, timeout=PATIENT) as store:
                limiter = store.limiter(LimiterSpec("search", (make_rule("gcra", 10, 3600.0),)))
                for key in "abcdefgh":
                    await limiter.acquire(key, (1,), 0.0)

        asyncio.run(work())
        url = it.nodes[0].url
        assert [each["key"] for each in inspected(url, "resilience")["limits"]] == list("abcdefgh")
        result = command("reset", url, "--yes")
        assert (result.exit_code, "8 reset" in result.stdout) == (0, True)
        assert inspected(url, "resilience")["limits"] == []


def test_slices(redis_server: Server, redis_prefix: str) -> None:
    url = redis_server.url

    async def work(store: RedisStore) -> None:
        limiter = store.limiter(LimiterSpec("search", (make_rule("gcra", 10_000, 1.0),), leased=0.05))
        data: dict[str, Any] = {"slices": []}
        async with asyncio.timeout(PATIENT):
            while not data["slices"] or not data["slices"][0]["units"]:
                for _ in range(200):
                    await limiter.acquire("t7", (1,), 0.1)
                    await asyncio.sleep(0.001)
                data = await asyncio.to_thread(inspected, url, redis_prefix)
        [found] = data["slices"]
        assert (found["name"], found["key"]) == ("search", "t7")
        assert found["units"] == sum(each["units"] for each in found["slices"])
        assert all(each["process"] and each["lease"] > 0 for each in found["slices"])

    use(url, redis_prefix, work)


def test_circuits_are_shown_and_closed_in_every_process(redis_server: Server, redis_prefix: str) -> None:
    url = redis_server.url

    async def until(breaker: CircuitBreaker, state: str) -> None:
        async with asyncio.timeout(PATIENT):
            while breaker.state("eu west").value != state:
                await asyncio.sleep(0.01)

    async def work(store: RedisStore) -> None:
        async with RedisStore.from_url(url, prefix=redis_prefix, timeout=PATIENT) as other:
            breakers = [
                CircuitBreaker(minimum_calls=4, open_for=60.0, jitter=0.0, shared="any", name="data:base", store=each)
                for each in (store, other)
            ]
            await breakers[1].bind(key="eu west").call(succeed)
            for _ in range(4):
                with contextlib.suppress(ZeroDivisionError):
                    await breakers[0].bind(key="eu west").call(fail)
            for breaker in breakers:
                await until(breaker, "open")
            data = await asyncio.to_thread(inspected, url, redis_prefix)
            [found] = data["circuits"]
            assert (found["name"], found["key"], found["state"]) == ("data:base", "eu west", "open")
            assert 50 < found["until"] <= 60
            result = await asyncio.to_thread(
                command, "reset", url, "--prefix", redis_prefix, "--kind", "circuits", "--yes"
            )
            assert (result.exit_code, result.stderr) == (0, "")
            for breaker in breakers:
                await until(breaker, "closed")
            [found] = (await asyncio.to_thread(inspected, url, redis_prefix))["circuits"]
            assert found["state"] == "closed"

    use(url, redis_prefix, work)


async def number(value: int) -> dict[str, int]:
    return {"value": value}


async def succeed() -> None:
    pass


async def fail() -> None:
    raise ZeroDivisionError
