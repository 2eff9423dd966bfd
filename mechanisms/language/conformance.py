"""Whether a source has the shape of a mechanism: one class ``Mechanism``, known hooks, exact arity."""

from __future__ import annotations

import ast
import difflib
import re
from typing import NamedTuple

from mechanisms.findings import Finding, Stage

ARGUMENTS: dict[str, tuple[str, ...]] = {
    "__init__": ("space", "settings", "rng"),
    "observe": ("trial",),
    "prompt": ("view",),
    "propose": ("view", "count"),
    "revise": ("view", "candidate"),
    "veto": ("view", "candidate"),
    "rank": ("view", "candidates"),
    "accept": ("view", "trial"),
    "budget": ("view", "candidate"),
}
"""The arguments of every hook after ``self``."""

CLASS_NAME = "Mechanism"
_SIMILAR = 0.8


class Shape(NamedTuple):
    """What a source declares about itself."""

    name: str
    """A slug from the first words of the class docstring."""
    summary: str
    """The first line of the class docstring."""
    hooks: tuple[str, ...]
    """The hooks it implements, ``__init__`` excluded."""


def conform(tree: ast.Module) -> tuple[Shape, list[Finding]]:
    """The shape of an undesugared ``tree`` and what is wrong with it."""
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    mechanism = classes.get(CLASS_NAME)
    if mechanism is None:
        return Shape("", "", ()), [_no_class(classes)]
    repeated = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == CLASS_NAME]
    findings = [_finding(node, f"a second class {CLASS_NAME}", "keep one") for node in repeated[:-1]]
    methods = _methods(mechanism, classes, set())
    hooks = []
    for name, node in methods.items():
        if name in ARGUMENTS:
            findings += _arity(name, node)
            if name != "__init__":
                hooks.append(name)
        elif not name.startswith("_"):
            findings += _misspelt(name, node)
    if not hooks:
        known = ", ".join(name for name in ARGUMENTS if name != "__init__")
        findings.append(_finding(mechanism, f"class {CLASS_NAME} implements no hook", f"hooks: {known}"))
    summary = (ast.get_docstring(mechanism, clean=False) or "").strip().split("\n")[0][:200]
    return Shape(_slug(summary), summary, tuple(name for name in ARGUMENTS if name in hooks)), findings


def _methods(node: ast.ClassDef, classes: dict[str, ast.ClassDef], seen: set[str]) -> dict[str, ast.stmt]:
    methods: dict[str, ast.stmt] = {}
    for base in reversed(node.bases):
        if isinstance(base, ast.Name) and base.id in classes and base.id not in seen:
            methods |= _methods(classes[base.id], classes, seen | {node.name, base.id})
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            methods[statement.name] = statement
        elif isinstance(statement, ast.Assign):
            methods |= {
                target.id: statement
                for target in statement.targets
                if isinstance(target, ast.Name) and target.id in ARGUMENTS
            }
    return methods


def _arity(name: str, node: ast.stmt) -> list[Finding]:
    signature = f"def {name}(self, {', '.join(ARGUMENTS[name])})"
    if not isinstance(node, ast.FunctionDef) or node.decorator_list:
        return [_finding(node, f"{name} must be a plain method", f"write {signature}")]
    arguments = node.args
    given = len(arguments.posonlyargs) + len(arguments.args)
    exact = (
        given == 1 + len(ARGUMENTS[name]) and not arguments.vararg and not arguments.kwarg and not arguments.kwonlyargs
    )
    return [] if exact else [_finding(node, f"{name} has the wrong arguments", f"write {signature}")]


def _misspelt(name: str, node: ast.stmt) -> list[Finding]:
    lowered = name.lower().removeprefix("on_").removesuffix("_hook")
    hooks = [hook for hook in ARGUMENTS if hook != "__init__"]
    close = [lowered] if lowered in hooks else difflib.get_close_matches(lowered, hooks, n=1, cutoff=_SIMILAR)
    if not close:
        return []
    return [
        _finding(
            node, f"{name} is not a hook", f"did you mean {close[0]}? Begin the name of a helper with an underscore"
        )
    ]


def _no_class(classes: dict[str, ast.ClassDef]) -> Finding:
    close = difflib.get_close_matches(CLASS_NAME, classes, n=1)
    hint = f"rename {close[0]} to {CLASS_NAME}" if close else f"write one class called {CLASS_NAME}"
    if len(classes) == 1:
        hint = f"rename {next(iter(classes))} to {CLASS_NAME}"
    return Finding(Stage.CONFORMANCE, None, f"there is no class {CLASS_NAME}", hint)


def _finding(node: ast.stmt, message: str, hint: str) -> Finding:
    return Finding(Stage.CONFORMANCE, node.lineno, message, hint)


def _slug(summary: str) -> str:
    words = re.split(r"[:.;,(]", summary, maxsplit=1)[0].lower()
    return "_".join(re.findall(r"[a-z0-9]+", words)[:5])[:48]
