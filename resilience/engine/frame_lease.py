"""What a frame still holds for a result that lives on after it: a streamed body.

    held = holder.hold(result, moment, kept, key)
    chunk = await held.step(read)            # under the deadline of the call
    held.close()                             # or held.close(error)

As a `Lease`, at the price of a few attributes as long as nothing happens: then the lines by which a frame lets its
policies go are run when the result ends. Whatever else happens is left to a `Lease`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..call import Call, Clamp, Lease
from ..policies.timeout import Timeout
from .unwind import Unwinder

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Holder:
    """What the results of one frame have in common."""

    unwinder: Unwinder
    over: Callable[[Any, float, Sequence[Any], str], None]
    """Lets the policies go after a success."""
    record: Callable[..., Call]
    timeout: Timeout | None
    """The one whose deadline comes first."""

    def hold(self, result: Any, moment: float, kept: Sequence[Any], key: str) -> FrameLease:
        """Hold what a call took that began at `moment` and returned `result`; `kept` is what the frame noted."""
        return FrameLease(self, result, moment, kept, key)


class FrameLease:
    """A `Lease` for one result of a frame."""

    __slots__ = ("_holder", "_kept", "_key", "_lease", "_moment", "_open", "_result")

    def __init__(self, holder: Holder, result: Any, moment: float, kept: Sequence[Any], key: str) -> None:
        self._holder = holder
        self._result = result
        self._moment = moment
        self._kept = kept
        self._key = key
        self._open = True
        self._lease: Lease | None = None

    @property
    def call(self) -> Call:
        """The call that brought the result; made when it is asked for."""
        return self._holder.record(key=self._key)

    def step(self, step: Callable[[], Awaitable[T]]) -> Awaitable[T]:
        """Await the next part of the result. Raises TimedOutError when the call's deadline passes."""
        timeout = self._holder.timeout if self._open else None
        return step() if timeout is None else timeout.run_until(self, self._moment + timeout.seconds, step)

    def expire(self, clamp: Clamp, raised: BaseException, cancellation: BaseException) -> None:
        """The deadline of `clamp` ended a step by `cancellation`; it will raise `raised`."""
        if self._open:  # else somebody has closed it while another task waited for a part
            self._whole().expire(clamp, raised, cancellation)

    def close(self, error: BaseException | None = None) -> None:
        """Let all guards leave; `error` is what broke the result. Doing it again does nothing."""
        if not self._open:
            return
        self._open = False
        if error is None and self._lease is None:
            self._holder.over(self._result, self._moment, self._kept, self._key)
        else:
            self._whole().close(error)
        self._result = self._lease = None

    def _whole(self) -> Lease:
        """The lease that the hooks would have made."""
        if self._lease is None:
            self._lease = self._holder.unwinder.lease(self.call, self._moment, self._kept, self._result)
        return self._lease
