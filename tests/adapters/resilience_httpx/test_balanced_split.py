"""Split: by weight, by header, by key; and shadow copies."""

from __future__ import annotations

import importlib
from collections import Counter
from functools import partial
from typing import Any, cast

import anyio
import pytest

from resilience import Event, Timeout
from resilience.events import ShadowAnswered, ShadowDropped
from resilience.testing import run
from resilience_httpx import Balanced, ResilientTransport, Shadow, Split

from .fake_fleet import FakeFleet, FakeServer, body

OLD, NEW = "http://old", "http://new"


@pytest.fixture(params=["httpx", "httpx2"])
def lib(request: pytest.FixtureRequest) -> Any:
    return importlib.import_module(request.param)


@pytest.fixture(params=["asyncio", "trio"])
def go(request: pytest.FixtureRequest) -> Any:
    """Runs a function in virtual time."""
    return partial(run, backend=request.param)


def routes(fleet: FakeFleet) -> dict[str, Balanced]:
    fleet.latency = {OLD: 0.0, NEW: 0.0, **fleet.latency}
    return {"old": fleet.balanced([OLD]), "new": fleet.balanced([NEW])}


def split(fleet: FakeFleet, **options: Any) -> Split:
    given: dict[str, Any] = {"random": fleet.random.random, **options}
    return Split(routes(fleet), **given)


def user(request: Any) -> Any:
    return request.headers.get("user")


def test_traffic_is_divided_by_weight(lib: Any, go: Any) -> None:
    fleet = FakeFleet(lib)

    async def main() -> None:
        divided = split(fleet, weights={"old": 90, "new": 10})
        answers = [await fleet.get(divided) for _ in range(1000)]
        assert 70 < fleet.counts()[NEW] < 130
        assert Counter(answer.extensions["resilience_route"] for answer in answers) == {
            "old": fleet.counts()[OLD],
            "new": fleet.counts()[NEW],
        }
        divided.shift({"new": 1})
        assert divided.weights == {"new": 1}
        before = fleet.counts()[NEW]
        for _ in range(50):
            await fleet.get(divided)
        assert fleet.counts()[NEW] == before + 50

    go(main)


def test_a_key_goes_one_way_and_a_larger_weight_takes_keys_and_gives_none(lib: Any, go: Any) -> None:
    fleet = FakeFleet(lib)

    async def main() -> None:
        divided = split(fleet, weights={"old": 95, "new": 5}, key=user)

        async def newcomers() -> set[str]:
            ways = {name: await fleet.get(divided, user=name) for name in map(str, range(200))}
            again = {name: await fleet.get(divided, user=name) for name in list(ways)[:50]}
            found = {name for name, way in ways.items() if way.extensions["resilience_route"] == "new"}
            for name, way in again.items():
                assert way.extensions["resilience_route"] == ways[name].extensions["resilience_route"]
            return found

        few = await newcomers()
        divided.shift({"old": 50, "new": 50})
        many = await newcomers()
        assert few < many
        assert 3 < len(few) < 25
        assert 75 < len(many) < 125
        assert (await fleet.get(divided)).status_code == 200  # without a key, at random

    go(main)


def test_a_header_or_a_function_names_the_route(lib: Any, go: Any) -> None:
    """The strangler: paths that the new system has go there, a header can ask for either."""
    fleet = FakeFleet(lib)

    def moved(request: Any) -> str | None:
        return "new" if request.url.path.startswith("/orders") else None

    def misled(request: Any) -> str:
        return "newer"

    async def main() -> None:
        divided = split(fleet, weights={"old": 1}, choose=moved, header="x-system")
        cases: list[tuple[str, dict[str, str]]] = [
            ("/orders/7", {}),
            ("/users", {}),
            ("/users", {"x-system": "new"}),
            ("/users", {"x-system": "?"}),
        ]
        ways = [(await fleet.get(divided, path, **headers)).extensions["resilience_route"] for path, headers in cases]
        assert ways == ["new", "old", "new", "old"]
        wrong = split(fleet, choose=misled)
        with pytest.raises(ValueError, match="choose must name one of old, new, got 'newer'"):
            await fleet.get(wrong)

    go(main)


def test_shadows_are_copies_that_nobody_waits_for(lib: Any, go: Any) -> None:
    fleet = FakeFleet(lib)
    fleet.latency[NEW] = 2.0
    fleet.status[NEW] = 500
    events: list[Event] = []

    async def main() -> None:
        divided = split(fleet, weights={"old": 1}, shadow=Shadow("new", limit=3))
        divided.listen(events.append)
        async with lib.AsyncClient(transport=ResilientTransport(Timeout(0.5), divided)) as client:
            with anyio.fail_after(0.4):
                for number in range(5):
                    assert (await client.get(f"http://orders/{number}", headers={"a": "b"})).status_code == 200
                await client.post("http://orders/", content=b"never copied")
                await client.request("QUERY", "http://orders/", content=body(lib, b"read once"))
            await anyio.sleep(5)
            await client.request("QUERY", "http://orders/", content=b"body")
            await anyio.sleep(5)

    go(main)
    copies = [request for _, url, request in fleet.sent if url == NEW]
    ways = [(copy.method, copy.url.path, copy.headers.get("a")) for copy in copies]
    assert sorted(ways, key=str) == [*(("GET", f"/{number}", "b") for number in range(3)), ("QUERY", "/", None)]
    answered = [event for event in events if isinstance(event, ShadowAnswered)]
    assert [(event.route, event.status, event.error) for event in answered] == [("new", 500, None)] * 4
    assert all(1 <= event.duration <= 3 for event in answered)
    assert events.count(ShadowDropped("", "split", "new")) == 2
    assert len(fleet.closed) == 2


