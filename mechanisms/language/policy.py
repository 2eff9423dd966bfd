"""The run-time half of the language: guards that RestrictedPython's code calls, and the built-in names.

Attribute access is decided by the exact type of the object: a few named methods of each built-in type, the members of
facades and records, and whatever a mechanism's own classes define. Everything else raises, also what does not exist.
"""

from __future__ import annotations

import collections
import itertools
import operator
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from RestrictedPython.Guards import guarded_iter_unpack_sequence, guarded_unpack_sequence

from mechanisms.language.classes import EXCEPTIONS, Own, make_class
from mechanisms.language.facades import Facade
from mechanisms.language.formatting import format_text
from mechanisms.language.names import FRAME_NAMES, hide, is_dunder, is_reserved, reveal
from mechanisms.language.objects import Candidate, Objective, OwnType, Record, Trial, View
from mechanisms.language.space import Parameter, Space

_TEXT = """
    capitalize casefold center count endswith expandtabs find index isalnum isalpha isascii isdecimal isdigit
    isidentifier islower isnumeric isspace istitle isupper join ljust lower lstrip partition removeprefix removesuffix
    replace rfind rindex rjust rpartition rsplit rstrip split splitlines startswith strip swapcase title upper zfill"""
_DICT = "clear copy get items keys pop popitem setdefault update values"
_SET = """
    add clear copy difference difference_update discard intersection intersection_update isdisjoint issubset issuperset
    pop remove symmetric_difference symmetric_difference_update union update"""
_FROZENSET = "copy difference intersection isdisjoint issubset issuperset symmetric_difference union"
_DEQUE = "append appendleft clear copy count extend extendleft index insert maxlen pop popleft remove reverse rotate"

ATTRIBUTES: dict[type, frozenset[str]] = {
    kind: frozenset(names.split())
    for kind, names in {
        str: _TEXT,
        list: "append clear copy count extend index insert pop remove reverse sort",
        dict: _DICT,
        set: _SET,
        frozenset: _FROZENSET,
        tuple: "count index",
        int: "bit_count bit_length denominator imag numerator real",
        bool: "real",
        float: "as_integer_ratio imag is_integer real",
        range: "count index start step stop",
        collections.deque: _DEQUE,
        collections.Counter: _DICT + " elements most_common subtract total",
        collections.OrderedDict: _DICT + " move_to_end",
        collections.defaultdict: _DICT + " default_factory",
        property: "setter",
        statistics.NormalDist: "cdf inv_cdf mean median mode overlap pdf quantiles stdev variance zscore",
        statistics.LinearRegression: "intercept slope",
        Parameter: " ".join(Parameter.__slots__),
        Space: "clip from_unit has_unit names neighbours parameters sample to_unit",
    }.items()
}
"""Attributes of each exact type."""

CLASS_ATTRIBUTES: dict[Any, frozenset[str]] = {
    dict: frozenset(("fromkeys", "get")),
    str: frozenset(("join", "lower", "split", "startswith", "strip", "upper")),
    list: frozenset(("append",)),
    itertools.chain: frozenset(("from_iterable",)),
    statistics.NormalDist: frozenset(("from_samples",)),
}
"""Attributes of built-in classes themselves, as in ``key=str.lower``."""

READABLE = (
    list,
    tuple,
    dict,
    str,
    range,
    collections.deque,
    collections.Counter,
    collections.OrderedDict,
    collections.defaultdict,
    Space,
)
WRITABLE = (list, dict, collections.deque, collections.Counter, collections.OrderedDict, collections.defaultdict)
_RECORDS = (Trial, Candidate, View, Objective)
_INDEXABLE = frozenset(READABLE)
_CHANGEABLE = frozenset(WRITABLE)


def check_name(name: object) -> str:
    """An attribute name that arrives as text, in the spelling of desugared code."""
    if type(name) is not str:
        raise TypeError("attribute name must be a string")
    if is_dunder(name) or is_reserved(name) or name in FRAME_NAMES:
        raise AttributeError(f"the attribute {name!r} is not available")
    return hide(name)


def read_attribute(owner: Any, name: str) -> Any:
    """``owner.name``, if the exact type of ``owner`` opens it; AttributeError otherwise."""
    kind = type(owner)
    if type(kind) is OwnType:
        if name in owner.__dict__ or any(name in c.__dict__ for c in kind.__mro__ if type(c) is OwnType):
            if not name.startswith("_"):
                return getattr(owner, name)
        elif name == "args" and isinstance(owner, BaseException):
            return owner.args
    elif name in ATTRIBUTES.get(kind, ()):
        return getattr(owner, name)
    elif kind is Facade or kind in _RECORDS:
        return kind.__getattr__(owner, name)
    elif kind is str and name == "format":
        return lambda *args, **keywords: format_text(owner, args, keywords)
    elif kind is OwnType:
        if not name.startswith("_") and any(name in c.__dict__ for c in owner.__mro__ if type(c) is OwnType):
            return getattr(owner, name)
    elif kind is type and name in CLASS_ATTRIBUTES.get(owner, ()):
        return getattr(owner, name)
    elif isinstance(owner, BaseException) and name == "args":
        return owner.args
    shown = reveal(owner.__name__) if kind is OwnType else reveal(kind.__name__)
    raise AttributeError(f"{shown!r} object has no attribute {reveal(name)!r}")


