"""Signatures as text: for a generated function that is called exactly like the one it stands for."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable
from typing import Any


class Signature:
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
        self.parameters: str = ", ".join(shown)
        self.arguments: str = ", ".join([*positional, *(argument for _, argument in keywords)])
        args = "".join(f"{name}, " for name in positional)
        self.record: str = f"({args})" + (f", {{{', '.join(item for item, _ in keywords)}}}" if keywords else "")

    def _shown(self, parameter: inspect.Parameter) -> str:
        if parameter.kind is parameter.VAR_POSITIONAL:
            return f"*{parameter.name}"
        if parameter.kind is parameter.VAR_KEYWORD:
            return f"**{parameter.name}"
        if parameter.default is parameter.empty:
            return parameter.name
        self.defaults[f"default_{parameter.name}"] = parameter.default
        return f"{parameter.name}=default_{parameter.name}"


def names_in(body: Iterable[str]) -> set[str]:
    """The variables of a frame, which its function and the parameters must not be called."""
    tree = ast.parse("\n".join(["async def frame():", *(f"    {line}" for line in body)]))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return names | {node.name for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.name}