def test_a_shadow_that_fails_hangs_or_is_left_behind_harms_nobody(lib: Any, go: Any) -> None:
    fleet = FakeFleet(lib)
    events: list[Event] = []

    async def main() -> None:
        divided = split(fleet, weights={"old": 1}, shadow=Shadow("new", timeout=3))
        divided.listen(events.append)
        fleet.errors[NEW] = OSError("down")
        await fleet.get(divided)
        await anyio.sleep(1)
        fleet.latency[NEW] = 100.0
        await fleet.get(divided)
        await anyio.sleep(10)
        await fleet.get(divided)
        await anyio.sleep(1)
        async with divided:
            pass  # ends the one under way

    go(main)
    errors = [(event.status, str(event.error)) for event in events if isinstance(event, ShadowAnswered)]
    assert errors == [(None, "down"), (None, "longer than 3 s")]


def test_a_shadow_does_not_outlive_its_loop(lib: Any, go: Any) -> None:
    fleet = FakeFleet(lib)
    fleet.latency[NEW] = 100.0
    divided = split(fleet, weights={"old": 1}, shadow=Shadow("new", limit=1))

    async def main() -> None:
        await fleet.get(divided)
        await anyio.sleep(1)

    go(main)
    go(main)  # what the first loop took with it counts no more
    assert fleet.counts()[NEW] == 2


def test_a_part_is_copied_and_nothing_that_goes_there_anyway(lib: Any, go: Any) -> None:
    fleet = FakeFleet(lib)

    async def main() -> None:
        divided = split(fleet, weights={"old": 1}, header="x", shadow=Shadow("new", part=0.2, methods=["get"]))
        for _ in range(500):
            await fleet.get(divided)
            await anyio.sleep(1)
        assert 70 < fleet.counts()[NEW] < 130
        before = fleet.counts()[NEW]
        for _ in range(10):
            await fleet.get(divided, x="new")
        assert fleet.counts()[NEW] == before + 10
        await divided.aclose()

    go(main)


def test_rounding_leaves_nobody_out(lib: Any) -> None:
    fleet = FakeFleet(lib)
    divided = split(fleet, weights={"old": 0.1, "new": 0.2}, random=lambda: 1.0)
    assert divided._route(lib.Request("GET", "http://a/")) == "new"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"routes": {}}, ValueError, "routes must not be empty"),
        ({"routes": {"old": "http://old"}}, TypeError, "routes must be async transports, got 'http://old' for 'old'"),
        ({"weights": {"newer": 1}}, ValueError, "weights must name one of old, new, got 'newer'"),
        ({"weights": {"new": -1}}, ValueError, r"weights\['new'\] must be at least 0"),
        ({"weights": {"new": "1"}}, TypeError, r"weights\['new'\] must be a number"),
        ({"weights": {"new": 0}}, ValueError, "weights must have one above 0"),
        ({"weights": {}}, ValueError, "weights must have one above 0"),
        ({"key": "user"}, TypeError, "key must be a function of the request"),
        ({"choose": "user"}, TypeError, "choose must be a function of the request"),
        ({"header": ""}, ValueError, "header must be a non-empty string"),
        ({"name": ""}, ValueError, "name must be a non-empty string"),
        ({"shadow": Shadow("newer")}, ValueError, "shadow must name one of old, new, got 'newer'"),
        ({"shadow": "new"}, TypeError, "shadow must be a Shadow"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    fleet, make = FakeFleet(importlib.import_module("httpx2")), cast("Any", Split)
    with pytest.raises(error, match=message):
        make(**{"routes": routes(fleet), **options})


def test_a_wrong_shift_changes_nothing(lib: Any) -> None:
    divided = split(FakeFleet(lib))
    with pytest.raises(ValueError, match="at least 0"):
        divided.shift({"old": 5, "new": -1})
    assert divided.weights == {"old": 1, "new": 1}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"part": 0}, ValueError, "part must be greater than 0"),
        ({"part": 1.5}, ValueError, "part must be at most 1"),
        ({"limit": 0}, ValueError, "limit must be at least 1"),
        ({"timeout": 0}, ValueError, "timeout must be greater than 0"),
        ({"methods": "GET"}, TypeError, "methods must be a collection of method names"),
        ({"methods": [1]}, TypeError, "methods must be a collection"),
    ],
)
def test_wrong_shadows_are_refused(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Shadow("new", **options)


def test_routes_may_be_any_transports(lib: Any, go: Any) -> None:
    fleet = FakeFleet(lib)

    async def main() -> None:
        server: Any = FakeServer(fleet, routes(fleet)["new"].status()[0].endpoint)
        divided = Split({"only": server})
        assert (await fleet.get(divided)).extensions["resilience_route"] == "only"

    go(main)