def guarded_getattr(owner: Any, name: object, *default: Any) -> Any:
    """The built-in ``getattr`` under the same rules."""
    if len(default) > 1:
        raise TypeError("getattr takes at most 3 arguments")
    checked = check_name(name)
    try:
        return read_attribute(owner, checked)
    except AttributeError:
        if default:
            return default[0]
        raise


def guarded_hasattr(owner: Any, name: object) -> bool:
    """The built-in ``hasattr`` under the same rules."""
    try:
        read_attribute(owner, check_name(name))
    except AttributeError:
        return False
    return True


def guarded_setattr(owner: Any, name: object, value: Any) -> None:
    """The built-in ``setattr`` for instances and classes of the mechanism's own."""
    checked = check_name(name)
    if type(type(owner)) is not OwnType and type(owner) is not OwnType:
        raise TypeError(f"{type(owner).__name__!r} object cannot be changed")
    setattr(owner, checked, value)


def write_target(owner: Any) -> Any:
    """What an assignment to an attribute or item of ``owner`` goes to: itself, if it may be changed."""
    kind = type(owner)
    if kind in _CHANGEABLE or type(kind) is OwnType or (kind is OwnType and owner is not Own):
        return owner
    raise TypeError(f"{reveal(kind.__name__)!r} object cannot be changed")


def read_item(owner: Any, key: Any) -> Any:
    """``owner[key]`` for containers."""
    if type(owner) in _INDEXABLE:
        return owner[key]
    raise TypeError(f"{reveal(type(owner).__name__)!r} object is not subscriptable")


_IN_PLACE: dict[str, Callable[[Any, Any], Any]] = {
    "+=": operator.iadd,
    "-=": operator.isub,
    "*=": operator.imul,
    "/=": operator.itruediv,
    "//=": operator.ifloordiv,
    "%=": operator.imod,
    "**=": operator.ipow,
    "<<=": operator.ilshift,
    ">>=": operator.irshift,
    "|=": operator.ior,
    "^=": operator.ixor,
    "&=": operator.iand,
    "@=": operator.imatmul,
}


def in_place(symbol: str, target: Any, value: Any) -> Any:
    """``target op= value``."""
    return _IN_PLACE[symbol](target, value)


def apply(function: Callable[..., Any], /, *args: Any, **keywords: Any) -> Any:
    """A call with starred arguments."""
    return function(*args, **{hide(name): value for name, value in keywords.items()})


class _Silent:
    """What ``print`` becomes: output goes nowhere."""

    def __init__(self, getattribute: object = None) -> None:
        pass

    def _call_print(self, *args: object, **keywords: object) -> None:
        return None

    def __call__(self) -> str:
        return ""


def exact_type(value: Any) -> Any:
    """``type(value)`` for data and the mechanism's own instances."""
    kind = type(value)
    if kind in _DATA or type(kind) is OwnType:
        return kind
    raise TypeError("type() takes plain data and instances of your own classes")


_DATA = frozenset((bool, int, float, str, list, tuple, dict, set, frozenset, type(None)))


def _iterate(values: Iterable[Any]) -> Iterator[Any] | Iterable[Any]:
    return values


BUILTINS: dict[str, Any] = {
    function.__name__: function
    for function in (
        *(
            abs,
            all,
            any,
            bool,
            callable,
            chr,
            dict,
            divmod,
            enumerate,
            filter,
            float,
            frozenset,
            int,
            isinstance,
            issubclass,
            iter,
            len,
            list,
        ),
        *(
            map,
            max,
            min,
            next,
            object,
            ord,
            pow,
            property,
            range,
            repr,
            reversed,
            round,
            set,
            slice,
            sorted,
            staticmethod,
            classmethod,
            str,
        ),
        *(sum, tuple, zip),
        *EXCEPTIONS,
    )
} | {
    "getattr": guarded_getattr,
    "hasattr": guarded_hasattr,
    "setattr": guarded_setattr,
    "type": exact_type,
    "Candidate": Candidate,
}
"""Every built-in name that mechanisms may use, beside ``print``, which is discarded."""


def globals_for(facades: Mapping[str, Facade]) -> dict[str, Any]:
    """The globals in which a mechanism's code runs."""

    def import_facade(name: str, *_: Any, **__: Any) -> Facade:
        try:
            return facades[name]
        except KeyError:
            raise ImportError(f"module {name!r} is not available; modules: {', '.join(facades)}") from None

    return {
        "__builtins__": BUILTINS | {"__import__": import_facade, "__build_class__": __build_class__},
        "__metaclass__": make_class,
        "__name__": "mechanism",
        "_apply_": apply,
        "_getattr_": read_attribute,
        "_getitem_": read_item,
        "_getiter_": _iterate,
        "_inplacevar_": in_place,
        "_iter_unpack_sequence_": guarded_iter_unpack_sequence,
        "_print_": _Silent,
        "_unpack_sequence_": guarded_unpack_sequence,
        "_write_": write_target,
    }


def record_attributes() -> dict[str, tuple[str, ...]]:
    """The attributes of each record, for the language reference."""
    return {
        record.__name__: record._fields for record in (View, Trial, Candidate, Objective) if issubclass(record, Record)
    }
