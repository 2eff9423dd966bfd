"""Source to a runnable class, inside the worker: parse, desugar, RestrictedPython, execute, instantiate.

The RestrictedPython transformer is used exactly as it is published.
"""

from __future__ import annotations

import ast
import random
import re
import types
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from RestrictedPython.compile import compile_restricted_exec

from mechanisms.findings import Finding, Stage
from mechanisms.language.conformance import Shape, conform
from mechanisms.language.desugar import LanguageError, desugar, parse, unsupported
from mechanisms.language.facades import facades
from mechanisms.language.imports import resolve
from mechanisms.language.names import reveal
from mechanisms.language.policy import BUILTINS, globals_for

FILENAME = "<mechanism>"
_ALWAYS = ("print", "printed")
_LINE = re.compile(r"Line (\d+|None): (.*)", re.DOTALL)


Conform: TypeAlias = Callable[[ast.Module], tuple[Shape, list[Finding]]]
"""The shape of an undesugared tree and what is wrong with it."""


class Compiled(NamedTuple):
    """A source that passed the language and has the shape that was asked for."""

    code: types.CodeType
    shape: Shape


def compile_source(source: str, offered: dict[str, frozenset[str]], conform: Conform = conform) -> Compiled:
    """Compile ``source``, which must have the shape that ``conform`` judges: a mechanism's by default.

    Raises :class:`LanguageError` with findings of the language or of conformance.
    """
    tree = parse(source)
    if findings := unsupported(tree):
        raise LanguageError(findings)
    shape, misshapen = conform(tree)
    tree = resolve(desugar(tree), offered, (*BUILTINS, *_ALWAYS))
    try:
        result = compile_restricted_exec(tree, filename=FILENAME)
    except (RecursionError, MemoryError, SyntaxError, ValueError) as error:
        raise LanguageError(
            [Finding(Stage.LANGUAGE, getattr(error, "lineno", None), f"cannot be compiled: {error}")]
        ) from None
    if result.code is None:
        raise LanguageError([_translated(error) for error in result.errors])
    if misshapen:
        raise LanguageError(misshapen)
    return Compiled(result.code, shape)


def define(compiled: Compiled, generator: random.Random) -> dict[str, Any]:
    """Run the module's body and return its globals; one of them is the class or function that was asked for."""
    namespace = globals_for(facades(generator))
    exec(compiled.code, namespace)  # noqa: S102 - restricted code in a jailed process
    return namespace


def _translated(error: str) -> Finding:
    match = _LINE.fullmatch(error)
    if match is None:
        return Finding(Stage.LANGUAGE, None, reveal(error))
    return Finding(Stage.LANGUAGE, int(match[1]) if match[1].isdigit() else None, reveal(match[2]))
