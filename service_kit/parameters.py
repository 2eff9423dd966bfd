"""Typed parameter spaces, configurations, objectives and outcomes: the vocabulary that every service shares.

A *configuration* maps every parameter of a space to a value. Values are plain Python: ``int``, ``float``, ``bool``,
``str`` or a tuple of those.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self, TypeAlias

Scalar: TypeAlias = int | float | bool | str
Value: TypeAlias = Scalar | tuple[Scalar, ...]
Configuration: TypeAlias = Mapping[str, Value]


class Kind(StrEnum):
    """What sort of values a parameter takes."""

    INTEGER = "integer"
    REAL = "real"
    BOOLEAN = "boolean"
    CATEGORICAL = "categorical"
    TEXT = "text"
    LIST = "list"
    SOURCE = "source"


class Scale(StrEnum):
    """The axis on which neighbouring values are equally far apart."""

    LINEAR = "linear"
    LOG2 = "log2"
    LOG10 = "log10"


class Direction(StrEnum):
    """Whether smaller or larger metric values win."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"


class Outcome(StrEnum):
    """How an evaluation ended. Only SUCCEEDED carries a metric; there is no sentinel score for the others."""

    SUCCEEDED = "succeeded"
    DIVERGED = "diverged"
    CRASHED = "crashed"
    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"
    INFEASIBLE = "infeasible"
    CANCELLED = "cancelled"
    STOPPED_EARLY = "stopped_early"
    """By the search, on the way. A task never answers this."""


class Split(StrEnum):
    """Which validation data an evaluation measures on: the one the search sees, or one it never sees."""

    SEARCH = "search"
    HELD_OUT = "held_out"


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing wrong with a value: the field it belongs to and a sentence that names the allowed range."""

    field: str
    description: str


class InvalidConfiguration(ValueError):
    """A configuration breaks its space; ``violations`` lists everything wrong with it, not only the first."""

    hint: str = ""
    """What to do next; empty unless whoever passes the error on knows."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        self.violations = tuple(violations)
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in self.violations))


@dataclass(frozen=True, slots=True)
class Objective:
    """What is optimised."""

    metric: str
    """Name of the metric, for example ``val_bpb``."""
    direction: Direction = Direction.MINIMIZE
    unit: str = ""
    """Unit of the metric, for example ``bits/byte``."""
    documentation: str = ""

    def better(self, a: float, b: float) -> bool:
        """Whether ``a`` is strictly better than ``b``."""
        return a < b if self.direction is Direction.MINIMIZE else a > b

    def gain(self, old: float, new: float) -> float:
        """How much better ``new`` is than ``old``, positive when it improved, in the metric's unit."""
        return old - new if self.direction is Direction.MINIMIZE else new - old


