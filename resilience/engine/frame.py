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
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import count
from typing import Any

from .. import clock
from .._sweep import Sweep, current_task_of
from ..call import Call, Handler, Operation
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
        self._operation = operation
        timeouts = [step.fragment.policy for step in reversed(steps) if isinstance(step.fragment.policy, Timeout)]
        # Nothing is awaited between the outermost and the innermost deadline: one entry stands for all.
        self._sweep = Sweep([timeout.seconds for timeout in timeouts]) if timeouts else None
        self._fragments = [step.fragment for step in reversed(steps)]
        self._names: dict[str, object] = {
            "Call": Call,
            "SUCCESS": SUCCESS,
            "plain": plain,
            "unwind": Unwinder(steps, self._sweep).unwind,
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
            }
        for part in self._fragments:
            self._names |= part.names
        self._judges = judges(self._fragments, operation)
        self._names |= {f"judge{n}": judge for n, judge in enumerate(self._judges)}

    def handler(self) -> Handler:
        """The frame for calls that come as records."""
        body = self._body("call", "inner(call)", record=True, outcome=False)
        handler: Handler = self._compile("handle", "call", body, {"inner": self._inner})
        return handler

    def outcome(self) -> Callable[..., Coroutine[Any, Any, Outcome[Any]]]:
        """The frame that takes a function with its arguments and returns an Outcome."""
        call = "Call(operation, fn, args, kwargs)"
        body = self._body(call, "inner(CALL)", record=False, outcome=True)
        names = {"inner": self._inner, "Outcome": Outcome, "rejected": rejected}
        outcome: Callable[..., Coroutine[Any, Any, Outcome[Any]]] = self._compile(
            "outcome", "fn, args, kwargs", body, names
        )
        return outcome

    def function(self, fn: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
        """The frame with the signature of a function. Raises ValueError if its parameters do not allow that."""
        taken = _names_in(self._body("Call(operation, fn)", "fn()", record=False, outcome=False))
        signature = _Signature(fn, taken)
        name = fn.__name__ if fn.__name__.isidentifier() and not keyword.iskeyword(fn.__name__) else "guarded"
        if name in taken:
            name = "guarded"
        names = {"fn": fn, **signature.defaults}
        call = f"Call(operation, fn, {signature.record})"
        body = self._body(call, f"fn({signature.arguments})", record=False, outcome=False)
        function: Callable[..., Coroutine[Any, Any, Any]] = self._compile(name, signature.parameters, body, names)
        return function

    def _compile(self, name: str, parameters: str, body: list[str], names: dict[str, Any]) -> Any:
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

    def _body(self, call: str, invoke: str, *, record: bool, outcome: bool) -> list[str]:
        """The whole of every frame: look, take, await, give back."""
        parts, swept = self._fragments, self._sweep is not None
        task = "task" if swept else "None"
        kept = "".join(f"{part.kept}, " for part in reversed(parts))
        refuse = [condition for part in parts for condition in part.refuse]
        timed = swept or any(part.timed for part in parts)
        lines = ["moment = now()" if timed else "moment = 0.0", *(_ATTACH if swept else [])]
        lines += [line for part in parts for line in part.read]
        if record:
            refuse = [*_NOT_AS_BUILT, *refuse]
        first, *others = [*(_NOT_SWEPT if swept else []), *refuse] or ["False"]
        lines += ["if (", f"    {first}", *(f"    or {condition}" for condition in others), "):"]
        lines += [f"    {line}" for line in [*self._rejected(outcome), *_handed_over("plain(CALL)", outcome)]]
        lines += [line for part in parts for line in part.commit]
        lines += ["live[task] = moment"] if swept else []
        lines += ["try:", f"    result = await {invoke}", "except BaseException as error:"]
        # A task that is destroyed with its loop may find the table in use by another loop.
        lines += ["    live.pop(task, None)"] if swept else []
        lines += ["    failure = error", "else:"]
        good = [*_RELEASE] if swept else []
        good += self._judged(_handed_over(f"unwind(CALL, moment, ({kept}), {task}, result, None)", outcome), record)
        good += [line for part in reversed(parts) for line in part.done]
        good += ["return Outcome(result)" if outcome else "return result"]
        lines += [f"    {line}" for line in good]
        # Out of the except block, so that the error is no context of what further attempts raise.
        unwinding = _handed_over(f"unwind(CALL, moment, ({kept}), {task}, None, failure)", outcome)
        lines += ["try:", *(f"    {line}" for line in unwinding), "finally:", "    failure = None"]
        return [line.replace("CALL", call) for line in lines]

    def _rejected(self, outcome: bool) -> list[str]:
        """Lines for a refusal by the outermost policy, which has nothing to leave."""
        heard = [f"not {name}.listeners" for name in self._names if name.startswith("observer")]
        outermost = self._fragments[len(heard)] if len(heard) < len(self._fragments) else None
        if outermost is None:
            return []
        lines = [line.replace("REJECT", "return rejected" if outcome else "raise") for line in outermost.refused]
        return [f"if {' and '.join(heard)}:", *(f"    {line}" for line in lines)] if heard and lines else lines

    def _judged(self, hand_over: list[str], record: bool) -> list[str]:
        """Lines for calls that returned but are not simply over: a bad value, or one that is still alive."""
        lines = ["if call.lease is not None:", *(f"    {line}" for line in hand_over)] if record else []
        if self._judges:
            good = " and ".join(f"judge{n}(result) is SUCCESS" for n in range(len(self._judges)))
            lines += ["try:", f"    good = {good}", "except Exception:", "    good = False"]
            lines += ["if not good:", *(f"    {line}" for line in hand_over)]
        return lines


def _handed_over(awaitable: str, outcome: bool) -> list[str]:
    """Lines that let something else finish the call."""
    if not outcome:
        return [f"return await {awaitable}"]
    return [
        "try:",
        f"    return Outcome(await {awaitable})",
        "except Exception as error:",
        "    return Outcome(error=error)",
    ]


_ATTACH = [
    "task = current_task_of(sweep.loop) if get_ident() == sweep.thread and sweep.ticking else None",
    "if task is None:",
    "    task = sweep.attach()",
]
# A record may ask for another partition or weight than those whose state is written into the frame.
_OWN_STATE = ["call.key", "call.cost != 1"]
_NOT_SWEPT = ["task is None", "task in live", "task.cancelling()"]
_NOT_AS_BUILT = ["call.key", "call.cost != 1", "call.operation.classifier is not classifier"]
_RELEASE = ["del live[task]", "if alarms:", "    sweep.disarm(task)"]


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
