"""How values become text for a store that other processes read, and values again.

    codec = JsonCodec()
    codec.decode(codec.encode({"id": 7, "tags": ["a"]}))      # the same, or an error when it is encoded

Any object with `name`, `encode` and `decode` is a codec. Entries of different names are kept apart.
"""

from __future__ import annotations

import base64
import json
import math
from typing import Any, Protocol


class Codec(Protocol):
    """Turns values into text and back."""

    @property
    def name(self) -> str:
        """A short name of the form; part of every key, so that a change of it finds no entries of another form."""
        ...

    def encode(self, value: Any) -> str:
        """The value as text. Raises TypeError or ValueError for what it cannot represent."""
        ...

    def decode(self, text: str) -> Any:
        """The value that was encoded. Any exception means that the text is not understood."""
        ...


class JsonCodec:
    """JSON, strictly: None, bool, int, finite float, str, list, and dict with str keys come back as they were.

    For anything else, tuples, other keys and subclasses included, `encode` raises TypeError (ValueError for NaN and
    infinity) that says where in the value it is: JSON would silently give back something else.
    """

    name = "json"

    def encode(self, value: Any) -> str:
        """The value as JSON text in ASCII."""
        _check(value, "value")
        return json.dumps(value, separators=(",", ":"))

    def decode(self, text: str) -> Any:
        """The value of JSON text."""
        return json.loads(text)


class PickleCodec:
    """Python's pickle, for values that JSON does not know.

    Unsafe wherever somebody else can write to the store: whoever can put an entry there runs code of their choice in
    every process that reads it. Never use it with a server that you share.
    """

    name = "pickle"

    def encode(self, value: Any) -> str:
        """The value pickled, in base 64."""
        import pickle

        return base64.b64encode(pickle.dumps(value)).decode("ascii")

    def decode(self, text: str) -> Any:
        """The value that was pickled. Runs whatever the text says."""
        import pickle

        return pickle.loads(base64.b64decode(text))


def _check(value: Any, where: str) -> None:
    kind = _kind(value)
    if kind is list:
        for place, each in enumerate(value):
            _check(each, f"{where}[{place}]")
    elif kind is dict:
        for key, each in value.items():
            if type(key) is not str:
                raise TypeError(f"{where} has the key {key!r}: JSON has only strings as keys")
            _check(each, f"{where}[{key!r}]")
    elif kind is float:
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value!r}: JSON has only finite numbers")
    elif value is not None and kind not in (bool, int, str):
        raise TypeError(
            f"{where} is a {kind.__qualname__}, which JSON cannot give back as it was: return plain data, or give the "
            "cache another codec="
        )


def _kind(value: object) -> type:
    return type(value)
