"""The parameter space as mechanisms see it: typed parameters and the moves that a search needs on any of them.

A parameter has a *unit* when its values lie on an axis from 0 to 1: numbers with two bounds (on their own scale),
booleans and categories. Lists can be sampled and stepped element by element; texts and source cannot.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from typing import Any

STEP_FRACTION = 0.05
"""A linear step without a declared one, as a fraction of the range."""
LOG_FLOOR = 1e-6
"""Where a log scale begins above a minimum of 0, as a fraction of the maximum."""
_ROUNDING = 1e-9
# Below it a place on a log scale is its minimum, which may be 0 and has no logarithm.


class Parameter:
    """One parameter; its fields are those that the task declared."""

    name: str
    kind: str
    __slots__ = (
        "choices",
        "default",
        "documentation",
        "kind",
        "length",
        "locked",
        "maximum",
        "minimum",
        "name",
        "pattern",
        "scale",
        "step",
    )

    def __init__(self, fields: Mapping[str, Any]) -> None:
        for name in self.__slots__:
            value = fields[name]
            object.__setattr__(self, name, tuple(value) if type(value) is list else value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a parameter cannot be changed")

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, {self.kind!r})"


class Space:
    """The task's parameters: ``space["DEPTH"].maximum``, ``space.names``, ``for name in space``."""

    __slots__ = ("_parameters",)
    _parameters: dict[str, Any]

    def __init__(self, data: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_parameters", {fields["name"]: Parameter(fields) for fields in data["parameters"]})

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("the space cannot be changed")

    def __getitem__(self, name: str) -> Any:
        try:
            return self._parameters[name]
        except (KeyError, TypeError):
            close = difflib.get_close_matches(str(name), self._parameters, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(self._parameters)
            raise KeyError(f"{name!r} is not a parameter; {hint}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._parameters

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._parameters))

    def __len__(self) -> int:
        return len(self._parameters)

    def __repr__(self) -> str:
        return f"Space({', '.join(self._parameters)})"

    @property
    def parameters(self) -> list[Any]:
        """Every parameter, in the order of the task."""
        return list(self._parameters.values())

    @property
    def names(self) -> list[str]:
        """The name of every parameter, locked ones included."""
        return list(self._parameters)

    def has_unit(self, name: str) -> bool:
        """Whether ``to_unit`` and ``from_unit`` work for the parameter."""
        p = self[name]
        if p.kind in ("integer", "real"):
            return p.minimum is not None and p.maximum is not None and p.maximum > p.minimum
        return p.kind == "boolean" or (p.kind == "categorical" and len(p.choices) > 1)

    def clip(self, name: str, value: Any) -> Any:
        """The nearest allowed value: inside the bounds, on the step, an int for an integer."""
        p = self[name]
        if p.kind in ("integer", "real"):
            return _clip_number(p, value)
        if p.kind == "list":
            return tuple(_clip_number(p, element) for element in value)
        if p.kind == "categorical":
            return value if value in p.choices else p.default
        return bool(value) if p.kind == "boolean" else value

    def neighbours(self, name: str, value: Any) -> list[Any]:
        """The values one step down and one step up: a factor 2 on log2, the root of 10 on log10, the declared step or a
        twentieth of the range on a linear scale; the other choices of a category. Empty for texts and source."""
        p = self[name]
        if p.kind in ("integer", "real"):
            moved = _steps(p, value)
        elif p.kind == "boolean":
            moved = [not value]
        elif p.kind == "categorical":
            moved = [choice for choice in p.choices if choice != value]
        elif p.kind == "list":
            values = tuple(value)
            moved = [
                (*values[:i], step, *values[i + 1 :]) for i, element in enumerate(values) for step in _steps(p, element)
            ]
        else:
            moved = []
        return [v for i, v in enumerate(moved) if v != value and v not in moved[:i]]

    def sample(self, name: str, rng: Any) -> Any:
        """A random value, uniform on the parameter's scale; the default for texts and source."""
        p = self[name]
        if self.has_unit(name):
            return self.from_unit(name, rng.random())
        if p.kind == "list" and p.minimum is not None and p.maximum is not None:
            return tuple(_clip_number(p, p.minimum + rng.random() * (p.maximum - p.minimum)) for _ in p.default)
        return p.default

    def to_unit(self, name: str, value: Any) -> float:
        """The place of ``value`` between 0 and 1 on the parameter's scale."""
        p = self._with_unit(name)
        if p.kind == "boolean":
            return 1.0 if value else 0.0
        if p.kind == "categorical":
            return p.choices.index(value) / (len(p.choices) - 1)  # type: ignore[no-any-return]
        low, high = _axis(p, p.minimum), _axis(p, p.maximum)
        return min(1.0, max(0.0, (_axis(p, value) - low) / (high - low)))

    def from_unit(self, name: str, unit: float) -> Any:
        """The allowed value nearest to the place ``unit`` between 0 and 1: the inverse of ``to_unit``."""
        p = self._with_unit(name)
        unit = min(1.0, max(0.0, float(unit)))
        if p.kind == "boolean":
            return unit >= 0.5
        if p.kind == "categorical":
            return p.choices[min(len(p.choices) - 1, int(unit * len(p.choices)))]
        low, high = _axis(p, p.minimum), _axis(p, p.maximum)
        place = low + unit * (high - low)
        if p.scale != "linear" and unit <= _ROUNDING:
            return _clip_number(p, p.minimum)
        return _clip_number(p, place if p.scale == "linear" else math.exp(place))

    def _with_unit(self, name: str) -> Any:
        if not self.has_unit(name):
            p = self[name]
            raise ValueError(f"{name} ({p.kind}) has no unit scale; check space.has_unit(name) first")
        return self[name]


def _axis(p: Any, value: float) -> float:
    if p.scale == "linear":
        return float(value)
    floor = p.minimum if p.minimum is not None and p.minimum > 0 else abs(p.maximum or 1.0) * LOG_FLOOR
    return math.log(max(value, floor))


def _steps(p: Any, value: float) -> list[Any]:
    if p.scale == "linear":
        width = (
            (p.maximum - p.minimum) * STEP_FRACTION
            if p.minimum is not None and p.maximum is not None
            else abs(value) * 0.1 or 1.0
        )
        step = p.step if p.step is not None else max(1, round(width)) if p.kind == "integer" else width
        return [_clip_number(p, value - step), _clip_number(p, value + step)]
    factor = 2.0 if p.scale == "log2" else math.sqrt(10.0)
    if value <= 0:
        return [_clip_number(p, abs(p.maximum or 1.0) * 1e-3)]
    return [_clip_number(p, value / factor), _clip_number(p, value * factor)]


def _clip_number(p: Any, value: float) -> Any:
    number = float(value)
    if number != number:
        raise ValueError(f"{p.name} cannot be nan")
    if p.minimum is not None:
        number = max(p.minimum, number)
    if p.maximum is not None:
        number = min(p.maximum, number)
    if p.step is not None and p.scale == "linear":
        origin = p.minimum if p.minimum is not None else 0
        count = round((number - origin) / p.step)
        if p.maximum is not None and origin + count * p.step > p.maximum:
            count -= 1
        number = origin + count * p.step
    if p.kind != "integer":
        return number
    whole = round(number)
    if p.minimum is not None and whole < p.minimum:
        whole += 1
    if p.maximum is not None and whole > p.maximum:
        whole -= 1
    return whole
