"""Which calls are the same call: keys from the function and the arguments.

    keys = Keys()
    keys.of(call)       # for a dictionary in this process
    keys.text(call)     # the same in every process

`1`, `True`, `1.0` and `"1"` are different arguments, also inside of tuples; the order of keywords means nothing, and
neither does whether an argument was given by position or by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from types import FunctionType, MethodType
from typing import Any, TypeAlias

from ..call import Call
from ._frozen_values import PLAIN, Frozen, Instance, freeze, kind_of, say

Named: TypeAlias = "tuple[tuple[str, Frozen], ...]"

_SHAPES = 1000
"""Functions whose parameters are remembered."""


class Keys:
    """Makes keys of calls. `key`, a function of the call's arguments, takes their place; `ignore` names some to skip.

    Raises TypeError at construction if `key` cannot be called or `ignore` is not a row of names.
    """

    def __init__(self, key: Callable[..., Hashable] | None = None, ignore: Iterable[str] = ()) -> None:
        if key is not None and not callable(key):
            raise TypeError(f"key must be a function of the call's arguments, got {key!r}")
        names = tuple(ignore)
        if isinstance(ignore, str) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"ignore must be a row of parameter names, got {ignore!r}")
        self._key = key
        self._ignore: frozenset[str] = frozenset(names)
        self._simple = key is None and not names
        self._shapes: dict[Any, _Shape] = {}

    def of(self, call: Call) -> Hashable:
        """The key of a call. Raises TypeError, naming the argument, for one that cannot be hashed."""
        fn, args, kwargs = call.fn, call.args, call.kwargs
        if self._simple:
            if kwargs or type(fn) is not FunctionType:
                fn, args, kwargs = self._settled(call)
            if not kwargs and type(fn) is FunctionType:  # the common case, without a look at each argument
                kinds = tuple(map(type, args))
                if PLAIN.issuperset(kinds):
                    return fn, call.key, args, kinds
        elif self._key is not None:
            fn, frozen = self._by_key(call)
            return _title(fn), call.key, frozen  # by name: the user's key is what tells calls apart
        else:
            fn, args, kwargs = self._settled(call)
        return _told_apart(fn), call.key, self._frozen(fn, args, kwargs)

    def text(self, call: Call) -> str:
        """The key of a call as text that means the same in other processes.

        Raises TypeError, naming the argument, for one that means something only here, and for a function that
        cannot be told from others by its name.
        """
        if self._key is not None:
            fn, frozen = self._by_key(call)
        else:
            fn, args, kwargs = self._settled(call)
            frozen = self._frozen(fn, args, kwargs)
        title = _title(fn)
        if self._key is None and "<" in title:
            raise TypeError(f"{title} has no name that other processes know: define it in a module, or give key=")
        said = [f"{name}:{_said(title, name, value)}" for name, value in frozen]
        return f"{title}({call.key!r}; {', '.join(said)})"

    def _by_key(self, call: Call) -> tuple[Any, Named]:
        fn = unfolded(call.fn, call.args, call.kwargs)[0]
        given = self._key(*call.args, **call.kwargs) if self._key is not None else None
        return fn, (("key", _frozen(fn, "key", given)),)

    def _settled(self, call: Call) -> tuple[Any, tuple[Any, ...], Mapping[str, Any]]:
        """A call as one of the function behind it, with as many arguments by position as can be."""
        fn, args, kwargs = call.fn, call.args, call.kwargs
        if type(fn) is not FunctionType:
            fn, args, kwargs = unfolded(fn, args, kwargs)
        return (fn, *self._shape_of(fn).settled(args, kwargs)) if kwargs else (fn, args, kwargs)

    def _frozen(self, fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Named:
        """What counts of the arguments."""
        shape, ignore = self._shape_of(fn), self._ignore
        names, found = shape.names, list[tuple[str, Frozen]]()
        if len(args) > len(names):
            names = [*names, *(f"*{place}" for place in range(len(names), len(args)))]
        for name, value in zip(names, args, strict=False):
            if name not in ignore:
                kind = kind_of(value)
                if kind in PLAIN:
                    found.append((name, (kind, value)))
                elif name == shape.instance:
                    found.append((name, (Instance, Instance(value))))
                else:
                    found.append((name, _frozen(fn, name, value)))
        for name in sorted(kwargs) if kwargs else ():
            if name not in ignore:
                found.append((f"{name}=", _frozen(fn, name, kwargs[name])))
        return tuple(found)

    def _shape_of(self, fn: Any) -> _Shape:
        if not isinstance(fn, FunctionType):
            return _Shape(fn)
        shape = self._shapes.get(fn)
        if shape is None:
            if len(self._shapes) >= _SHAPES:  # functions made for one call each
                self._shapes.clear()
            shape = self._shapes[fn] = _Shape(fn)
        return shape


class _Shape:
    """The parameters of a function, as far as calls are concerned."""

    __slots__ = ("_named", "instance", "names")

    def __init__(self, fn: Any) -> None:
        try:
            parameters = list(inspect.signature(fn).parameters.values())
        except (TypeError, ValueError):  # some builtins do not tell
            parameters = []
        only, either = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
        self.names = [parameter.name for parameter in parameters if parameter.kind in (only, either)]
        self._named = {parameter.name for parameter in parameters if parameter.kind is either}
        self.instance = self.names[0] if self.names[:1] in (["self"], ["cls"]) else ""

    def settled(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments that were given by name but could have been given by position, by position."""
        rest, settled = dict(kwargs), list(args)
        for name in self.names[len(args) :]:
            if name not in rest or name not in self._named:
                break
            settled.append(rest.pop(name))
        return tuple(settled), rest


def unfolded(fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """A call of a partial or a bound method as one of the function behind it."""
    named = dict(kwargs)
    while True:
        if issubclass(type(fn), partial):
            fn, args, named = fn.func, fn.args + args, {**fn.keywords, **named}
        elif isinstance(fn, MethodType):
            fn, args = fn.__func__, (fn.__self__, *args)
        else:
            return fn, args, named


def _told_apart(fn: Any) -> Hashable:
    return fn if isinstance(fn, FunctionType) else Instance(fn)


def _title(fn: Any) -> str:
    module = getattr(fn, "__module__", None) or type(fn).__module__
    name = getattr(fn, "__qualname__", None)
    return f"{module}.{name}" if name else f"{type(fn).__module__}.{type(fn).__qualname__}.<instance>"


def _frozen(fn: Any, name: str, value: Any) -> Frozen:
    try:
        return freeze(value)
    except TypeError as error:
        raise TypeError(
            f"{_title(fn)}: argument {name!r} ({type(value).__name__}) cannot be part of a cache key: {error}; "
            "pass something immutable, leave it out with ignore=, or give key="
        ) from None


def _said(title: str, name: str, frozen: Frozen) -> str:
    try:
        return say(frozen)
    except TypeError as error:
        raise TypeError(
            f"{title}: argument {name!r} cannot be part of a key that processes share: {error}; leave it out with "
            "ignore=, or give key="
        ) from None
