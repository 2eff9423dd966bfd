"""How an author writes a parameter space: dimensions, plain Python types, or Optuna's distributions.

==========================================  =====================================================
``Integer(1, 64, log=True)``, ``Real(…)``   numbers from low to high, both inclusive
``bool``, ``Boolean()``                     true or false
``["lru", "lfu"]``, ``Choice([…])``         one of these, without order
``range(0, 101, 10)``                       integers, as Python counts them: 0, 10, … 100
``(1, 64)``, ``(0.0, 1.0)``                 a range: of integers when both ends are int, else of reals
``Text(…)``, ``Numbers(…)``, ``Source(…)``  a text, a list of numbers, source code
``optuna.distributions.…``                  Float, Int and Categorical
==========================================  =====================================================

A parameter's default is the one given here, else the function's own default for the argument, else the middle of a
range (the geometric one on a log scale), the first choice, or false.
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, TypeAlias, get_args, get_origin

from clients.task_sdk.optuna_distributions import dimension_arguments
from clients.task_sdk.problems import Problem
from clients.task_sdk.sandboxed import parts_of
from service_kit.parameters import (
    InvalidConfiguration,
    Kind,
    Parameter,
    ParameterSpace,
    Scalar,
    Scale,
    Value,
    value_from_json,
)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")

Log: TypeAlias = bool | Literal[2, 10]
"""A logarithmic axis: True takes the usual one of the kind, 2 or 10 says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """What every dimension may say."""

    default: Value | None = None
    doc: str = ""
    """One sentence: what it does, and its unit. A language model reads it."""
    locked: bool = False
    """A locked parameter is shown and keeps its default."""

    def parameter(self, name: str) -> Parameter:
        """Raises :class:`Problem` or InvalidConfiguration when it cannot be one."""
        raise NotImplementedError

    def _build(self, name: str, kind: Kind, fallback: Value | None, **fields: Any) -> Parameter:
        default = self.default if self.default is not None else fallback
        if default is None:
            raise Problem("has no default: give default=… or a default of the function's argument")
        draft = Parameter(name, kind, default, self.sentence, self.locked, **fields)
        checked = draft.check(value_from_json(list(default)) if isinstance(default, list | tuple) else default)
        return Parameter(name, kind, checked, self.sentence, self.locked, **fields)

    @property
    def sentence(self) -> str:
        """The parameter's documentation."""
        return self.doc


@dataclass(frozen=True, slots=True)
class Integer(Dimension):
    """Whole numbers from ``low`` to ``high``, both inclusive. ``log`` is the axis of powers of two unless it is 10."""

    low: int
    high: int
    _: KW_ONLY
    log: Log = False
    step: int | None = None

    def parameter(self, name: str) -> Parameter:
        if any(type(end) is not int for end in (self.low, self.high)):
            raise Problem(f"Integer needs whole numbers as ends; got {self.low!r} and {self.high!r}: use Real(…)")
        scale = _scale(self.low, self.high, self.log, Scale.LOG2, self.step)
        step = self.step or 1
        middle = round(_middle(self.low, self.high, scale))
        middle -= (middle - self.low) % step
        spacing = float(step) if step != 1 else None
        ends: dict[str, Any] = {"minimum": float(self.low), "maximum": float(self.high)}
        return self._build(name, Kind.INTEGER, middle, scale=scale, step=spacing, **ends)


@dataclass(frozen=True, slots=True)
class Real(Dimension):
    """Numbers from ``low`` to ``high``, both inclusive. ``log`` is the axis of powers of ten unless it is 2."""

    low: float
    high: float
    _: KW_ONLY
    log: Log = False
    step: float | None = None

    def parameter(self, name: str) -> Parameter:
        scale = _scale(self.low, self.high, self.log, Scale.LOG10, self.step)
        middle = _middle(self.low, self.high, scale)
        if self.step:
            middle = self.low + self.step * math.floor((middle - self.low) / self.step)
        ends: dict[str, Any] = {"minimum": float(self.low), "maximum": float(self.high)}
        return self._build(name, Kind.REAL, float(middle), scale=scale, step=self.step, **ends)


@dataclass(frozen=True, slots=True)
class Boolean(Dimension):
    """True or false; false unless a default says otherwise."""

    def parameter(self, name: str) -> Parameter:
        return self._build(name, Kind.BOOLEAN, False)


@dataclass(frozen=True, slots=True)
class Choice(Dimension):
    """One of ``choices``: numbers, booleans or texts, without order. The first is the default."""

    choices: Sequence[Scalar]

    def parameter(self, name: str) -> Parameter:
        choices = tuple(self.choices)
        if wrong := [choice for choice in choices if not isinstance(choice, int | float | bool | str)]:
            raise Problem(f"a choice must be a number, a boolean or a text; got {wrong[0]!r}: give it a name")
        if not choices:
            raise Problem("has no choices: list at least one")
        if len({(type(choice), choice) for choice in choices}) < len(choices):
            raise Problem("lists a choice twice: remove one")
        return self._build(name, Kind.CATEGORICAL, choices[0], choices=choices)


@dataclass(frozen=True, slots=True)
class Text(Dimension):
    """A short text that matches the regular expression ``pattern`` in full; it needs a default."""

    pattern: str = ""
    _: KW_ONLY
    max_length: int = 4096

    def parameter(self, name: str) -> Parameter:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise Problem(f"pattern must be a regular expression: {error}") from None
        return self._build(name, Kind.TEXT, None, pattern=self.pattern, max_length=self.max_length)


