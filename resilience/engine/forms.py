"""The forms of a frame: what it is given and hands on, and how it keeps its deadlines under an event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Port:
    """What an adapter adds to a frame of its own, as Python where every nanosecond counts.

    In it `subject` is what was sent, `result` what came back and `moment` when it began; `names` are the adapter's.
    """

    send: Callable[[Any], Awaitable[Any]]
    """Makes one attempt."""
    settle: Callable[..., Awaitable[Any]]
    """Finishes what is not over: `settle(subject, result, error, state)`. With a state, `Frame.unwind(call, *state,
    result, error)` goes on from there; without one nothing has been sent yet."""
    names: Mapping[str, object]
    refuse: Sequence[str]
    """Conditions under which a subject is not sent from here."""
    key: str
    """An expression for the partition of a subject, evaluated first; empty: they all share one."""
    alive: str
    """A condition under which the result lives on; where it raises, the attempt has failed."""
    good: str
    """A condition under which the classifier calls the result a success."""
    done: Sequence[str]
    """Statements for a success at the first attempt."""
    live: Sequence[str]
    """More of them, if it lives on: somebody has to close `held`, a FrameLease, when it ends."""


@dataclass(frozen=True)
class Form:
    """What a frame is given, how it makes a record of the call, and what it hands on."""

    call: str
    """An expression for the record of the call."""
    invoke: str
    """An expression for the awaitable of an attempt."""
    key: str = ""
    """An expression for the key of the call; empty: calls that have one are not for this frame."""
    newcomer: str = "newcomer"
    """A record that says no more than the frame knows, without making one."""
    refuse: Sequence[str] = ()
    alive: str = ""
    """A condition under which the result lives on after the frame."""
    good: str = ""
    """A condition under which no judge need be asked."""
    done: Sequence[str] = ()
    live: Sequence[str] = ()
    """Statements for a success that lives on, see Port; where there are none it is handed over."""
    outcome: bool = False
    plain: str = "plain(CALL)"
    unwind: str = "unwind(CALL, {0}, {1}, {2})"

    def hand_over(self, awaitable: str) -> list[str]:
        """Lines that let something else finish the call."""
        if not self.outcome:
            return [f"return await {awaitable}"]
        return [
            "try:",
            f"    return Outcome(await {awaitable})",
            "except Exception as error:",
            "    return Outcome(error=error)",
        ]


# A record may ask for another weight than that which is written into the frame. Those with a key have their own frame.
RECORD = Form(
    "call",
    "inner(call)",
    newcomer="call",
    refuse=["call.cost != 1", "call.operation.classifier is not classifier"],
    alive="call.lease is not None",
)
KEYED_RECORD = replace(RECORD, key="call.key")
ADAPTER = Form(
    "Call(operation, send, key=key)",
    "send(subject)",
    plain="settle(subject, None, None, None)",
    unwind="settle(subject, {1}, {2}, ({0}))",
)


@dataclass(frozen=True)
class Loop:
    """How a frame keeps its deadlines under one kind of event loop."""

    refuse: Sequence[str] = ()
    arm: Sequence[str] = ()
    broken: Sequence[str] = ()
    """First lines when the call raised."""
    returned: Sequence[str] = ()
    """First lines when it returned."""
    over: Sequence[str] = ()
    """Further lines when that was all, and nothing is unwound."""
    alive: str = "None, ()"
    """The task and the open alarms, for unwinding a call that returned."""
    dead: str = "None, ()"
    """The same for one that raised."""


UNTIMED = Loop()
ASYNCIO = Loop(
    refuse=["task in live", "cancelled"],
    arm=["live[task] = moment"],
    # A task that is destroyed with its loop may find the table in use by another loop.
    broken=["live.pop(task, None)"],
    returned=["del live[task]", "if alarms:", "    sweep.disarm(task)"],
    alive="task, ()",
    dead="task, alarms.pop(task, ())",
)
TRIO = Loop(
    arm=["scopes = open_scopes(sweep.limits)"],
    over=["close_scopes(scopes)"],
    alive="None, scopes",
    dead="None, scopes",
)


def attach(form: Form) -> list[str]:
    """Lines that find the task, or send the call elsewhere: to the frame for trio, or on the plain path."""
    on_trio = form.plain if form.plain != "plain(CALL)" else "on_trio(CALL)"
    return [
        "task = current_task_of(sweep.loop) if get_ident() == sweep.thread else None",
        "if task is None:",
        "    if in_trio():",
        *(f"        {line}" for line in form.hand_over(on_trio)),
        "    task = sweep.attach()",
        "    if task is None:",
        *(f"        {line}" for line in form.hand_over(form.plain)),
        "try:",
        "    cancelled = cancelling_of(task)",
        "except TypeError:",  # a task of another make
        "    cancelled = task.cancelling()",
    ]
