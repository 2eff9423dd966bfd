"""Whether a source has the shape of a plain function: one top-level ``def`` of a given name with given arguments.

A task whose parameter is source code checks it with this, in the language and the sandbox of mechanisms.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable, Sequence

from mechanisms.findings import Finding, Stage
from mechanisms.language.conformance import Shape


def function_shape(name: str, arguments: Sequence[str]) -> Callable[[ast.Module], tuple[Shape, list[Finding]]]:
    """The check that a source defines ``def name(arguments)``; other functions and classes may stand beside it."""
    wanted = f"def {name}({', '.join(arguments)})"

    def conform(tree: ast.Module) -> tuple[Shape, list[Finding]]:
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        found = [node for node in functions if node.name == name]
        if not found:
            names = [node.name for node in functions]
            close = names if len(names) == 1 else difflib.get_close_matches(name, names, n=1)
            hint = f"rename {close[0]} to {name}" if close else f"write {wanted}"
            return Shape(name, "", ()), [Finding(Stage.CONFORMANCE, None, f"there is no function {name}", hint)]
        findings = [
            Finding(Stage.CONFORMANCE, node.lineno, f"a second function {name}", "keep one") for node in found[:-1]
        ]
        function = found[-1]
        if not isinstance(function, ast.FunctionDef) or function.decorator_list or not _takes(function, arguments):
            message = f"{name} has the wrong arguments, or is no plain function"
            findings.append(Finding(Stage.CONFORMANCE, function.lineno, message, f"write {wanted}"))
        summary = (ast.get_docstring(function, clean=False) or "").strip().split("\n")[0][:200]
        return Shape(name, summary, ()), findings

    return conform


def _takes(function: ast.FunctionDef, arguments: Sequence[str]) -> bool:
    """Whether it takes exactly these by position, in this order; further ones with a default are its own business."""
    own = function.args
    names = [argument.arg for argument in (*own.posonlyargs, *own.args)]
    return (
        tuple(names[: len(arguments)]) == tuple(arguments)
        and len(names) - len(arguments) <= len(own.defaults)
        and len(own.kwonlyargs) == sum(default is not None for default in own.kw_defaults)
    )