@dataclass(frozen=True, slots=True)
class Parameter:
    """One dimension of a space. Which fields matter depends on ``kind``."""

    name: str
    kind: Kind
    default: Value
    documentation: str = ""
    locked: bool = False
    """A locked parameter keeps its default: proposals may not change it."""
    minimum: float | None = None
    """Smallest allowed value, inclusive (INTEGER, REAL, and each element of a LIST)."""
    maximum: float | None = None
    """Largest allowed value, inclusive (INTEGER, REAL, and each element of a LIST)."""
    scale: Scale = Scale.LINEAR
    step: float | None = None
    """Spacing of allowed values above ``minimum`` on a linear scale; None allows every value."""
    choices: tuple[Scalar, ...] = ()
    """Allowed values of a CATEGORICAL parameter."""
    length: int | None = None
    """Number of elements of a LIST; None allows any number."""
    max_length: int = 4096
    """Longest TEXT or SOURCE, in characters."""
    pattern: str = ""
    """Regular expression that a TEXT must match in full; empty allows every text."""

    def allowed(self) -> str:
        """The allowed values as a phrase that completes "must be …"."""
        if self.locked:
            return f"{shown(self.default)}, because it is locked"
        match self.kind:
            case Kind.INTEGER | Kind.REAL:
                noun = "an integer" if self.kind is Kind.INTEGER else "a number"
                step = f" in steps of {shown(self.step)}" if self.step is not None else ""
                return f"{noun} {self._bounds()}{step}"
            case Kind.BOOLEAN:
                return "true or false"
            case Kind.CATEGORICAL:
                return "one of " + ", ".join(shown(c) for c in self.choices)
            case Kind.LIST:
                count = "numbers" if self.length is None else f"{self.length} numbers"
                return f"a list of {count}, each {self._bounds()}"
            case Kind.TEXT:
                pattern = f" that matches {self.pattern}" if self.pattern else ""
                return f"a text of 1 to {self.max_length} characters{pattern}"
            case Kind.SOURCE:
                return f"source text of 1 to {self.max_length} characters"

    def check(self, value: object) -> Value:
        """Return ``value`` in its exact type.

        An integral float is accepted for an INTEGER and an int for a REAL, because JSON does not tell them apart.
        Raises :class:`InvalidConfiguration` naming this parameter and its allowed range.
        """
        checked = self._coerce(value)
        if checked is None:
            raise self.violation(value)
        return checked

    def violation(self, value: object) -> InvalidConfiguration:
        """The error for a value that this parameter does not take."""
        shown = repr(value)
        if len(shown) > 80:
            shown = shown[:77] + "..."
        return InvalidConfiguration([Violation(self.name, f"must be {self.allowed()}; got {shown}")])

    def _bounds(self) -> str:
        low, high = self.minimum, self.maximum
        if low is not None and high is not None:
            return f"from {shown(low)} to {shown(high)}"
        if low is not None:
            return f"of at least {shown(low)}"
        if high is not None:
            return f"of at most {shown(high)}"
        return "of any size"

    def _coerce(self, value: object) -> Value | None:
        match self.kind:
            case Kind.INTEGER:
                if isinstance(value, float) and value.is_integer():
                    value = int(value)
                return value if type(value) is int and self._in_range(value) else None
            case Kind.REAL:
                number = self._real(value)
                return number if number is not None and self._in_range(number) else None
            case Kind.BOOLEAN:
                return value if isinstance(value, bool) else None
            case Kind.CATEGORICAL:
                # 1 == True in Python, so the type has to match as well.
                return next(
                    (c for c in self.choices if c == value and isinstance(c, bool) == isinstance(value, bool)), None
                )
            case Kind.LIST:
                if not isinstance(value, list | tuple) or (self.length is not None and len(value) != self.length):
                    return None
                numbers = [self._real(element) for element in value]
                ok = all(number is not None and self._in_range(number) for number in numbers)
                return tuple(number for number in numbers if number is not None) if ok else None
            case Kind.TEXT | Kind.SOURCE:
                if not isinstance(value, str) or not 1 <= len(value) <= self.max_length or _UNSTORABLE.search(value):
                    return None
                return value if not self.pattern or re.fullmatch(self.pattern, value) else None

    @staticmethod
    def _real(value: object) -> float | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None

    def _in_range(self, number: float) -> bool:
        if self.minimum is not None and number < self.minimum:
            return False
        if self.maximum is not None and number > self.maximum:
            return False
        if self.step is not None and self.scale is Scale.LINEAR:
            steps = (number - (self.minimum or 0)) / self.step
            return math.isclose(steps, round(steps), abs_tol=1e-9)
        return True


