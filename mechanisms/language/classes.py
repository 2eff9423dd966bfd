"""Classes that a mechanism defines: plain ones over object, exceptions and its own classes, without addresses."""

from __future__ import annotations

from typing import Any

from mechanisms.language.names import reveal
from mechanisms.language.objects import OwnType
from mechanisms.language.records import FIELDS, FROZEN

EXCEPTIONS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    Exception,
    FloatingPointError,
    IndexError,
    KeyError,
    LookupError,
    NameError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
    ZeroDivisionError,
)
_BASES = frozenset((object, *EXCEPTIONS))


_NO_INIT: Any = object.__init__


class Own(metaclass=OwnType):
    """The root of every class that a mechanism defines. Names and hashes are serial numbers, never addresses, so that
    two workers answer alike."""

    __slots__ = ("__dict__", "_serial")
    _serial: int
    _count = 0

    def __new__(cls, *args: object, **keywords: object) -> Own:
        if (args or keywords) and cls.__init__ is _NO_INIT:
            raise TypeError(f"{reveal(cls.__name__)}() takes no arguments")
        self = object.__new__(cls)
        Own._count += 1
        self._serial = Own._count
        return self

    def __repr__(self) -> str:
        fields = getattr(type(self), FIELDS, None)
        if type(fields) is tuple:
            return f"{reveal(type(self).__name__)}({', '.join(f'{reveal(f)}={getattr(self, f)!r}' for f in fields)})"
        return f"<{reveal(type(self).__name__)} {self._serial}>"

    def __hash__(self) -> int:
        return self._serial


def make_class(name: str, bases: tuple[Any, ...], namespace: dict[str, Any]) -> type:
    """The metaclass of mechanism code: plain classes over ``object``, exceptions and other own classes."""
    for base in bases:
        if type(base) is not OwnType and base not in _BASES:
            raise TypeError(f"class {reveal(name)}: only object, exceptions and your own classes can be a base class")
    bases = tuple(base for base in bases if base is not object)
    if not any(issubclass(base, BaseException) for base in bases):
        bases = bases if any(type(base) is OwnType for base in bases) else (*bases, Own)
        if FROZEN in namespace:
            frozen = namespace[FROZEN]
            namespace["__hash__"] = lambda self: hash(tuple(getattr(self, field) for field in frozen))
    return OwnType(name, bases, namespace)
