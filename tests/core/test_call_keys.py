"""Which calls are the same call."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import gc
import itertools
import subprocess
import sys
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from resilience import Call, Operation
from resilience.caching._call_keys import Keys

WRONG: Any = 5


async def fetch(a: Any = None, b: Any = None, *rest: Any, **more: Any) -> None: ...
async def placed(a: Any = 0, /, **more: Any) -> None: ...


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass(frozen=True)
class Place:
    x: Any


class Colour(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    ONE = 1


class Users:
    async def fetch(self, number: int) -> None: ...

    @classmethod
    async def find(cls, number: int) -> None: ...


class Other(Users): ...


class Slotted:
    __slots__ = ()

    async def fetch(self) -> None: ...


def call(fn: Any, *args: Any, **kwargs: Any) -> Call:
    return Call(Operation(), fn, args, kwargs)


def key(fn: Any, *args: Any, **kwargs: Any) -> Any:
    return Keys().of(call(fn, *args, **kwargs))


def text(fn: Any, *args: Any, **kwargs: Any) -> str:
    return Keys().text(call(fn, *args, **kwargs))


UTC = datetime.UTC
EAST = datetime.timezone(datetime.timedelta(hours=1))
DIFFERENT: list[Any] = [
    1,
    True,
    1.0,
    "1",
    b"1",
    1 + 0j,
    Number.ONE,
    (1,),
    (True,),
    (1.0,),
    ((1,),),
    Point(1, 2),
    Point(True, 2),
    (1, 2),
    (True, 2),
    frozenset({1}),
    frozenset({True}),
    Place(1),
    Place(True),
    Place((1.0,)),
    0.0,
    -0.0,
    0,
    False,
    None,
    "None",
    "",
    decimal.Decimal("1"),
    decimal.Decimal("1.0"),
    datetime.datetime(2026, 1, 1, 12, tzinfo=UTC),
    datetime.datetime(2026, 1, 1, 13, tzinfo=EAST),
    datetime.date(2026, 1, 1),
    uuid.UUID(int=1),
    Colour.RED,
    Users,
    Other,
]
SPOKEN = [value for value in DIFFERENT if not isinstance(value, complex)]


@pytest.mark.parametrize("make", [key, text])
def test_no_two_arguments_are_taken_for_each_other(make: Callable[..., Any]) -> None:
    values = SPOKEN if make is text else DIFFERENT
    for one, other in itertools.combinations(values, 2):
        assert make(fetch, one) != make(fetch, other), (one, other)
        assert make(fetch, more=one) != make(fetch, more=other)


@pytest.mark.parametrize("make", [key, text])
def test_the_same_again_is_the_same(make: Callable[..., Any]) -> None:
    for value in [*SPOKEN, float("nan"), "x" * 5000]:
        assert make(fetch, value) == make(fetch, value)
        assert hash(make(fetch, value)) == hash(make(fetch, value))
    assert make(fetch, 1.5, Place((1, "a"))) == make(fetch, 1.5, Place((1, "a")))
    assert make(fetch, frozenset("abc")) == make(fetch, frozenset("cba"))


@pytest.mark.parametrize("make", [key, text])
def test_names_and_order_of_arguments(make: Callable[..., Any]) -> None:
    assert make(fetch, 1, 2) == make(fetch, 1, b=2) == make(fetch, b=2, a=1) == make(fetch, a=1, b=2)
    assert make(fetch, 1, y=1, x=2) == make(fetch, 1, x=2, y=1)
    assert make(fetch, 1.5, Users) == make(fetch, b=Users, a=1.5)
    different = [make(fetch, 1, 2), make(fetch, 2, 1), make(fetch, 1), make(fetch, b=1), make(fetch, 1, c=2)]
    different += [make(fetch, 1, 2, 3), make(fetch, 1, 2, **{"*2": 3}), make(fetch, (1, 2)), make(fetch)]
    assert len(set(different)) == len(different)
    assert make(placed, 2) != make(placed, a=2), "one is positional only, the other in **more"


@pytest.mark.parametrize("make", [key, text])
def test_functions_partitions_and_bound_arguments_count(make: Callable[..., Any]) -> None:
    assert make(fetch, 1) != make(placed, 1)
    assert make(functools.partial(fetch, 1), 2) == make(functools.partial(fetch, b=2), 1) == make(fetch, 1, 2)
    one, other = call(fetch, 1), call(fetch, 1)
    other.key = "eu"
    keys = Keys()
    assert keys.of(one) != keys.of(other)
    assert keys.text(one) != keys.text(other)


def test_closures_are_different_functions() -> None:
    def make(n: int) -> Any:
        async def inner(x: int) -> int:
            return n * x

        return inner

    one, two = make(1), make(2)
    assert key(one, 1) != key(two, 1)
    assert key(one, 1) == key(one, 1)


def test_an_instance_counts_by_its_identity_and_is_not_kept_alive() -> None:
    one, other = Users(), Users()
    assert key(one.fetch, 1) == key(Users.fetch, one, 1)
    assert key(one.fetch, 1) != key(other.fetch, 1)
    assert key(Users.find, 1) != key(Other.find, 1)
    before = key(one.fetch, 1)
    assert before == before
    del one
    gc.collect()
    again = Users()
    assert before != key(again.fetch, 1)
    slotted = Slotted()
    assert key(slotted.fetch) == key(slotted.fetch) != key(Slotted().fetch)


def test_a_callable_object_counts_by_its_identity() -> None:
    class Fetch:
        __hash__ = None  # type: ignore[assignment]

        async def __call__(self, number: int) -> None: ...

    one, other = Fetch(), Fetch()
    assert key(one, 1) == key(one, 1) != key(other, 1)
    assert key(len, "x") == key(len, "x")
    assert key(dict, 1) == key(dict, 1)


def test_functions_made_for_one_call_each_are_not_remembered() -> None:
    keys = Keys()
    for _ in range(1100):

        async def once(a: object) -> None: ...

        keys.of(call(once, 1.5))
    assert len(keys._shapes) <= 1000


def test_ignored_parameters_do_not_count() -> None:
    keys = Keys(ignore=("self", "b", "session"))
    one, other = Users(), Users()
    assert keys.of(call(one.fetch, 1)) == keys.of(call(other.fetch, 1)) != keys.of(call(one.fetch, 2))
    assert keys.of(call(fetch, 1, [])) == keys.of(call(fetch, 1, b={}, session=[])) != keys.of(call(fetch, 2, []))
    assert keys.text(call(one.fetch, 1)) == keys.text(call(other.fetch, 1))


def test_a_key_of_ones_own() -> None:
    def by_name(order: dict[str, Any], **rest: Any) -> Any:
        return order["id"]

    keys = Keys(by_name)
    assert keys.of(call(fetch, {"id": 1})) == keys.of(call(fetch, {"id": 1, "more": 2}, x=3))
    assert keys.of(call(fetch, {"id": 1})) != keys.of(call(fetch, {"id": True}))
    assert keys.of(call(fetch, {"id": 1})) != keys.of(call(placed, {"id": 1})), "functions are told apart all the same"
    assert keys.text(call(fetch, {"id": 1})) != keys.text(call(fetch, {"id": "1"}))
    lambdas: list[Callable[[Any], Any]] = [lambda order: fetch(order) for _ in range(2)]
    assert keys.of(call(lambdas[0], {"id": 1})) == keys.of(call(lambdas[1], {"id": 1})), "by name, not by identity"
    assert "<lambda>" in keys.text(call(lambdas[0], {"id": 1}))
    with pytest.raises(TypeError, match=r"fetch: argument 'key' \(list\) cannot be part of a cache key: unhashable"):
        keys.of(call(fetch, {"id": []}))


UNHASHABLE: list[Any] = [
    (([],), {}, "'a' (list)"),
    ((1, {}), {}, "'b' (dict)"),
    ((1, 2, []), {}, "'*2' (list)"),
    ((), {"tags": []}, "'tags' (list)"),
    ((Place([]),), {}, "'a' (Place)"),
    ((([],),), {}, "'a' (tuple)"),
]


@pytest.mark.parametrize(("args", "kwargs", "name"), UNHASHABLE)
def test_what_cannot_be_hashed_is_named(args: Any, kwargs: Any, name: str) -> None:
    with pytest.raises(TypeError) as caught:
        key(fetch, *args, **kwargs)
    assert f"fetch: argument {name} cannot be part of a cache key: unhashable type" in str(caught.value)
    assert "ignore=, or give key=" in str(caught.value)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: text(fetch, object()), r"argument 'a' cannot be part of a key that processes share: a object has no"),
        (lambda: text(fetch, (1, 1j)), "a complex has no form that is the same everywhere"),
        (lambda: text(Users().fetch, 1), r"argument 'self' .* a Users counts by its identity"),
        (lambda: text(lambda: fetch()), "has no name that other processes know"),
        (lambda: text(Callable_()), "has no name that other processes know"),
    ],
)
def test_what_means_nothing_elsewhere_is_refused_in_text(bad: Callable[[], str], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        bad()


class Callable_:  # noqa: N801
    async def __call__(self) -> None: ...


def test_text_is_the_same_in_another_process() -> None:
    values = "1, True, 2.5, 'x', None, frozenset('abcdef'), (1, ('a',)), D('1.0'), Path"
    code = f"""
from decimal import Decimal as D
from resilience import Call, Operation
from resilience.caching._call_keys import Keys
from pathlib import PurePath as Path
from inspect import getdoc
print(Keys().text(Call(Operation(), getdoc, ({values},))))
"""
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env={"PYTHONHASHSEED": s},
        ).stdout
        for s in "123"
    }
    assert len(said) == 1


def test_bad_options_are_refused() -> None:
    with pytest.raises(TypeError, match="key must be a function of the call's arguments, got 5"):
        Keys(WRONG)
    for ignore in ("self", [1]):
        wrong: Any = ignore
        with pytest.raises(TypeError, match="ignore must be a row of parameter names"):
            Keys(ignore=wrong)
