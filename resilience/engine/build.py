"""Which policies become one frame, and how the rest is folded around it.

handler = build(pipeline.parts(), operation)                 # for calls that come as records
function = build_function(pipeline.parts(), fn, operation)   # None if fn cannot have a frame of its own
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Sequence
from itertools import takewhile
from typing import Any

from ..call import Handler, Operation, invoke
from ..policy import Policy
from .fragments import Fragment, fragment
from .frame import Frame
from .unwind import Step

fused = True
"""Whether pipelines get a fast path. Off, all calls take the plain path; the tests run with both."""


def build(parts: Sequence[Policy], operation: Operation, proceed: Handler = invoke) -> Handler:
    """Fold policies, outermost first, around `proceed`: as many of the innermost as possible in one frame."""
    plain = _fold(parts, proceed)
    fragments = _innermost(parts)
    if not fragments:
        return plain[0]
    outside = len(parts) - len(fragments)
    handler = _frame(parts, fragments, plain, operation).handler()
    return _fold(parts[:outside], handler)[0]


def build_frame(parts: Sequence[Policy], operation: Operation) -> Frame | None:
    """The frame of all the policies, for adapters and for `Policy.outcome`; None if they cannot share one."""
    fragments = _innermost(parts)
    if not fragments or len(fragments) < len(parts):
        return None
    return _frame(parts, fragments, _fold(parts, invoke), operation)


def build_function(
    parts: Sequence[Policy], fn: Callable[..., Any], operation: Operation
) -> Callable[..., Coroutine[Any, Any, Any]] | None:
    """The frame for one coroutine function, with its own signature; None if the policies or the function forbid it."""
    if not inspect.iscoroutinefunction(fn) or not inspect.isfunction(fn):
        return None
    if "__signature__" in vars(fn):  # what it says of itself need not be what it takes
        return None
    fragments = _innermost(parts)
    if not fragments or len(fragments) < len(parts):
        return None
    try:
        return _frame(parts, fragments, _fold(parts, invoke), operation).function(fn)
    except ValueError:  # its parameters have names that the frame uses itself
        return None


def _fold(parts: Sequence[Policy], proceed: Handler) -> list[Handler]:
    """The plain handlers: of all the policies, of all but the first, and so on; last `proceed` itself."""
    handlers = [proceed]
    for policy in reversed(parts):
        handlers.insert(0, policy.wrap(handlers[0]))
    return handlers


def _innermost(parts: Sequence[Policy]) -> list[Fragment]:
    """The fragments of the longest innermost row of policies that can share a frame, outermost first."""
    if not fused:
        return []
    found = [fragment(policy, place) for place, policy in enumerate(parts)]
    row = [part for part in takewhile(lambda part: part is not None, reversed(found)) if part is not None]
    shared = [id(state) for part in row for state in part.states]
    # What looks at a state before another takes from it would not see that: such a row is not ordinary.
    return list(reversed(row)) if len(set(shared)) == len(shared) else []


def _frame(
    parts: Sequence[Policy], fragments: Sequence[Fragment], plain: Sequence[Handler], operation: Operation
) -> Frame:
    first = len(parts) - len(fragments)
    steps = [Step(part, plain[first + place + 1]) for place, part in enumerate(fragments)]
    return Frame(plain[first], plain[-1], steps[::-1], operation)
