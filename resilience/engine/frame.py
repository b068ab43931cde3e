"""Writing the one frame of a pipeline, and what stands behind it.

handler = frame.handler()              # takes a Call
charge = frame.function(charge)        # takes the arguments of charge itself
"""

from __future__ import annotations

import ast
import inspect
import keyword
import linecache
import weakref
from _thread import get_ident
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, takewhile
from typing import Any

from .. import clock
from .._deadlines import close_scopes, in_trio, open_scopes
from .._rejecting import RejectingGuard, Switch
from .._sweep import Sweep, current_task_of
from ..call import Call, Handler, Operation
from ..observer import Observer
from ..outcome import Outcome, rejected
from ..policies.timeout import Timeout
from ..verdict import SUCCESS
from .fragments import judges
from .unwind import Step, Unwinder

_serial = count(1)


class Frame:
    """The generated fast path of a row of policies; `steps` are innermost first.

    `plain` is the handler made of their hooks alone, `inner` what they are wrapped around.
    """

    def __init__(self, plain: Handler, inner: Handler, steps: Sequence[Step], operation: Operation) -> None:
        self._inner = inner
        self._trio: Handler | None = None
        self._unwind = Unwinder(steps).unwind
        self._operation = operation
        timeouts = [step.fragment.policy for step in reversed(steps) if isinstance(step.fragment.policy, Timeout)]
        # Nothing is awaited between the outermost and the innermost deadline: one entry stands for all.
        self._sweep = Sweep([timeout.seconds for timeout in timeouts]) if timeouts else None
        self._fragments = [step.fragment for step in reversed(steps)]
        self._names: dict[str, object] = {
            "Call": Call,
            "SUCCESS": SUCCESS,
            "plain": plain,
            "unwind": self._unwind,
            "operation": operation,
            "classifier": operation.classifier,
        }
        if self._sweep is not None:
            self._names |= {
                "sweep": self._sweep,
                "live": self._sweep.live,
                "alarms": self._sweep.alarms,
                "current_task_of": current_task_of,
                "get_ident": get_ident,
                "in_trio": in_trio,
                "on_trio": self._on_trio,
                "open_scopes": open_scopes,
                "close_scopes": close_scopes,
            }
        policies: list[Any] = [part.policy for part in self._fragments]
        guards: list[RejectingGuard[Any]] = [policy for policy in policies if isinstance(policy, RejectingGuard)]
        self._modes = ["not switch.on"] if guards else []
        if guards:
            self._names["switch"] = Switch(guards)
        for part in self._fragments:
            self._names |= part.names
        self._judges = judges(self._fragments, operation)
        self._names |= {f"judge{n}": judge for n, judge in enumerate(self._judges)}

    def handler(self) -> Handler:
        """The frame for calls that come as records."""
        handler: Handler = self._compile("handle", "call", self._body(_RECORD), {"inner": self._inner})
        return handler

    def _on_trio(self, call: Call) -> Awaitable[Any]:
        """Run a call in the frame for trio, which is made when it is first needed."""
        handler = self._trio
        if handler is None:
            body = self._body(_RECORD, _TRIO)
            handler = self._trio = self._compile("handle_on_trio", "call", body, {"inner": self._inner})
        return handler(call)

    def outcome(self) -> Callable[..., Coroutine[Any, Any, Outcome[Any]]]:
        """The frame that takes a function with its arguments and returns an Outcome."""
        call = "Call(operation, fn, args, kwargs)"
        body = self._body(_Form(call, f"inner({call})", outcome=True))
        names = {"inner": self._inner, "Outcome": Outcome, "rejected": rejected}
        outcome: Callable[..., Coroutine[Any, Any, Outcome[Any]]] = self._compile(
            "outcome", "fn, args, kwargs", body, names
        )
        return outcome

    def function(self, fn: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
        """The frame with the signature of a function. Raises ValueError if its parameters do not allow that."""
        taken = _names_in(self._body(_Form("Call(operation, fn)", "fn()")))
        signature = _Signature(fn, taken)
        name = fn.__name__ if fn.__name__.isidentifier() and not keyword.iskeyword(fn.__name__) else "guarded"
        if name in taken:
            name = "guarded"
        names = {"fn": fn, **signature.defaults}
        body = self._body(_Form(f"Call(operation, fn, {signature.record})", f"fn({signature.arguments})"))
        function: Callable[..., Coroutine[Any, Any, Any]] = self._compile(name, signature.parameters, body, names)
        return function

    def adapter(self, port: Port) -> Callable[[Any], Coroutine[Any, Any, Any]]:
        """The frame that sends whatever an adapter sends; its only argument is called `subject`."""
        names = {"send": port.send, "settle": port.settle, **port.names}
        form = replace(_ADAPTER, refuse=port.refuse, alive=port.alive, good=port.good, done=port.done)
        function: Callable[[Any], Coroutine[Any, Any, Any]] = self._compile(
            "handle", "subject", self._body(form), names
        )
        return function

    @property
    def unwind(self) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Finishes a call that a frame began; see `Unwinder.unwind`."""
        return self._unwind

    def _compile(self, name: str, parameters: str, body: list[str], names: Mapping[str, object]) -> Any:
        names = {**self._names, **names}
        text = "\n".join(f"        {line}" for line in body)
        source = f"def make({', '.join(names)}):\n    async def {name}({parameters}):\n{text}\n    return {name}\n"
        filename = f"<resilience frame {next(_serial)}: {self._operation.name}>"
        made: dict[str, Any] = {}
        # The globals are those of the clock module, so that `now` is always the clock in force, and cheap.
        exec(compile(source, filename, "exec"), clock.__dict__, made)
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        function = made["make"](**names)
        function.__resilience_source__ = source
        weakref.finalize(function, linecache.cache.pop, filename, None).atexit = False
        return function

    def _body(self, form: _Form, loop: _Loop | None = None) -> list[str]:
        """The whole of every frame: look, take, await, give back."""
        parts = self._fragments
        loop = loop or (_UNTIMED if self._sweep is None else _ASYNCIO)
        kept = "".join(f"{part.kept}, " for part in reversed(parts))
        timed = self._sweep is not None or bool(form.done) or any(part.timed for part in parts)
        lines = ["moment = now()" if timed else "moment = 0.0"]
        lines += loop.attach if loop is not _ASYNCIO else [*_attach(form), *loop.attach]
        lines += [line for part in parts for line in part.read]
        first, *others = [
            *loop.refuse,
            *form.refuse,
            *self._modes,
            *(line for part in parts for line in part.refuse),
        ] or ["False"]
        lines += ["if (", f"    {first}", *(f"    or {condition}" for condition in others), "):"]
        lines += [f"    {line}" for line in [*self._rejected(form), *form.hand_over(form.plain)]]
        lines += [*(line for part in parts for line in part.commit), *loop.arm]
        lines += ["try:", f"    result = await {form.invoke}", "except BaseException as error:"]
        lines += [*(f"    {line}" for line in loop.broken), "    failure = error", "else:"]
        state = f"moment, ({kept}), {loop.alive}"
        good = [*loop.returned, *self._judged(form, form.hand_over(form.unwind.format(state, "result", "None")))]
        good += [*loop.over, *(line for part in reversed(parts) for line in part.done), *form.done]
        good += ["return Outcome(result)" if form.outcome else "return result"]
        lines += [f"    {line}" for line in good]
        # Out of the except block, so that the error is no context of what further attempts raise.
        unwinding = form.hand_over(form.unwind.format(f"moment, ({kept}), {loop.dead}", "None", "failure"))
        lines += ["try:", *(f"    {line}" for line in unwinding), "finally:", "    failure = None"]
        return [line.replace("CALL", form.call) for line in lines]

    def _rejected(self, form: _Form) -> list[str]:
        """Lines for a refusal by the outermost policy, which has nothing to leave."""
        observers = list(takewhile(lambda part: isinstance(part.policy, Observer), self._fragments))
        if len(observers) == len(self._fragments) or form.done:
            return []
        heard = [f"not {name}.listeners" for part in observers for name in part.names]
        outermost = self._fragments[len(observers)]
        lines = [line.replace("REJECT", "return rejected" if form.outcome else "raise") for line in outermost.refused]
        conditions = ["not call.key", *heard] if form is _RECORD else heard  # a record may ask for another circuit
        return (
            [f"if {' and '.join(conditions)}:", *(f"    {line}" for line in lines)] if conditions and lines else lines
        )

    def _judged(self, form: _Form, hand_over: list[str]) -> list[str]:
        """Lines for calls that returned but are not simply over: a bad value, or one that is still alive."""
        lines = [f"if {form.alive}:", *(f"    {line}" for line in hand_over)] if form.alive else []
        if self._judges:
            good = " and ".join(f"judge{n}(result) is SUCCESS" for n in range(len(self._judges)))
            asked = ["try:", f"    good = {good}", "except Exception:", "    good = False"]
            asked += ["if not good:", *(f"    {line}" for line in hand_over)]
            lines += [f"if not ({form.good}):", *(f"    {line}" for line in asked)] if form.good else asked
        return lines


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
    alive: str
    """A condition under which the result lives on."""
    good: str
    """A condition under which the classifier calls the result a success."""
    done: Sequence[str]
    """Statements for a result that is returned at once."""


@dataclass(frozen=True)
class _Form:
    """What a frame is given, how it makes a record of the call, and what it hands on."""

    call: str
    """An expression for the record of the call."""
    invoke: str
    """An expression for the awaitable of an attempt."""
    refuse: Sequence[str] = ()
    alive: str = ""
    """A condition under which the result lives on after the frame."""
    good: str = ""
    """A condition under which no judge need be asked."""
    done: Sequence[str] = ()
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


# A record may ask for another partition or weight than those whose state is written into the frame.
_RECORD = _Form(
    "call",
    "inner(call)",
    refuse=["call.key", "call.cost != 1", "call.operation.classifier is not classifier"],
    alive="call.lease is not None",
)
_ADAPTER = _Form(
    "Call(operation, send)",
    "send(subject)",
    plain="settle(subject, None, None, None)",
    unwind="settle(subject, {1}, {2}, ({0}))",
)


@dataclass(frozen=True)
class _Loop:
    """How a frame keeps its deadlines under one kind of event loop."""

    attach: Sequence[str] = ()
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


_UNTIMED = _Loop()
_ASYNCIO = _Loop(
    attach=["    task = sweep.attach()"],
    refuse=["task is None", "task in live", "task.cancelling()"],
    arm=["live[task] = moment"],
    # A task that is destroyed with its loop may find the table in use by another loop.
    broken=["live.pop(task, None)"],
    returned=["del live[task]", "if alarms:", "    sweep.disarm(task)"],
    alive="task, ()",
    dead="task, alarms.pop(task, ())",
)
_TRIO = _Loop(
    arm=["scopes = open_scopes(sweep.limits)"],
    over=["close_scopes(scopes)"],
    alive="None, scopes",
    dead="None, scopes",
)


def _attach(form: _Form) -> list[str]:
    """Lines that find the task, or send the call to the frame for trio."""
    elsewhere = form.plain if form.plain != "plain(CALL)" else "on_trio(CALL)"
    return [
        "task = current_task_of(sweep.loop) if get_ident() == sweep.thread else None",
        "if task is None:",
        "    if in_trio():",
        *(f"        {line}" for line in form.hand_over(elsewhere)),
    ]


class _Signature:
    """The parameters of a function as text, the arguments that pass them on, and its defaults by name."""

    def __init__(self, fn: Callable[..., Any], taken: Iterable[str]) -> None:
        self.defaults: dict[str, object] = {}
        positional: list[str] = []
        keywords: list[tuple[str, str]] = []
        shown: list[str] = []
        parameters = list(inspect.signature(fn, follow_wrapped=False).parameters.values())
        if not {parameter.name for parameter in parameters}.isdisjoint(taken):
            raise ValueError("a parameter has a name that the frame needs")
        previous = None
        for parameter in parameters:
            kind, name = parameter.kind, parameter.name
            if previous is parameter.POSITIONAL_ONLY and kind is not parameter.POSITIONAL_ONLY:
                shown.append("/")
            if kind is parameter.KEYWORD_ONLY and previous not in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL):
                shown.append("*")
            shown.append(self._shown(parameter))
            if kind is parameter.KEYWORD_ONLY:
                keywords.append((f"{name!r}: {name}", f"{name}={name}"))
            elif kind is parameter.VAR_KEYWORD:
                keywords.append((f"**{name}", f"**{name}"))
            else:
                positional.append(f"*{name}" if kind is parameter.VAR_POSITIONAL else name)
            previous = kind
        if previous is inspect.Parameter.POSITIONAL_ONLY:
            shown.append("/")
        self.parameters = ", ".join(shown)
        self.arguments = ", ".join([*positional, *(argument for _, argument in keywords)])
        args = "".join(f"{name}, " for name in positional)
        self.record = f"({args}), {{{', '.join(item for item, _ in keywords)}}}"

    def _shown(self, parameter: inspect.Parameter) -> str:
        if parameter.kind is parameter.VAR_POSITIONAL:
            return f"*{parameter.name}"
        if parameter.kind is parameter.VAR_KEYWORD:
            return f"**{parameter.name}"
        if parameter.default is parameter.empty:
            return parameter.name
        self.defaults[f"default_{parameter.name}"] = parameter.default
        return f"{parameter.name}=default_{parameter.name}"


def _names_in(body: Iterable[str]) -> set[str]:
    """The variables of a frame, which its function and the parameters must not be called."""
    tree = ast.parse("\n".join(["async def frame():", *(f"    {line}" for line in body)]))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return names | {node.name for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.name}
