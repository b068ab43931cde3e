"""What a cache writes into a store elsewhere: values by the codec, and errors that are answers by type and arguments.

letters = Letters(JsonCodec(), {"app.NotFound": NotFound})
kind, payload = letters.encode(fetched)
letters.value_of(look)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..machines.cache_lease import Look
from ._cache_judge import Fetched, name_of

if TYPE_CHECKING:
    from .codecs import Codec


class UnreadableError(Exception):
    """An entry that this process does not understand."""


class Letters:
    """Encodes and decodes entries. `known` are the errors that may be kept, by name; nothing else is made of one."""

    def __init__(self, codec: Codec, known: Mapping[str, type[Exception]]) -> None:
        self.codec = codec
        self._known = known

    def encode(self, fetched: Fetched) -> tuple[str, str]:
        """The kind of an entry and its text. Raises TypeError or ValueError for what cannot be represented."""
        error = fetched.error
        if error is None:
            return fetched.kind.value, self.codec.encode(fetched.value)
        name = name_of(type(error))
        if name not in self._known:
            raise TypeError(f"{name} is not itself one of the exception types in negative")
        return "error", self.codec.encode([name, list(error.args)])

    def value_of(self, look: Look) -> Any:
        """The value of an entry that was found. Raises the error that was kept."""
        if look.kind != "error":
            try:
                return self.codec.decode(look.payload)
            except Exception as error:
                raise UnreadableError from error
        try:
            name, arguments = self.codec.decode(look.payload)
            kept = self._known[name](*arguments)
        except Exception as error:
            raise UnreadableError from error
        raise kept
