"""``@dataclass`` written out: the methods that the decorator would have made, as ordinary syntax.

The decorator itself cannot be offered: it builds source text and executes it. The generated methods are what a person
would have typed, so they widen nothing. ``hidden0_fields`` is read by the class policy to give instances the same
``repr`` that a dataclass has.
"""

from __future__ import annotations

import ast
from itertools import pairwise
from typing import NamedTuple

FIELDS = "hidden0_fields"
FROZEN = "hidden0_frozen"
_OPTIONS = frozenset(("frozen", "order", "eq", "repr", "init", "slots", "kw_only", "unsafe_hash"))
_FIELD_OPTIONS = frozenset(("default", "default_factory", "init", "repr", "compare", "hash", "kw_only"))
_COMPARISONS = {"__lt__": ast.Lt, "__le__": ast.LtE, "__gt__": ast.Gt, "__ge__": ast.GtE}


class RecordError(ValueError):
    """A dataclass uses something that cannot be written out; ``node`` is where."""

    def __init__(self, node: ast.AST, message: str) -> None:
        self.line = getattr(node, "lineno", None)
        super().__init__(message)


class Field(NamedTuple):
    """One field: how ``__init__`` takes it and which methods mention it."""

    name: str
    default: ast.expr | None
    factory: ast.expr | None
    init: bool = True
    compare: bool = True
    shown: bool = True


def decorator_options(node: ast.ClassDef) -> dict[str, bool] | None:
    """The options of the dataclass decorator on ``node``, or None when it has none."""
    for decorator in node.decorator_list:
        call = decorator if isinstance(decorator, ast.Call) else None
        if not _is_named(call.func if call else decorator, "dataclass"):
            continue
        options = {}
        for keyword in call.keywords if call else ():
            if keyword.arg not in _OPTIONS or not isinstance(keyword.value, ast.Constant):
                raise RecordError(decorator, f"dataclass option {keyword.arg} is not supported")
            options[keyword.arg] = bool(keyword.value.value)
        return options
    return None


def expand(node: ast.ClassDef, known: dict[str, list[Field]]) -> ast.ClassDef:
    """``node`` without its dataclass decorator and with the methods spelled out; unchanged when it has none.

    ``known`` maps the dataclasses seen so far to their fields, for inheritance, and is extended. Raises RecordError.
    """
    options = decorator_options(node)
    if options is None:
        return node
    node.decorator_list = [
        d for d in node.decorator_list if not _is_named(d.func if isinstance(d, ast.Call) else d, "dataclass")
    ]
    inherited = [f for base in node.bases if isinstance(base, ast.Name) for f in known.get(base.id, [])]
    own, body = _split(node)
    fields = list({field.name: field for field in [*inherited, *own]}.values())
    known[node.name] = fields
    defined = {statement.name for statement in body if isinstance(statement, ast.FunctionDef)}
    methods: list[ast.stmt] = []
    if "__init__" not in defined and options.get("init", True):
        methods.append(_init(node, fields, own, "__post_init__" in defined, options.get("kw_only", False)))
    if "__eq__" not in defined and options.get("eq", True):
        methods.append(_comparison(node.name, "__eq__", ast.Eq, fields))
    if options.get("order", False):
        methods += [_comparison(node.name, name, operator, fields) for name, operator in _COMPARISONS.items()]
    body.append(_assign(FIELDS, tuple(f.name for f in fields if f.shown)))
    if options.get("frozen", False) or options.get("unsafe_hash", False):
        body.append(_assign(FROZEN, tuple(f.name for f in fields if f.compare)))
    # RestrictedPython takes a magic method only where it is indented.
    anchor = node.body[0]
    for method in methods:
        for child in ast.walk(method):
            if isinstance(child, ast.stmt | ast.expr | ast.arg):
                ast.copy_location(child, anchor)
    node.body = body + methods
    return node


def _split(node: ast.ClassDef) -> tuple[list[Field], list[ast.stmt]]:
    fields: list[Field] = []
    body: list[ast.stmt] = []
    for statement in node.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            body.append(statement)
            continue
        annotation = ast.unparse(statement.annotation)
        if "ClassVar" in annotation:
            body.append(statement)
            continue
        if "InitVar" in annotation:
            raise RecordError(statement, "InitVar is not supported; write __init__ by hand")
        field = _field(statement.target.id, statement.value)
        fields.append(field)
        if field.default is not None:
            body.append(ast.copy_location(ast.Assign([ast.Name(field.name, ast.Store())], field.default), statement))
    return fields, body


