"""Values of a space that a conforming server must take, and others that it must refuse."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from service_kit.parameters import Kind, Parameter, ParameterSpace, Scale, Value

UNKNOWN = "no_such_parameter"
"""A parameter that no task has."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """A value that a server must refuse."""

    parameter: str
    value: Value
    why: str


def wrong_values(space: ParameterSpace) -> Iterator[Wrong]:
    """An unknown parameter; for every known one a value of another type, and one out of its range if it has one."""
    yield Wrong(UNKNOWN, 1, "an unknown parameter")
    for parameter in space.editable:
        textual = parameter.kind in (Kind.TEXT, Kind.SOURCE, Kind.CATEGORICAL)
        yield Wrong(parameter.name, (0.5, "x") if textual else "not a number", "a value of another type")
        beyond = _beyond(parameter)
        if beyond is not None:
            yield Wrong(parameter.name, beyond, "a value out of range")


def other_values(parameter: Parameter, avoid: Value) -> list[Value]:
    """A few values that the parameter takes, other than ``avoid``; none where they cannot be made up."""
    rng = random.Random(parameter.name)  # noqa: S311 (values to try, no secrets)
    drawn = [draw(parameter, rng) for _ in range(12)]
    return list(dict.fromkeys(value for value in drawn if value != avoid))[:4]


def draw(parameter: Parameter, rng: random.Random) -> Value:
    """A value that the parameter takes; its default where others cannot be made up."""
    match parameter.kind:
        case Kind.BOOLEAN:
            return rng.random() < 0.5
        case Kind.CATEGORICAL:
            return rng.choice(parameter.choices)
        case Kind.INTEGER | Kind.REAL:
            return _number(parameter, rng, parameter.default)
        case Kind.LIST if isinstance(parameter.default, tuple):
            return tuple(_number(parameter, rng, element) for element in parameter.default)
        case _:
            return parameter.default


def _number(parameter: Parameter, rng: random.Random, default: Value) -> int | float:
    assert isinstance(default, int | float)
    low = parameter.minimum if parameter.minimum is not None else default - max(1.0, abs(default))
    high = parameter.maximum if parameter.maximum is not None else default + max(1.0, abs(default))
    if parameter.step is not None and parameter.scale is Scale.LINEAR:
        number = low + rng.randrange(int((high - low) / parameter.step) + 1) * parameter.step
    elif parameter.scale is not Scale.LINEAR and low > 0:
        number = low * (high / low) ** rng.random()
    else:
        number = rng.uniform(low, high)
    number = min(max(number, low), high)
    return int(number) if parameter.kind is Kind.INTEGER else number


def _beyond(parameter: Parameter) -> Value | None:
    """A value of the right type that lies outside the parameter's range; None where everything is inside."""
    match parameter.kind:
        case Kind.INTEGER if parameter.maximum is not None:
            return int(parameter.maximum) + 1
        case Kind.REAL if parameter.maximum is not None:
            return parameter.maximum + max(1.0, abs(parameter.maximum))
        case Kind.CATEGORICAL if all(isinstance(choice, str) for choice in parameter.choices):
            return "no such choice"
        case Kind.LIST if parameter.length is not None:
            return (0.0,) * (parameter.length + 1)
        case Kind.TEXT | Kind.SOURCE:
            return "x" * (parameter.max_length + 1)
        case _:
            return None


def sample(space: ParameterSpace, rng: random.Random) -> dict[str, Value]:
    """A complete configuration whose single values are all allowed."""
    return {p.name: p.default if p.locked else draw(p, rng) for p in space.parameters}
