from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.machines.cache import EARLY, FRESH, GONE, SPARE, STALE, CacheMachine, CacheRule, Entry

RULE = CacheRule(ttl=10, jitter=0, stale_for=5, stale_if_error=20)
WRONG: Any = "no"


def kept(until: float = 10.0, value: Any = "value") -> Entry:
    return Entry(value, until, until, until)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ttl": 0}, ValueError, "ttl must be greater than 0, got 0"),
        ({"ttl": math.inf}, ValueError, "ttl must be finite, got inf"),
        ({"ttl": True}, TypeError, "ttl must be a number, got True"),
        ({"jitter": -0.1}, ValueError, "jitter must be at least 0"),
        ({"jitter": 1.1}, ValueError, "jitter must be at most 1"),
        ({"stale_for": -1}, ValueError, "stale_for must be at least 0"),
        ({"stale_if_error": math.nan}, ValueError, "stale_if_error must be finite"),
        ({"negative_ttl": 0}, ValueError, "negative_ttl must be greater than 0"),
        ({"beta": -1}, ValueError, "beta must be at least 0"),
    ],
)
def test_bad_rules_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CacheRule(**{"ttl": 1, **options})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_entries": 0}, ValueError, "max_entries must be at least 1"),
        ({"max_weight": 0, "weigh": len}, ValueError, "max_weight must be greater than 0"),
        ({"max_weight": 1}, ValueError, "weigh and max_weight must be given together"),
        ({"weigh": len}, ValueError, "weigh and max_weight must be given together"),
        ({"weigh": 5, "max_weight": 1}, TypeError, "weigh must be a function of a value, got 5"),
        ({"longest": 0}, ValueError, "longest must be greater than 0"),
    ],
)
def test_bad_bounds_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CacheMachine(**options)


@pytest.mark.parametrize(
    ("now", "expected"),
    [(0, FRESH), (9.9, FRESH), (10, STALE), (14.9, STALE), (15, SPARE), (29.9, SPARE), (30, GONE), (-5, FRESH)],
)
def test_the_life_of_an_entry(now: float, expected: object) -> None:
    entry = RULE.entry("value", 0.0, 0.0, 0.5)
    assert entry.freshness(now, 1.0) is expected
    assert entry.until == 30


def test_stale_may_last_longer_than_spare() -> None:
    entry = CacheRule(10, jitter=0, stale_for=5, stale_if_error=2).entry("value", 0.0, 0.0, 0.0)
    assert [entry.freshness(now, 0.0) for now in (12, 14, 15)] == [STALE, STALE, GONE]
    assert entry.until == 15


def test_each_entry_has_a_ttl_of_its_own() -> None:
    rule = CacheRule(10, jitter=0.2)
    lives = [rule.entry("value", 100.0, 0.0, draw).expires - 100 for draw in (0.0, 0.5, 0.999999)]
    assert lives == pytest.approx([10, 9, 8], abs=1e-4)


def test_negative_results_live_shortly_and_are_never_stale_or_early() -> None:
    rule = CacheRule(100, jitter=0, stale_for=5, stale_if_error=5, negative_ttl=2)
    entry = rule.negative("none", 0.0, 0.0, failed=False)
    assert [entry.freshness(now, 40.0) for now in (0, 1.9, 2)] == [FRESH, FRESH, GONE]
    assert rule.longest == 105
    assert CacheRule(1, negative_ttl=7).longest == 7


def test_it_is_refreshed_early_by_the_luck_of_a_draw_and_the_time_it_took() -> None:
    rule = CacheRule(10, jitter=0, beta=2.0)
    assert rule.draw(0.0) == 0
    assert rule.draw(1 - math.exp(-3)) == pytest.approx(6)
    slow = rule.entry("value", 0.0, 0.5, 0.0)
    assert [slow.freshness(now, 6.0) for now in (6.9, 7, 9.9)] == [FRESH, EARLY, EARLY]
    assert slow.freshness(9.9, 0.0) is FRESH
    assert CacheRule(10, beta=0).draw(0.99) == 0


def test_before_a_certain_moment_no_draw_finds_it_early() -> None:
    rule = CacheRule(100, jitter=0, beta=2.0)
    entry = rule.entry("value", 0.0, 0.5, 0.0)
    assert entry.freshness(math.nextafter(entry.calm_until, 0), rule.draw(1 - 2.0**-53)) is FRESH
    assert 60 < entry.calm_until < 65
    assert rule.negative("none", 0.0, 0.0, failed=True).calm_until == -math.inf


def test_it_keeps_what_it_is_given() -> None:
    cache = CacheMachine(2)
    entry = kept()
    assert cache.put("a", entry, 0.0)
    assert cache.get("a") is cache.find("a") is entry
    assert cache.get("b") is cache.find("b") is None
    assert (len(cache), cache.weight) == (1, 1)
    assert cache.drop("a")
    assert not cache.drop("a")
    assert (len(cache), cache.weight) == (0, 0)


def test_the_least_recently_used_leaves_first() -> None:
    cache = CacheMachine(2)
    for key in "ab":
        cache.put(key, kept(), 0.0)
    cache.get("a")
    cache.find("b")  # a look from outside is no use
    cache.put("c", kept(), 0.0)
    assert [cache.find(key) is not None for key in "abc"] == [True, False, True]
    assert cache.evicted == 1