def _field(name: str, value: ast.expr | None) -> Field:
    if not isinstance(value, ast.Call) or not _is_named(value.func, "field"):
        return Field(name, value, None)
    given = {keyword.arg: keyword.value for keyword in value.keywords}
    if value.args or not set(given) <= _FIELD_OPTIONS:
        raise RecordError(value, "field() takes default, default_factory, init, repr and compare only")

    def flag(option: str) -> bool:
        node = given.get(option)
        return bool(node.value) if isinstance(node, ast.Constant) else True

    return Field(name, given.get("default"), given.get("default_factory"), flag("init"), flag("compare"), flag("repr"))


def _init(
    node: ast.ClassDef, fields: list[Field], own: list[Field], post_init: bool, keyword_only: bool
) -> ast.FunctionDef:
    taken = [field for field in fields if field.init]
    # An Ellipsis stands for "not given": it cannot be confused with a value that a field would hold.
    missing = ast.Constant(...)
    defaults: dict[str, ast.expr] = {}
    for field in taken:
        if field.factory is not None:
            defaults[field.name] = missing
        elif field.default is not None:
            # A default of this class is already a name in the class body; an inherited one is repeated.
            defaults[field.name] = ast.Name(field.name, ast.Load()) if field in own else field.default
    names = [ast.arg(field.name) for field in taken]
    positional = [] if keyword_only else names
    if any(f.name in defaults and g.name not in defaults for f, g in pairwise(taken)) and not keyword_only:
        raise RecordError(node, f"dataclass {node.name}: a field without default follows one with a default")
    arguments = ast.arguments(
        posonlyargs=[],
        args=[ast.arg("self"), *positional],
        kwonlyargs=names if keyword_only else [],
        kw_defaults=[defaults.get(field.name) for field in taken] if keyword_only else [],
        defaults=[] if keyword_only else [defaults[field.name] for field in taken if field.name in defaults],
    )
    body: list[ast.stmt] = []
    for field in fields:
        given: ast.expr = ast.Name(field.name, ast.Load())
        if field.factory is not None:
            made = ast.Call(field.factory, [], [])
            given = ast.IfExp(ast.Compare(given, [ast.Is()], [missing]), made, given) if field.init else made
        elif not field.init:
            if field.default is None:
                continue
            given = field.default
        body.append(ast.Assign([ast.Attribute(ast.Name("self", ast.Load()), field.name, ast.Store())], given))
    if post_init:
        body.append(
            ast.Expr(ast.Call(ast.Attribute(ast.Name("self", ast.Load()), "__post_init__", ast.Load()), [], []))
        )
    return ast.FunctionDef("__init__", arguments, body or [ast.Pass()], [], lineno=node.lineno)


def _comparison(class_name: str, method: str, operator: type[ast.cmpop], fields: list[Field]) -> ast.FunctionDef:
    def key(owner: str) -> ast.Tuple:
        values: list[ast.expr] = [
            ast.Attribute(ast.Name(owner, ast.Load()), f.name, ast.Load()) for f in fields if f.compare
        ]
        return ast.Tuple(values, ast.Load())

    same = ast.Call(
        ast.Name("isinstance", ast.Load()), [ast.Name("other", ast.Load()), ast.Name(class_name, ast.Load())], []
    )
    compared = ast.Compare(key("self"), [operator()], [key("other")])
    arguments = ast.arguments(
        posonlyargs=[], args=[ast.arg("self"), ast.arg("other")], kwonlyargs=[], kw_defaults=[], defaults=[]
    )
    return ast.FunctionDef(method, arguments, [ast.Return(ast.BoolOp(ast.And(), [same, compared]))], [], lineno=1)


def _assign(name: str, names: tuple[str, ...]) -> ast.Assign:
    elements: list[ast.expr] = [ast.Constant(n) for n in names]
    return ast.Assign([ast.Name(name, ast.Store())], ast.Tuple(elements, ast.Load()), lineno=1)


def _is_named(node: ast.expr, name: str) -> bool:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.value.id == "dataclasses" and node.attr == name
    return isinstance(node, ast.Name) and node.id == name
