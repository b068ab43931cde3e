"""Writing the one frame of a pipeline, and what stands behind it.

handler = frame.handler()              # takes a Call
charge = frame.function(charge)        # takes the arguments of charge itself
"""

from __future__ import annotations

import keyword
import linecache
import weakref
from _thread import get_ident
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count, takewhile
from typing import Any

from .. import clock
from .._rejecting import RejectingGuard, Switch
from ..call import Call, Handler, Operation, invoke
from ..observer import Observer
from ..outcome import Outcome, rejected
from ..policies.retry import Retry
from ..policies.timeout import Timeout
from ..running._deadlines import close_scopes, in_trio, open_scopes
from ..running._sweep import Sweep, cancelling_of, current_task_of
from ..verdict import SUCCESS
from .forms import ADAPTER, ASYNCIO, KEYED_RECORD, RECORD, TRIO, UNTIMED, Form, Loop, Port, attach
from .fragments import Fragment, judges
from .frame_lease import Holder
from .signature import Signature, names_in
from .unwind import Step, Unwinder

_serial = count(1)


class Frame:
    """The generated fast path of a row of policies; `steps` are innermost first.

    `plain` is the handler made of their hooks alone, `inner` what they are wrapped around.
    """

    def __init__(self, plain: Handler, inner: Handler, steps: Sequence[Step], operation: Operation) -> None:
        self._inner = inner
        self._trio: Handler | None = None
        self._keyed: Handler | None = None
        self._unwinder = Unwinder(steps)
        self._operation = operation
        timeouts = [step.fragment.policy for step in reversed(steps) if isinstance(step.fragment.policy, Timeout)]
        # Nothing is awaited between the outermost and the innermost deadline: one entry stands for all.
        self._sweep = Sweep([timeout.seconds for timeout in timeouts]) if timeouts else None
        self._shortest = min(reversed(timeouts), key=lambda timeout: timeout.seconds, default=None)
        self._fragments = [step.fragment for step in reversed(steps)]
        self._names: dict[str, object] = {
            "clock": clock,
            "Call": Call,
            "SUCCESS": SUCCESS,
            "plain": plain,
            "unwind": self.unwind,
            "operation": operation,
            "classifier": operation.classifier,
            "newcomer": Call(operation, invoke),
        }
        if self._sweep is not None:
            self._names |= {
                "sweep": self._sweep,
                "live": self._sweep.live,
                "alarms": self._sweep.alarms,
                "current_task_of": current_task_of,
                "cancelling_of": cancelling_of,
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
        self._names |= {"key": "", "with_key": self._with_key}  # the key where calls have none
        self._judges = judges(self._fragments, operation)
        self._names |= {f"judge{n}": judge for n, judge in enumerate(self._judges)}

    def handler(self) -> Handler:
        """The frame for calls that come as records."""
        handler: Handler = self._compile("handle", "call", self._body(RECORD), {"inner": self._inner})
        return handler

    def _on_trio(self, call: Call) -> Awaitable[Any]:
        """Run a call in the frame for trio, which is made when it is first needed."""
        handler = self._trio
        if handler is None:
            body = self._body(RECORD, TRIO)
            handler = self._trio = self._compile("handle_on_trio", "call", body, {"inner": self._inner})
        return handler(call)

    def _with_key(self, call: Call) -> Awaitable[Any]:
        """Run a call in the frame for those with a key, which is made when it is first needed."""
        handler = self._keyed
        if handler is None:
            body = self._body(KEYED_RECORD)
            handler = self._keyed = self._compile("handle_with_key", "call", body, {"inner": self._inner})
        return handler(call)

    def outcome(self) -> Callable[..., Coroutine[Any, Any, Outcome[Any]]]:
        """The frame that takes a function with its arguments and returns an Outcome."""
        call = "Call(operation, fn, args, kwargs)"
        body = self._body(Form(call, f"inner({call})", outcome=True))
        names = {"inner": self._inner, "Outcome": Outcome, "rejected": rejected}
        outcome: Callable[..., Coroutine[Any, Any, Outcome[Any]]] = self._compile(
            "outcome", "fn, args, kwargs", body, names
        )
        return outcome

    def function(self, fn: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
        """The frame with the signature of a function. Raises ValueError if its parameters do not allow that."""
        taken = names_in(self._body(Form("Call(operation, fn)", "fn()")))
        signature = Signature(fn, taken)
        name = fn.__name__ if fn.__name__.isidentifier() and not keyword.iskeyword(fn.__name__) else "guarded"
        if name in taken:
            name = "guarded"
        names = {"fn": fn, **signature.defaults}
        body = self._body(Form(f"Call(operation, fn, {signature.record})", f"fn({signature.arguments})"))
        function: Callable[..., Coroutine[Any, Any, Any]] = self._compile(name, signature.parameters, body, names)
        return function

    def method(self, port: Port) -> Callable[[Any, Any], Coroutine[Any, Any, Any]]:
        """The frame that sends whatever an adapter sends, as a method with one argument, the `subject`."""
        names = {"send": port.send, "settle": port.settle, **port.names}
        form = replace(
            ADAPTER,
            refuse=port.refuse,
            key=port.key,
            alive=port.alive,
            good=port.good,
            done=port.done,
            live=port.live,
        )
        over = self._compile("over", "result, moment, kept, key", self._over(form), names, kind="def")
        record = partial(Call, self._operation, port.send)
        names["hold"] = Holder(self._unwinder, over, record, self._shortest).hold
        method: Callable[[Any, Any], Coroutine[Any, Any, Any]] = self._compile(
            "handle", "self, subject", self._body(form), names
        )
        return method

    @property
    def unwind(self) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Finishes a call that a frame began; see `Unwinder.unwind`."""
        return self._unwinder.unwind

    def _compile(
        self, name: str, parameters: str, body: list[str], names: Mapping[str, object], kind: str = "async def"
    ) -> Any:
        source = f"{kind} {name}({parameters}):\n" + "".join(f"    {line}\n" for line in body)
        filename = f"<resilience frame {next(_serial)}: {self._operation.name}>"
        # All that it uses are globals of its own: a closure would be copied into the frame by every call.
        scope = {**self._names, **names, "__name__": __name__}
        exec(compile(source, filename, "exec"), scope)
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        function: Any = scope.pop(name)
        function.__resilience_source__ = source
        weakref.finalize(function, linecache.cache.pop, filename, None).atexit = False
        return function

    def _body(self, form: Form, loop: Loop | None = None) -> list[str]:
        """The whole of every frame: look, take, await, give back."""
        parts = self._parts(form)
        loop = loop or (UNTIMED if self._sweep is None else ASYNCIO)
        alone = self._alone(parts, form)
        kept = "".join(f"{part.kept}, " for part in reversed(parts))
        timed = self._sweep is not None or bool(form.done) or any(part.timed for part in parts)
        lines = ["if call.key:", "    return await with_key(call)"] if form is RECORD and loop is not TRIO else []
        lines += ["moment = clock.now()" if timed else "moment = 0.0"]
        lines += [f"key = {form.key}"] if form.key else []
        lines += attach(form) if loop is ASYNCIO else []
        lines += [line for part in parts for line in part.read]
        first, *others = [
            *loop.refuse,
            *(["call.key"] if form is RECORD and loop is TRIO else []),
            *form.refuse,
            *self._modes,
            *(line for part in parts for line in part.refuse),
            *(line for part in parts if part is not alone for line in part.busy),
        ] or ["False"]
        lines += ["if (", f"    {first}", *(f"    or {condition}" for condition in others), "):"]
        lines += [f"    {line}" for line in [*self._rejected(form, loop), *form.hand_over(form.plain)]]
        lines += [*(line for part in parts if part is not alone for line in part.commit), *loop.arm]
        waiting: list[str] = []
        if alone is not None:
            waiting = [f"if {' or '.join(alone.busy)}:", *(f"    {line}" for line in alone.queue)]
            waiting += ["else:", *(f"    {line}" for line in alone.commit)]
        # A wait that failed is seen by those outside; where there is nobody, it need not be unwound.
        seen = form.outcome or len(parts) > 1
        lines += [*([] if seen else waiting), "try:", *(f"    {line}" for line in waiting if seen)]
        lines += [f"    result = await {form.invoke}", *([f"    alive = {form.alive}"] if form.live else [])]
        lines += ["except BaseException as error:"]
        lines += [*(f"    {line}" for line in loop.broken), "    failure = error", "else:"]
        state = f"moment, ({kept}), {loop.alive}"
        good = [*loop.returned, *self._judged(form, form.hand_over(form.unwind.format(state, "result", "None")))]
        good += self._living(form, kept)
        good += [*loop.over, *(line for part in reversed(parts) for line in part.done), *form.done]
        good += ["return Outcome(result)" if form.outcome else "return result"]
        lines += [f"    {line}" for line in good]
        # Out of the except block, so that the error is no context of what further attempts raise.
        unwinding = form.hand_over(form.unwind.format(f"moment, ({kept}), {loop.dead}", "None", "failure"))
        lines += ["try:", *(f"    {line}" for line in unwinding), "finally:", "    failure = None"]
        return [line.replace("CALL", form.call).replace("NEWCOMER", form.newcomer) for line in lines]

    def _parts(self, form: Form) -> list[Fragment]:
        """What the policies, outermost first, add to a frame of that form."""
        return [part.keyed or part for part in self._fragments] if form.key else self._fragments

    def _alone(self, parts: Sequence[Fragment], form: Form) -> Fragment | None:
        """The only policy of the frame if it can wait here: no other has to look again afterwards."""
        guards = [part for part in parts if not isinstance(part.policy, Observer)]
        return guards[0] if len(guards) == 1 and guards[0].queue and not form.done else None

    def _rejected(self, form: Form, loop: Loop) -> list[str]:
        """Lines for a refusal by the outermost policy, which has nothing to leave."""
        observers = list(takewhile(lambda part: isinstance(part.policy, Observer), self._fragments))
        if len(observers) == len(self._fragments) or form.done:
            return []
        heard = [f"not {name}.listeners" for part in observers for name in part.names]
        outermost = self._parts(form)[len(observers)]
        lines = [line.replace("REJECT", "return rejected" if form.outcome else "raise") for line in outermost.refused]
        # A record may ask for another circuit.
        conditions = ["not call.key", *heard] if form is RECORD and loop is TRIO else heard
        return (
            [f"if {' and '.join(conditions)}:", *(f"    {line}" for line in lines)] if conditions and lines else lines
        )

    def _judged(self, form: Form, hand_over: list[str]) -> list[str]:
        """Lines for calls that returned but are not simply over: a bad value, or one that is still alive."""
        handed = bool(form.alive) and not form.live
        lines = [f"if {form.alive}:", *(f"    {line}" for line in hand_over)] if handed else []
        if self._judges:
            good = " and ".join(f"judge{n}(result) is SUCCESS" for n in range(len(self._judges)))
            asked = ["try:", f"    good = {good}", "except Exception:", "    good = False"]
            asked += ["if not good:", *(f"    {line}" for line in hand_over)]
            lines += [f"if not ({form.good}):", *(f"    {line}" for line in asked)] if form.good else asked
        return lines

    def _living(self, form: Form, kept: str) -> list[str]:
        """Lines for a success that lives on: a Retry is done with it, and everybody else held until it ends."""
        if not form.live:
            return []
        settled = [line for part in reversed(self._parts(form)) if isinstance(part.policy, Retry) for line in part.done]
        lines = [*settled, *form.done, f"held = hold(result, moment, ({kept}), key)", *form.live, "return result"]
        return ["if alive:", *(f"    {line}" for line in lines)]

    def _over(self, form: Form) -> list[str]:
        """Lines that let go, after a success, whom `_living` held."""
        parts = self._parts(form)[::-1]
        held = [part for part in parts if not isinstance(part.policy, Retry)]
        noted = [part.kept if part.kept != "None" else "_" for part in parts]
        lines = [f"{', '.join(noted)}, = kept", *(line for part in held for line in part.done)]
        return [line.replace("CALL", form.call) for line in lines]