def test_weights_bound_it_too() -> None:
    cache = CacheMachine(10, max_weight=10, weigh=len)
    cache.put("a", kept(value="1234"), 0.0)
    cache.put("b", kept(value="1234"), 0.0)
    assert cache.weight == 8
    cache.put("a", kept(value="12"), 0.0)
    assert cache.weight == 6
    cache.put("c", kept(value="123456"), 0.0)
    assert [cache.find(key) is not None for key in "abc"] == [True, False, True]
    assert not cache.put("a", kept(value="x" * 11), 0.0), "too heavy alone"
    assert cache.find("a") is None, "what was there is out of date"
    assert cache.find("c") is not None
    cache.put("e", Entry(ValueError(), 10.0, 10.0, 10.0, failed=True), 0.0)
    assert cache.weight == 7, "errors weigh 1"


def test_a_broken_weight_changes_nothing() -> None:
    cache = CacheMachine(10, max_weight=10, weigh=lambda value: value)
    cache.put("a", kept(value=3), 0.0)
    with pytest.raises(ValueError, match=r"weigh\(value\) must be at least 0, got -1"):
        cache.put("a", kept(value=-1), 0.0)
    with pytest.raises(TypeError, match=r"weigh\(value\) must be a number"):
        cache.put("a", kept(value=WRONG), 0.0)
    held = cache.find("a")
    assert held is not None
    assert (held.value, cache.weight) == (3, 3)


def test_what_is_gone_leaves_by_itself() -> None:
    cache = CacheMachine(longest=8.0)
    for moment in range(10):
        cache.put(moment, kept(until=moment + 2.0), float(moment))
    assert len(cache) <= 4
    cache.put("last", kept(until=200.0), 100.0)
    assert len(cache) == 1


def test_clear_forgets_everything() -> None:
    cache = CacheMachine()
    for key in range(5):
        cache.put(key, kept(), 0.0)
    cache.clear()
    assert (len(cache), cache.weight, cache.get(3)) == (0, 0, None)
    cache.put("a", kept(until=100.0), 90.0)
    assert len(cache) == 1


histories = st.lists(
    st.tuples(st.sampled_from("pppgd"), st.integers(0, 12), st.integers(0, 5), st.integers(1, 9), st.integers(0, 30)),
    max_size=80,
)


@settings(max_examples=100, deadline=None)
@given(histories)
def test_it_is_what_a_plain_list_in_order_of_use_would_be(history: list[tuple[str, int, int, int, int]]) -> None:
    cache = CacheMachine(6, max_weight=20, weigh=lambda value: value, longest=40.0)
    model: dict[int, Entry] = {}  # oldest use first
    now = 0.0
    for operation, key, elapsed, weight, life in history:
        now += elapsed
        if operation == "p":
            entry = kept(now + life, weight)
            cache.put(key, entry, now)
            model.pop(key, None)
            for gone in [each for each, held in model.items() if held.until // 5 < now // 5]:
                del model[gone]
            model[key] = entry
            while len(model) > 6 or sum(each.value for each in model.values()) > 20:
                del model[next(iter(model))]
        elif operation == "g":
            if key in model:
                model[key] = model.pop(key)
            assert cache.get(key) is model.get(key)
        else:
            assert cache.drop(key) is (model.pop(key, None) is not None)
        assert len(cache) == len(model)
        assert cache.weight == sum(each.value for each in model.values())
        assert all(cache.find(key) is entry for key, entry in model.items())
        assert sum(map(len, cache._ending.values())) == len(model), "nothing of what left is remembered"


def simulated(beta: float, rate: float, duration: float, rounds: int, seed: int = 1) -> list[int]:
    """Refreshes that are under way together when nothing but luck keeps callers apart, for each life of an entry."""
    chance = random.Random(seed)
    rule = CacheRule(ttl=10, jitter=0, beta=beta)
    sizes: list[int] = []
    for _ in range(rounds):
        entry = rule.entry("value", 0.0, duration, 0.0)
        now, begun, first_done = 0.0, 0, math.inf
        now = entry.expires - 12 * duration * max(beta, 1.0)
        while now < first_done:
            now += chance.expovariate(rate)
            if now < first_done and entry.freshness(now, rule.draw(chance.random())) is not FRESH:
                begun += 1
                first_done = min(first_done, now + duration)
        sizes.append(begun)
    return sizes


@pytest.mark.parametrize("rate", [20.0, 500.0])
def test_early_refreshes_hardly_meet_whatever_the_rate(rate: float) -> None:
    """Without any lock: exp(1 / beta) refreshes meet on average; without early refresh, all that look meanwhile."""
    duration = 0.2
    for beta in (1.0, 4.0):
        sizes = simulated(beta, rate, duration, rounds=300)
        mean = sum(sizes) / len(sizes)
        print(f"rate {rate:g}, beta {beta:g}: {mean:.2f} refreshes at once, theory {math.exp(1 / beta):.2f}")
        assert mean == pytest.approx(math.exp(1 / beta), rel=0.2)
    stampede = simulated(0.0, rate, duration, rounds=50)
    assert sum(stampede) / len(stampede) == pytest.approx(1 + rate * duration, rel=0.2)
