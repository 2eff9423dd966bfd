"""Imports: what may be imported is a facade; what is only used in annotations disappears; the rest is a finding.

Also finds names that nothing defines, so that a missing import is reported with its line before anything runs.
"""

from __future__ import annotations

import ast
import difflib
from collections import Counter
from collections.abc import Iterable, Mapping

from mechanisms.findings import Finding
from mechanisms.language.desugar import LanguageError, finding
from mechanisms.language.names import hide, reveal

# Modules that only annotations need.
ERASED = frozenset(("__future__", "typing", "typing_extensions", "collections.abc"))


def resolve(tree: ast.Module, offered: Mapping[str, frozenset[str]], names: Iterable[str]) -> ast.Module:
    """``tree`` (desugared) with unused imports erased; raises :class:`LanguageError` for imports and names not offered.

    ``offered`` maps each facade to what it offers, ``names`` are the built-in names.
    """
    names = frozenset(names)
    loaded = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    resolver = _Resolver(offered, names, loaded)
    tree = resolver.visit(tree)
    findings = resolver.findings + list(_undefined(tree, offered, names, resolver.refused))
    if findings:
        raise LanguageError(sorted(findings, key=lambda f: f.line or 0))
    return tree


class _Resolver(ast.NodeTransformer):
    def __init__(self, offered: Mapping[str, frozenset[str]], names: frozenset[str], loaded: set[str]) -> None:
        self.offered, self.names, self.loaded = offered, names, loaded
        self.findings: list[Finding] = []
        self.refused: dict[str, str] = {}
        """Bound names whose import was erased or refused, with the module they came from."""

    def visit_Import(self, node: ast.Import) -> ast.stmt:
        kept = []
        for alias in node.names:
            bound = alias.asname or hide(alias.name.split(".")[0])
            if alias.name in self.offered:
                kept.append(alias)
            elif bound in self.loaded:
                self._refuse(node, alias.name, bound)
            else:
                self.refused[bound] = alias.name
        return _with(node, kept)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt:
        module = node.module or ""
        kept = []
        for alias in node.names:
            bound = alias.asname or hide(alias.name)
            if alias.name == "*":
                self.findings.append(finding(node, "import * is not available", "name what you import"))
            elif node.level == 0 and module in self.offered and alias.name in self.offered[module]:
                alias.asname = bound if bound != alias.name else alias.asname
                kept.append(alias)
            elif bound == alias.name and bound in self.names:
                continue
            elif bound in self.loaded:
                self._refuse(node, module, bound, alias.name)
            else:
                self.refused[bound] = module
        return _with(node, kept)

    def _refuse(self, node: ast.stmt, module: str, bound: str, member: str = "") -> None:
        self.refused[bound] = module
        if module in ERASED:
            what = f"{member or module} of {module}" if member else module
            self.findings.append(
                finding(node, f"{what} is available in annotations only", "do not use it in an expression")
            )
        elif member and module in self.offered:
            hint = _offers(member, self.offered[module])
            self.findings.append(finding(node, f"{module} offers no {member}", hint))
        elif module.split(".")[0] in ("numpy", "scipy", "sklearn", "torch", "pandas", "jax"):
            self.findings.append(
                finding(node, f"module {module} is not available", "use linalg on plain lists, statistics and math")
            )
        else:
            self.findings.append(
                finding(node, f"module {module or '.'} is not available", "modules: " + ", ".join(sorted(self.offered)))
            )


def _with(node: ast.Import | ast.ImportFrom, kept: list[ast.alias]) -> ast.stmt:
    if not kept:
        return ast.copy_location(ast.Pass(), node)
    node.names = kept
    return node


def _undefined(
    tree: ast.Module, offered: Mapping[str, frozenset[str]], names: frozenset[str], refused: Mapping[str, str]
) -> Iterable[Finding]:
    defined = names | set(_bindings(tree))
    modules = _modules(tree)
    reported = set(refused)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in defined | reported:
            reported.add(node.id)
            yield finding(node, f"the name {node.id} is not defined", _hint(node.id, defined, offered))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            module = modules[node.value.id]
            if node.attr not in offered[module]:
                yield finding(node, f"{module} offers no {node.attr}", _offers(node.attr, offered[module]))


def _bindings(tree: ast.Module) -> Iterable[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield name
            case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.ExceptHandler(name=str() as name):
                yield name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from (alias.asname or alias.name for alias in aliases)


def _modules(tree: ast.Module) -> dict[str, str]:
    """Names that stand for a facade everywhere: imported, and bound to nothing else."""
    imports = [alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    bound = Counter(_bindings(tree))
    return {name: alias.name for alias in imports if bound[name := alias.asname or alias.name] == 1}


def _offers(member: str, members: frozenset[str]) -> str:
    close = difflib.get_close_matches(member, sorted(members), n=1)
    return f"did you mean {close[0]}?" if close else "it offers " + ", ".join(sorted(members))


def _hint(name: str, defined: frozenset[str], offered: Mapping[str, frozenset[str]]) -> str:
    if name in offered:
        return f"add: import {name}"
    homes = [module for module in sorted(offered) if name in offered[module]]
    if homes:
        return f"add: from {homes[0]} import {name}"
    if name in (
        "open",
        "eval",
        "exec",
        "compile",
        "__import__",
        "globals",
        "locals",
        "vars",
        "input",
        "type",
        "id",
        "hash",
        "dir",
        "super",
    ):
        return "this built-in is not available to mechanisms"
    close = difflib.get_close_matches(reveal(name), sorted(reveal(d) for d in defined), n=1)
    return f"did you mean {close[0]}?" if close else ""
