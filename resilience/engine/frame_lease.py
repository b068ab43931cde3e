"""What a frame still holds for a result that lives on after it: a streamed body.

    held = holder.hold(result, moment, kept)
    chunk = await held.step(read)            # under the deadline of the call
    held.close()                             # or held.close(error)

As a `Lease`, at the price of a few attributes as long as nothing happens: then the lines by which a frame lets its
policies go are run when the result ends. Whatever else happens is left to a `Lease`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..call import Call, Lease
from ..policies.timeout import Timeout
from ..running._sweep import Sweep
from .unwind import Unwinder

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Holder:
    """What the results of one frame have in common."""

    unwinder: Unwinder
    over: Callable[[Any, float, Sequence[Any]], None]
    """Lets the policies go after a success."""
    record: Callable[[], Call]
    sweep: Sweep | None
    timeout: Timeout | None
    """The one whose deadline comes first."""

    def hold(self, result: Any, moment: float, kept: Sequence[Any]) -> FrameLease:
        """Hold what a call took that began at `moment` and returned `result`; `kept` is what the frame noted."""
        return FrameLease(self, result, moment, kept)


class FrameLease:
    """A `Lease` for one result of a frame."""

    __slots__ = ("_holder", "_kept", "_lease", "_moment", "_result")

    def __init__(self, holder: Holder, result: Any, moment: float, kept: Sequence[Any]) -> None:
        self._holder: Holder | None = holder
        self._result = result
        self._moment = moment
        self._kept = kept
        self._lease: Lease | None = None

    async def step(self, step: Callable[[], Awaitable[T]]) -> T:
        """Await the next part of the result. Raises TimedOutError when the call's deadline passes."""
        holder = self._holder
        if holder is None or holder.sweep is None or holder.timeout is None:
            return await step()
        task = None if self._lease is not None else holder.sweep.begin(self._moment)
        if task is None:
            return await self._whole(holder).step(step)
        try:
            part = await step()
        except BaseException as error:
            if holder.sweep.broke(task, error):
                call = self._whole(holder).call
                assert call is not None, "a timeout was held"
                raise holder.timeout.expired(call, error) from error
            raise
        holder.sweep.end(task)
        return part

    def close(self, error: BaseException | None = None) -> None:
        """Let all guards leave; `error` is what broke the result. Doing it again does nothing."""
        holder, self._holder = self._holder, None
        if holder is None:
            return
        if error is None and self._lease is None:
            holder.over(self._result, self._moment, self._kept)
        else:
            self._whole(holder).close(error)
        self._result = self._lease = None

    def _whole(self, holder: Holder) -> Lease:
        """The lease that the hooks would have made."""
        if self._lease is None:
            self._lease = holder.unwinder.lease(holder.record(), self._moment, self._kept, self._result)
        return self._lease