@dataclass(frozen=True, slots=True)
class ParameterSpace:
    """The parameters of a task, in the order in which people should read them."""

    parameters: tuple[Parameter, ...]
    constraints: tuple[str, ...] = ()
    """Sentences about combinations that the single ranges do not say; the task's Validate enforces them."""
    _by_name: dict[str, Parameter] = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        by_name = {p.name: p for p in self.parameters}
        if len(by_name) != len(self.parameters):
            raise ValueError("parameter names must be unique")
        object.__setattr__(self, "_by_name", by_name)
        for parameter in self.parameters:
            parameter.check(parameter.default)

    def __getitem__(self, name: str) -> Parameter:
        """The parameter called ``name``; raises :class:`InvalidConfiguration` with the nearest known name."""
        parameter = self._by_name.get(name)
        if parameter is None:
            raise InvalidConfiguration([Violation(name, self._unknown(name))])
        return parameter

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._by_name)

    @property
    def editable(self) -> tuple[Parameter, ...]:
        """The parameters that a proposal may change."""
        return tuple(p for p in self.parameters if not p.locked)

    def defaults(self) -> dict[str, Value]:
        """The default configuration."""
        return {p.name: p.default for p in self.parameters}

    def validate(self, values: Mapping[str, object]) -> dict[str, Value]:
        """Complete ``values`` with defaults and check everything; raises InvalidConfiguration with all violations."""
        return self.apply(self.defaults(), values)

    def apply(self, base: Configuration, changes: Mapping[str, object]) -> dict[str, Value]:
        """``base`` with ``changes`` made: unknown, ill-typed, out-of-range and locked changes are violations."""
        result: dict[str, Value] = {name: base[name] for name in self._by_name}
        violations: list[Violation] = []
        for name, value in changes.items():
            try:
                parameter = self[name]
                checked = parameter.check(value)
            except InvalidConfiguration as error:
                violations.extend(error.violations)
                continue
            if parameter.locked and checked != parameter.default:
                violations.append(Violation(name, f"is locked at {shown(parameter.default)} and cannot be changed"))
                continue
            result[name] = checked
        if violations:
            raise InvalidConfiguration(violations)
        return result

    def changes(self, base: Configuration, configuration: Configuration) -> dict[str, Value]:
        """The parameters whose value in ``configuration`` differs from ``base``, with the new value."""
        return {name: configuration[name] for name in self._by_name if configuration[name] != base[name]}

    def _unknown(self, name: str) -> str:
        close = difflib.get_close_matches(name.upper(), [n.upper() for n in self._by_name], n=1)
        near = next((n for n in self._by_name if close and n.upper() == close[0]), None)
        if near is not None:
            return f"is not a parameter; did you mean {near}?"
        return "is not a parameter; known parameters are " + ", ".join(self._by_name)

    def to_json(self) -> dict[str, Any]:
        """The space as JSON-ready built-in types, for stores, frames and prompts."""
        parameters = []
        for p in self.parameters:
            encoded = asdict(p)
            encoded["kind"], encoded["scale"] = p.kind.value, p.scale.value
            encoded["default"] = value_to_json(p.default)
            encoded["choices"] = list(p.choices)
            parameters.append(encoded)
        return {"parameters": parameters, "constraints": list(self.constraints)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        parameters = []
        for encoded in data["parameters"]:
            fields = dict(encoded)
            fields["kind"], fields["scale"] = Kind(fields["kind"]), Scale(fields["scale"])
            fields["default"] = value_from_json(fields["default"])
            fields["choices"] = tuple(fields["choices"])
            parameters.append(Parameter(**fields))
        return cls(tuple(parameters), tuple(data["constraints"]))


_DOCSTRING = re.compile(r'"""\s*([^\n"]+)')


def brief(text: str) -> str:
    """A TEXT or SOURCE value in a line: the length and the first docstring of one that has several lines."""
    count = len(text.strip().splitlines())
    if count <= 1:
        return text
    said = _DOCSTRING.search(text)
    return f"{count} lines of source" + (f" ({said[1].strip()[:100]})" if said else "")


def value_to_json(value: Value) -> Any:
    """A value as JSON-ready built-in types (a tuple becomes a list)."""
    return list(value) if isinstance(value, tuple) else value


def value_from_json(value: Any) -> Value:
    """The inverse of :func:`value_to_json`; raises TypeError for anything that is not a value."""
    if isinstance(value, list):
        if not all(isinstance(element, int | float | bool | str) for element in value):
            raise TypeError("a list value holds numbers, booleans and strings only")
        return tuple(value)
    if isinstance(value, int | float | bool | str):
        return value
    raise TypeError(f"{type(value).__name__} is not a parameter value")


def configuration_to_json(configuration: Configuration) -> dict[str, Any]:
    """A configuration as JSON-ready built-in types."""
    return {name: value_to_json(value) for name, value in configuration.items()}


def configuration_from_json(data: Mapping[str, Any]) -> dict[str, Value]:
    """The inverse of :func:`configuration_to_json`."""
    return {name: value_from_json(value) for name, value in data.items()}


_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""Characters that UTF-8 or a database cannot hold: NUL and lone surrogates."""


def shown(value: object) -> str:
    """A value as a person writes it: ``4`` and not ``4.0``."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)