@dataclass(frozen=True, slots=True)
class Numbers(Dimension):
    """A list of numbers, each from ``low`` to ``high``; ``length`` None allows any number of them."""

    low: float
    high: float
    _: KW_ONLY
    length: int | None = None
    log: Log = False

    def parameter(self, name: str) -> Parameter:
        scale = _scale(self.low, self.high, self.log, Scale.LOG10, None)
        middle = (float(_middle(self.low, self.high, scale)),) * self.length if self.length else None
        ends: dict[str, Any] = {"minimum": float(self.low), "maximum": float(self.high)}
        return self._build(name, Kind.LIST, middle, length=self.length, scale=scale, **ends)


@dataclass(frozen=True, slots=True)
class Source(Dimension):
    """Source code that the task itself runs in a sandbox. ``default`` is the code to start from.

    ``defines`` names the Python function that it must define, as in ``priority(item, bins)``: every proposal is then
    checked like a search mechanism, and :func:`clients.task_sdk.sandboxed` calls it.
    """

    _: KW_ONLY
    defines: str = ""
    max_length: int = 65_536

    def parameter(self, name: str) -> Parameter:
        if self.defines:
            parts_of(self.defines)
        return self._build(name, Kind.SOURCE, None, max_length=self.max_length)

    @property
    def sentence(self) -> str:
        """The documentation, with what the source must define."""
        must = f"Python source that defines `def {self.defines}`; it may import math, random, statistics, itertools, "
        must += "collections, functools, heapq and bisect, and reaches no files and no network."
        return f"{self.doc} {must}".strip() if self.defines else self.doc


def read_space(space: Mapping[str, object], own_defaults: Mapping[str, object]) -> tuple[ParameterSpace, list[str]]:
    """The space that an author wrote and what is wrong with it; a wrong parameter is left out of the former.

    ``own_defaults`` are the defaults of the function's arguments.
    """
    parameters: list[Parameter] = []
    problems: list[str] = []
    for name, written in space.items():
        try:
            parameters.append(_read(name, written, own_defaults.get(name)))
        except Problem as problem:
            problems.append(f"space[{name!r}]: {problem}")
        except InvalidConfiguration as error:
            problems.append(f"space[{name!r}]: the default {error.violations[0].description}: change one of them")
    if not space:
        problems.append("the space is empty: name at least one parameter")
    return ParameterSpace(tuple(parameters)), problems


def _read(name: str, written: object, own_default: object) -> Parameter:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise Problem("a name must be a Python identifier of at most 63 letters, digits and underscores: rename it")
    if name == "context":
        raise Problem("this name is the evaluation's context: choose another one")
    if isinstance(written, Parameter):
        return written
    dimension = dimension_of(written)
    if own_default is not None:
        if dimension.default is not None and dimension.default != own_default:
            raise Problem(
                f"has two defaults, {dimension.default!r} here and {own_default!r} in the function: remove one"
            )
        fields = {field: getattr(dimension, field) for field in dimension.__dataclass_fields__}
        dimension = type(dimension)(**fields | {"default": own_default})
    return dimension.parameter(name)


def dimension_of(written: object) -> Dimension:
    """The dimension that an author means. Raises :class:`Problem` for what is none."""
    match written:
        case Dimension():
            return written
        case range():
            return _range(written)
        case list():
            return Choice(written)
        case (int() | float() as low, int() | float() as high) if isinstance(written, tuple):
            return Integer(low, high) if isinstance(low, int) and isinstance(high, int) else Real(low, high)
    if written is bool:
        return Boolean()
    if get_origin(written) is Literal:
        return Choice(get_args(written))
    if optuna := dimension_arguments(written):
        kind, arguments = optuna
        dimensions: dict[str, Callable[..., Dimension]] = {"real": Real, "integer": Integer, "choice": Choice}
        return dimensions[kind](**arguments)
    raise Problem(_unknown(written))


def _range(written: range) -> Dimension:
    if len(written) < 2 or written.step < 0:
        raise Problem(f"{written} must count upwards over at least two values; use Choice([…]) for a fixed value")
    return Integer(written.start, written[-1], step=written.step if written.step != 1 else None)


def _unknown(written: object) -> str:
    if written in (int, float):
        kind = "Integer" if written is int else "Real"
        return f"{kind.lower()} values need a range: write {kind}(low, high)"
    if written is str:
        return "a text needs a default: write Text(default=…), or list the allowed ones"
    if isinstance(written, tuple):
        return f"a tuple is a range (low, high); got {written!r}: write a list for choices"
    shown = written.__name__ if isinstance(written, type) else repr(written)
    return (
        f"{shown} is no dimension: write Integer, Real, Boolean, Choice, Text, Numbers or Source, a range, a list of "
        "choices, bool, or one of Optuna's distributions"
    )


def _scale(low: float, high: float, log: Log, usual: Scale, step: float | None) -> Scale:
    if not all(isinstance(end, int | float) and math.isfinite(end) for end in (low, high)):
        raise Problem(f"the ends must be finite numbers; got {low!r} and {high!r}")
    if low >= high:
        raise Problem(f"the range {low:g} to {high:g} holds no two values: low must be below high")
    if step is not None and step <= 0:
        raise Problem(f"step must be above 0; got {step:g}")
    if log is False:
        return Scale.LINEAR
    if log is not True and log not in (2, 10):
        raise Problem(f"log must be True, False, 2 or 10; got {log!r}")
    if low <= 0:
        raise Problem(f"a logarithmic range begins above 0; got {low:g}: raise low or drop log")
    if step not in (None, 1):
        raise Problem("a logarithmic range has no step: drop one of log and step")
    return usual if log is True else Scale.LOG2 if log == 2 else Scale.LOG10


def _middle(low: float, high: float, scale: Scale) -> float:
    return (low + high) / 2 if scale is Scale.LINEAR else math.sqrt(low) * math.sqrt(high)
