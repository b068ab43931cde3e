"""Bytes of the wire, whole and in pieces."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import InvalidResponse, NoScriptError, ResponseError

from resilience_redis.connection.resp import Replies, pack

SAMPLES: list[tuple[bytes, Any]] = [
    (b"+OK\r\n", b"OK"),
    (b":-42\r\n", -42),
    (b"$2\r\nhi\r\n", b"hi"),
    (b"$6\r\na\r\n$1\r\r\n", b"a\r\n$1\r"),
    (b"$0\r\n\r\n", b""),
    (b"$-1\r\n", None),
    (b"*-1\r\n", None),
    (b"_\r\n", None),
    (b"#t\r\n", True),
    (b"#f\r\n", False),
    (b",1.5\r\n", 1.5),
    (b"(12345678901234567890\r\n", 12345678901234567890),
    (b"*0\r\n", []),
    (b"*3\r\n:1\r\n$1\r\nx\r\n*1\r\n+y\r\n", [1, b"x", [b"y"]]),
]


def replies(*, pushed: bool = False) -> Replies:
    def parse_error(text: str) -> Exception:
        return NoScriptError(text) if text.startswith("NOSCRIPT") else ResponseError(text)

    return Replies(parse_error, pushed=pushed)


@given(st.lists(st.sampled_from(SAMPLES), max_size=6), st.data())
def test_replies_are_the_same_however_they_are_cut(samples: list[tuple[bytes, Any]], data: st.DataObject) -> None:
    stream = b"".join(sample for sample, _ in samples)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = replies()
    found: list[Any] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.feed(stream[start:end])
    assert found == [value for _, value in samples]


@pytest.mark.parametrize("stream", [b"-NOSCRIPT No matching script.\r\n", b"!28\r\nNOSCRIPT No matching script.\r\n"])
def test_errors_are_returned_and_what_follows_is_read(stream: bytes) -> None:
    error, number = replies().feed(stream + b":7\r\n")
    assert isinstance(error, NoScriptError)
    assert number == 7


def test_what_nobody_asked_for_is_left_out_unless_it_is_wanted() -> None:
    stream = b":1\r\n>3\r\n+message\r\n+a\r\n+b\r\n:2\r\n"
    assert replies().feed(stream) == [1, 2]
    assert replies(pushed=True).feed(stream) == [1, [b"message", b"a", b"b"], 2]


@pytest.mark.parametrize("rubbish", [b"HTTP/1.1 400 Bad Request\r\n", b":seven\r\n", b"$x\r\n", b"\r\n"])
def test_rubbish_is_no_reply(rubbish: bytes) -> None:
    with pytest.raises(InvalidResponse, match="not a reply"):
        replies().feed(b":1\r\n" + rubbish)


@given(st.lists(st.lists(st.one_of(st.text(), st.integers()), min_size=1), max_size=4))
def test_commands_are_packed_by_the_length_of_their_bytes(commands: list[list[str | int]]) -> None:
    expected = [[str(word).encode() for word in command] for command in commands]
    assert replies().feed(pack(commands)) == expected
