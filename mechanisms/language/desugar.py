"""From Python as people write it to the smaller language that the unmodified RestrictedPython transformer accepts.

Every rewrite emits what its author could have typed by hand, so nothing passes RestrictedPython that would not have
passed before: hidden names, no annotations, augmented assignment through temporaries, dataclasses written out,
``__name__`` as a constant, ``except Exception`` for a bare ``except``, single-target tuple assignment.

This runs on untrusted source, so it runs inside the jailed worker only.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from mechanisms.findings import Finding, Stage
from mechanisms.language.names import FRAME_NAMES, hide, is_dunder, is_reserved, reveal
from mechanisms.language.records import Field, RecordError, expand

MAX_BYTES = 64 * 1024
MAX_NODES = 20_000
MAX_DEPTH = 80


class LanguageError(Exception):
    """The source is outside the language; ``findings`` says where and why."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings
        super().__init__("; ".join(finding.render() for finding in findings))


def finding(node: ast.AST | None, message: str, hint: str = "") -> Finding:
    """A language finding at ``node``."""
    return Finding(Stage.LANGUAGE, getattr(node, "lineno", None), reveal(message), hint)


def parse(source: str) -> ast.Module:
    """The syntax tree of ``source`` within the caps on size and depth; raises :class:`LanguageError`."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise LanguageError([Finding(Stage.LANGUAGE, error.lineno, f"not valid Python: {error.msg}")]) from None
    except (RecursionError, MemoryError, ValueError, UnicodeError) as error:
        raise LanguageError(
            [finding(None, f"cannot be parsed: {type(error).__name__}", "write simpler expressions")]
        ) from None
    _measure(tree)
    return tree


def _measure(tree: ast.Module) -> None:
    count = depth = 0
    level: list[ast.AST] = [tree]
    while level:
        count, depth = count + len(level), depth + 1
        if count > MAX_NODES:
            raise LanguageError(
                [finding(None, f"more than {MAX_NODES} syntax nodes", "a mechanism is 20 to 200 lines")]
            )
        if depth > MAX_DEPTH:
            deep = next((node for node in level if hasattr(node, "lineno")), None)
            hint = "split it into statements and functions"
            raise LanguageError([finding(deep, f"nested more than {MAX_DEPTH} deep", hint)])
        level = [child for node in level for child in ast.iter_child_nodes(node)]


def desugar(tree: ast.Module) -> ast.Module:
    """``tree`` rewritten in place; raises :class:`LanguageError` for what cannot be rewritten or must not be named."""
    findings = list(_forbidden_names(tree))
    rewriter = _Desugar(findings)
    rewritten = rewriter.visit(tree)
    if findings:
        raise LanguageError(findings)
    assert isinstance(rewritten, ast.Module)
    return ast.fix_missing_locations(rewritten)


def identifiers(node: ast.AST) -> Iterator[str]:
    """Every identifier that ``node`` itself carries (not its children)."""
    for name in ("id", "attr", "arg", "name", "asname"):
        value = getattr(node, name, None)
        if isinstance(value, str):
            yield value
    if isinstance(node, ast.Global | ast.Nonlocal):
        yield from node.names


def _forbidden_names(tree: ast.Module) -> Iterator[Finding]:
    for node in ast.walk(tree):
        for name in identifiers(node):
            if is_reserved(name):
                yield Finding(
                    Stage.LANGUAGE,
                    getattr(node, "lineno", None),
                    f"the name {name} is reserved",
                    "choose a name that does not begin with 'hidden'",
                )
            elif name in FRAME_NAMES:
                yield finding(node, f"{name} would reach an interpreter frame", "mechanisms cannot inspect frames")


class _Desugar(ast.NodeTransformer):
    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings
        self.temporaries = 0
        self.dataclasses: dict[str, list[Field]] = {}

    # Names

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id == "__name__" and isinstance(node.ctx, ast.Load):
            return ast.copy_location(ast.Constant("mechanism"), node)
        node.id = hide(node.id)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        self.generic_visit(node)
        node.attr = _method_name(node.attr)
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.arg, node.annotation = hide(node.arg), None
        return node

    def visit_keyword(self, node: ast.keyword) -> ast.keyword:
        self.generic_visit(node)
        node.arg = hide(node.arg) if node.arg is not None else None
        return node

    def visit_alias(self, node: ast.alias) -> ast.alias:
        node.asname = hide(node.asname) if node.asname is not None else None
        return node

    def visit_Global(self, node: ast.Global) -> ast.Global:
        node.names = [hide(name) for name in node.names]
        return node

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.ExceptHandler:
        self.generic_visit(node)
        node.name = hide(node.name) if node.name is not None else None
        if node.type is None:
            node.type = ast.copy_location(ast.Name("Exception", ast.Load()), node)
        return node

    # Definitions

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        self.generic_visit(node)
        node.name = _method_name(node.name)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        if node.keywords:
            self.findings.append(
                finding(
                    node, f"class {node.name} takes keyword arguments", "remove them; metaclasses are not available"
                )
            )
        try:
            node = expand(node, self.dataclasses)
        except RecordError as error:
            self.findings.append(Finding(Stage.LANGUAGE, error.line, str(error)))
        self.generic_visit(node)
        node.name = hide(node.name)
        return node

    # Assignments

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return self.visit(ast.copy_location(ast.Assign([node.target], node.value), node))  # type: ignore[no-any-return]

    def visit_Assign(self, node: ast.Assign) -> ast.stmt | list[ast.stmt]:
        self.generic_visit(node)
        if len(node.targets) < 2 or not any(isinstance(target, ast.Tuple) for target in node.targets):
            return node
        # RestrictedPython would evaluate the value once for each target.
        store, load = self._temporary()
        assigned: list[ast.stmt] = [ast.Assign([store], node.value)]
        assigned += [ast.Assign([target], load) for target in node.targets]
        return _at(assigned, node)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.stmt | list[ast.stmt]:
        self.generic_visit(node)
        target = node.target
        if isinstance(target, ast.Name):
            return node
        owner_store, owner = self._temporary()
        prepared: list[ast.stmt] = [ast.Assign([owner_store], target.value)]
        if isinstance(target, ast.Attribute):
            read: ast.expr = ast.Attribute(owner, target.attr, ast.Load())
            write: ast.expr = ast.Attribute(owner, target.attr, ast.Store())
        else:
            if any(isinstance(part, ast.Slice) for part in ast.walk(target.slice)):
                self.findings.append(
                    finding(node, "augmented assignment of a slice", "write it as an ordinary assignment")
                )
            index_store, index = self._temporary()
            prepared.append(ast.Assign([index_store], target.slice))
            read, write = ast.Subscript(owner, index, ast.Load()), ast.Subscript(owner, index, ast.Store())
        value_store, value = self._temporary()
        prepared.append(ast.Assign([value_store], read))
        prepared.append(ast.AugAssign(ast.Name(value.id, ast.Store()), node.op, node.value))
        prepared.append(ast.Assign([write], value))
        return _at(prepared, node)

    def _temporary(self) -> tuple[ast.Name, ast.Name]:
        self.temporaries += 1
        name = f"hidden0_{self.temporaries}"
        return ast.Name(name, ast.Store()), ast.Name(name, ast.Load())


def _method_name(name: str) -> str:
    # The written-out __init__ of a dataclass is what calls __post_init__, so it may be an ordinary method.
    return "hidden2_post_init" if name == "__post_init__" else hide(name)


def _at(statements: list[ast.stmt], origin: ast.stmt) -> list[ast.stmt]:
    for statement in statements:
        ast.copy_location(statement, origin)
        ast.fix_missing_locations(statement)
    return statements


def unsupported(tree: ast.Module) -> list[Finding]:
    """Findings with a helpful hint for what RestrictedPython would refuse in fewer words; runs before desugaring."""
    hints: dict[type[ast.AST], tuple[str, str]] = {
        ast.Nonlocal: ("nonlocal", "keep the value in a list, a dict or an attribute of self"),
        ast.Match: ("match", "use if and elif"),
        ast.AsyncFunctionDef: ("async functions", "hooks are ordinary functions"),
        ast.Await: ("await", "hooks are ordinary functions"),
        ast.TryStar: ("except*", "use except"),
    }
    found = []
    for node in ast.walk(tree):
        if type(node) in hints:
            what, hint = hints[type(node)]
            found.append(finding(node, f"{what} is not part of the language", hint))
        elif isinstance(node, ast.Attribute) and is_dunder(node.attr) and node.attr != "__post_init__":
            found.append(
                finding(
                    node, f"the attribute {node.attr} is not available", "attributes with double underscores are closed"
                )
            )
        elif isinstance(node, ast.Name) and is_dunder(node.id) and node.id != "__name__":
            found.append(
                finding(node, f"the name {node.id} is not available", "names with double underscores are closed")
            )
    return found
