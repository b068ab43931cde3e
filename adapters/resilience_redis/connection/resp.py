"""What goes over the wire: commands to bytes, and bytes to replies (RESP 2, and what scripts return in RESP 3).

    pack([("GET", "key")])                   # b"*2
$3
GET
$3
key
"
    replies = Replies(parse_error)
    replies.feed(b"$2\r\nhi\r\n:7\r\n+O")    # [b"hi", 7]
    replies.feed(b"K\r\n")                   # [b"OK"]

Strings are bytes, errors what `parse_error` makes of their text. Messages that answer no command are left out, unless
they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from redis.exceptions import InvalidResponse


def pack(commands: Iterable[Sequence[str | int]]) -> bytes:
    """Return commands in the form in which they are sent."""
    packed: list[str] = []
    for command in commands:
        packed.append(f"*{len(command)}\r\n")
        packed += [f"${len(word)}\r\n{word}\r\n" for word in map(str, command)]
    text = "".join(packed)
    return text.encode() if text.isascii() else b"".join(map(_pack_one, commands))


class Replies:
    """The replies of one connection, whole ones only; with `pushed` also what RESP 3 sends without being asked."""

    __slots__ = ("_parse_error", "_pushed", "_rest")

    def __init__(self, parse_error: Callable[[str], Exception], *, pushed: bool = False) -> None:
        self._parse_error = parse_error
        self._pushed = pushed
        self._rest = b""

    def feed(self, data: bytes) -> list[Any]:
        """Return the replies that are complete now. Raises InvalidResponse for what is no reply."""
        if self._rest:
            data = self._rest + data
        replies: list[Any] = []
        position = 0
        try:
            while position < len(data):
                reply, position = self._read(data, position)
                if reply is not _LEFT_OUT:
                    replies.append(reply)
        except _IncompleteError:
            pass
        except ValueError as error:
            raise InvalidResponse(f"not a reply: {data[position : position + 40]!r}") from error
        self._rest = data[position:]
        return replies

    def _read(self, data: bytes, start: int) -> tuple[Any, int]:
        """Return the reply that begins at `start`, and where the next one does."""
        end = data.find(b"\r\n", start)
        if end < 0:
            raise _IncompleteError
        kind, head, after = data[start : start + 1], data[start + 1 : end], end + 2
        if kind in (b"$", b"!"):
            return self._read_counted(kind, int(head), data, after)
        if kind in (b"*", b">"):
            return self._read_listed(kind, int(head), data, after)
        if kind == b"-":
            return self._error(head), after
        if kind not in _PLAIN:
            raise ValueError(kind)
        return _PLAIN[kind](head), after

    def _read_counted(self, kind: bytes, length: int, data: bytes, start: int) -> tuple[Any, int]:
        if length < 0:
            return None, start
        end = start + length
        if len(data) < end + 2:
            raise _IncompleteError
        content = data[start:end]
        return (content if kind == b"$" else self._error(content)), end + 2

    def _read_listed(self, kind: bytes, length: int, data: bytes, start: int) -> tuple[Any, int]:
        if length < 0:
            return None, start
        members: list[Any] = []
        for _ in range(length):
            member, start = self._read(data, start)
            members.append(member)
        return (members if kind == b"*" or self._pushed else _LEFT_OUT), start

    def _error(self, text: bytes) -> Exception:
        return self._parse_error(text.decode("utf-8", "replace"))


def _pack_one(command: Sequence[str | int]) -> bytes:
    words = [str(word).encode() for word in command]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


class _IncompleteError(Exception):
    """The rest is still under way."""


_LEFT_OUT = object()

_PLAIN: dict[bytes, Callable[[bytes], Any]] = {
    b"+": bytes,
    b":": int,
    b",": float,
    b"(": int,
    b"#": lambda head: head == b"t",
    b"_": lambda head: None,
}
