"""Whether a function takes what a space offers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from inspect import Parameter as Argument
from typing import Any

Function = Callable[..., Any]


def name_of(function: Function) -> str:
    """The function's name, for messages."""
    return str(getattr(function, "__name__", repr(function)))


def own_defaults(function: Function) -> dict[str, object]:
    """Defaults of the function's arguments, by name; an argument whose default is None has none."""
    arguments = inspect.signature(function).parameters.values()
    return {a.name: a.default for a in arguments if a.default is not Argument.empty and a.default is not None}


def arguments_problems(function: Function, names: Sequence[str], *, every: bool = True) -> list[str]:
    """What keeps ``function`` from being called with the parameters ``names``, as phrases that follow its name.

    ``every`` asks it to take all of them and allows it a ``context``.
    """
    arguments = inspect.signature(function).parameters
    takes_any = any(a.kind is Argument.VAR_KEYWORD for a in arguments.values())
    named = {name for name, a in arguments.items() if a.kind not in (Argument.VAR_KEYWORD, Argument.VAR_POSITIONAL)}
    offered = {*names, *(["context"] if every else [])}
    problems = [
        f"takes {name} by position only: remove the / from its arguments"
        for name, a in arguments.items()
        if a.kind is Argument.POSITIONAL_ONLY
    ]
    if every and not takes_any:
        problems += [
            f"has no argument {name}: add it, or remove {name} from the space" for name in names if name not in named
        ]
    problems += [
        f"takes {name}, which is not in the space: add it there, or give the argument a default"
        for name in sorted(named - offered)
        if not every or arguments[name].default is Argument.empty
    ]
    if not every and (takes_any or not named):
        problems.append("must take the parameters that it looks at by name, and at least one")
    return problems
