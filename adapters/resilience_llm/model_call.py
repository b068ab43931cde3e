"""A request to a model, as far as limits are concerned: which model, by which key, with how much text.

call = model_call(request, ("/chat/completions",))
call.model     # "gpt-5"
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast


@dataclass(frozen=True, slots=True)
class ModelCall:
    """What functions that estimate tokens or choose a key are told of a request."""

    path: str
    """The path of the URL, such as `/v1/chat/completions`."""
    body: Mapping[str, Any]
    """The JSON body; empty if it is none, or is generated while it is sent."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """Those of the request; names are looked up in any case."""
    size: int = 0
    """Bytes of the body, if known."""

    @property
    def model(self) -> str:
        """The model asked for, empty if the body names none."""
        model = self.body.get("model")
        return model if isinstance(model, str) else ""


def model_call(request: Any, paths: tuple[str, ...]) -> ModelCall | None:
    """Read a request of httpx or httpx2; None unless it is a POST to a path with one of these ends."""
    if request.method != "POST" or not request.url.path.endswith(paths):
        return None
    content = _content(request)
    return ModelCall(request.url.path, json_object(content), request.headers, len(content) or _length(request))


def json_object(content: bytes) -> Mapping[str, Any]:
    """A JSON object; an empty one for anything else."""
    value = json_value(content)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def json_value(content: bytes) -> Any:
    """A JSON value; None for anything else."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested too deep
        return None


def _content(request: Any) -> bytes:
    try:
        content: bytes = request.content
    except Exception:  # RequestNotRead of either library: a body that is generated
        return b""
    return content


def _length(request: Any) -> int:
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 16 else 0
