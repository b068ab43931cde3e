"""Whether a body can be sent again as it was, and what has to be done for that.

    bookmark = await bookmark_of(request.stream)   # before the first time
    await bookmark.rewind()                        # before every other

Bytes can. Files that seek can, from where they stood; multipart forms start their files from the beginning by
themselves. Generators and pipes cannot: the second time there would be nothing in them.
"""

from __future__ import annotations

import inspect
from typing import Any

from .host import Host


class Bookmark:
    """Where a file stood when its request was made."""

    __slots__ = ("_file", "_position")

    def __init__(self, file: Any, position: Any) -> None:
        self._file = file
        self._position = position

    async def rewind(self) -> None:
        """Put the file back there."""
        await _settled(self._file.seek(self._position))


async def bookmark_of(stream: Any) -> Bookmark | None:
    """Where the file stands that is the whole of a body; None if it is no such file, or cannot seek."""
    file: Any = getattr(stream, "_stream", None)
    if type(stream).__name__ != "AsyncIteratorByteStream" or not (hasattr(file, "seek") and hasattr(file, "tell")):
        return None
    try:
        bookmark = Bookmark(file, await _settled(file.tell()))
        await bookmark.rewind()
    except (OSError, ValueError):  # a pipe, or a file that is closed
        return None
    return bookmark


def replayable(stream: Any, host: Host) -> bool:
    """Whether a stream is bytes, or a multipart form of bytes and of files that can seek."""
    if isinstance(stream, host.ByteStream):
        return True
    if type(stream).__name__ != "MultipartStream":
        return False
    fields: list[Any] = stream.fields
    return all(_seekable(getattr(field, "file", b"")) for field in fields)


def shareable(stream: Any, host: Host) -> bool:
    """Whether two attempts may send a stream at the same time: there is no file in it, which stands in one place."""
    if isinstance(stream, host.ByteStream):
        return True
    fields: list[Any] = getattr(stream, "fields", [None])
    return all(isinstance(getattr(field, "file", b"" if field else None), str | bytes) for field in fields)


async def _settled(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def _seekable(file: Any) -> bool:
    if isinstance(file, str | bytes):
        return True
    ask = getattr(file, "seekable", None)
    return bool(ask()) if callable(ask) else hasattr(file, "seek")
