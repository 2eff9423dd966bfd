"""Between the wire's messages and our own types, for what every service shares.

``X_to_proto`` takes a domain object; ``X_from_proto`` checks a message that came from outside and raises
:class:`InvalidArgument` with the path of the wrong field.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from bilevel.v1 import common_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from service_kit.errors import InvalidArgument
from service_kit.llm.usage import Usage
from service_kit.parameters import (
    Configuration,
    Direction,
    Kind,
    Objective,
    Outcome,
    Parameter,
    ParameterSpace,
    Scalar,
    Scale,
    Split,
    Value,
)

_Enum = TypeVar("_Enum", bound=StrEnum)


def value_to_proto(value: Value) -> pb.Value:
    """Raises :class:`InvalidArgument` for an integer beyond 64 bits."""
    match value:
        case bool():
            return pb.Value(bool_value=value)
        case int():
            if not -(2**63) <= value < 2**63:
                raise InvalidArgument.of("int_value", f"must be a 64-bit integer; got one of {value.bit_length()} bits")
            return pb.Value(int_value=value)
        case float():
            return pb.Value(double_value=value)
        case str():
            return pb.Value(string_value=value)
        case tuple():
            return pb.Value(list_value=pb.ValueList(values=[value_to_proto(element) for element in value]))


def value_from_proto(message: pb.Value, field: str = "value") -> Value:
    if message.WhichOneof("kind") != "list_value":
        return _scalar(message, field)
    return tuple(_scalar(element, f"{field}.list_value[{i}]") for i, element in enumerate(message.list_value.values))


def _scalar(message: pb.Value, field: str) -> Scalar:
    match message.WhichOneof("kind"):
        case "int_value":
            return message.int_value
        case "double_value":
            if not math.isfinite(message.double_value):
                raise InvalidArgument.of(field, f"must be a finite number; got {message.double_value}")
            return message.double_value
        case "bool_value":
            return message.bool_value
        case "string_value":
            return message.string_value
        case "list_value":
            raise InvalidArgument.of(field, "must be a number, a boolean or a string: lists do not nest")
        case _:
            raise InvalidArgument.of(
                field, "must have one of int_value, double_value, bool_value, string_value and list_value"
            )


def values_to_proto(values: Mapping[str, Value]) -> dict[str, pb.Value]:
    """For map<string, Value> fields."""
    return {name: value_to_proto(value) for name, value in values.items()}


def configuration_to_proto(configuration: Configuration) -> pb.Configuration:
    return pb.Configuration(values=values_to_proto(configuration))


def configuration_from_proto(message: pb.Configuration, field: str = "configuration") -> dict[str, Value]:
    """The values as sent; whether they fit a space is the space's business. Ordered by name: maps have no order."""
    names = sorted(message.values)
    return {name: value_from_proto(message.values[name], f"{field}.values[{name}]") for name in names}


def parameter_to_proto(parameter: Parameter) -> pb.Parameter:
    return pb.Parameter(
        name=parameter.name,
        kind=kind_to_proto(parameter.kind),
        default_value=value_to_proto(parameter.default),
        documentation=parameter.documentation,
        locked=parameter.locked,
        minimum=parameter.minimum,
        maximum=parameter.maximum,
        scale=scale_to_proto(parameter.scale),
        step=parameter.step,
        choices=[value_to_proto(choice) for choice in parameter.choices],
        length=parameter.length,
        max_length=parameter.max_length,
        pattern=parameter.pattern,
    )


def parameter_from_proto(message: pb.Parameter, field: str = "parameter") -> Parameter:
    if not message.name:
        raise InvalidArgument.of(f"{field}.name", "must not be empty")
    if message.step < 0 or (message.HasField("step") and message.step == 0):
        raise InvalidArgument.of(f"{field}.step", f"must be greater than 0; got {message.step}")
    try:
        re.compile(message.pattern)
    except re.error as error:
        raise InvalidArgument.of(f"{field}.pattern", f"must be a regular expression: {error}") from None
    return Parameter(
        name=message.name,
        kind=kind_from_proto(message.kind, f"{field}.kind"),
        default=value_from_proto(message.default_value, f"{field}.default_value"),
        documentation=message.documentation,
        locked=message.locked,
        minimum=message.minimum if message.HasField("minimum") else None,
        maximum=message.maximum if message.HasField("maximum") else None,
        scale=scale_from_proto(message.scale) if message.scale else Scale.LINEAR,
        step=message.step if message.HasField("step") else None,
        choices=tuple(_scalar(choice, f"{field}.choices[{i}]") for i, choice in enumerate(message.choices)),
        length=message.length if message.HasField("length") else None,
        max_length=message.max_length or 4096,
        pattern=message.pattern,
    )


def space_to_proto(space: ParameterSpace) -> pb.ParameterSpace:
    return pb.ParameterSpace(parameters=map(parameter_to_proto, space.parameters), constraints=space.constraints)


def space_from_proto(message: pb.ParameterSpace, field: str = "space") -> ParameterSpace:
    """Also raises :class:`InvalidConfiguration` when a default lies outside its own range."""
    parameters = [parameter_from_proto(p, f"{field}.parameters[{i}]") for i, p in enumerate(message.parameters)]
    names = [parameter.name for parameter in parameters]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InvalidArgument.of(f"{field}.parameters", f"must have unique names; {twice} is there twice")
    return ParameterSpace(tuple(parameters), tuple(message.constraints))


def objective_to_proto(objective: Objective) -> pb.Objective:
    return pb.Objective(
        metric=objective.metric,
        direction=direction_to_proto(objective.direction),
        unit=objective.unit,
        documentation=objective.documentation,
    )


def objective_from_proto(message: pb.Objective, field: str = "objective") -> Objective:
    if not message.metric:
        raise InvalidArgument.of(f"{field}.metric", "must not be empty")
    direction = direction_from_proto(message.direction, f"{field}.direction")
    return Objective(message.metric, direction, message.unit, message.documentation)


def usage_to_proto(usage: Usage) -> pb.TokenUsage:
    return pb.TokenUsage(**usage.to_json())


def usage_from_proto(message: pb.TokenUsage) -> Usage:
    return Usage(
        calls=message.calls,
        prompt_tokens=message.prompt_tokens,
        completion_tokens=message.completion_tokens,
        reasoning_tokens=message.reasoning_tokens,
        cost_usd=message.cost_usd if message.HasField("cost_usd") else None,
        cached_tokens=message.cached_tokens,
        estimated_calls=message.estimated_calls,
    )


def timestamp_to_proto(moment: datetime) -> Timestamp:
    """``moment`` is aware; microseconds are kept."""
    if moment.tzinfo is None:
        raise ValueError("a moment needs a time zone")
    message = Timestamp()
    message.FromDatetime(moment.astimezone(UTC))
    return message


def timestamp_from_proto(message: Timestamp) -> datetime:
    """The moment in UTC."""
    return message.ToDatetime(tzinfo=UTC)


def duration_to_proto(seconds: float) -> Duration:
    """Nanoseconds are kept."""
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def duration_from_proto(message: Duration) -> float:
    """Seconds."""
    return message.seconds + message.nanos / 1e9


def kind_to_proto(kind: Kind) -> pb.ParameterKind.ValueType:
    return pb.ParameterKind.Value(f"PARAMETER_KIND_{kind.name}")


def kind_from_proto(number: int, field: str = "kind") -> Kind:
    return _member(Kind, pb.ParameterKind, number, field)


def scale_to_proto(scale: Scale) -> pb.Scale.ValueType:
    return pb.Scale.Value(f"SCALE_{scale.name}")


def scale_from_proto(number: int, field: str = "scale") -> Scale:
    return _member(Scale, pb.Scale, number, field)


def direction_to_proto(direction: Direction) -> pb.Direction.ValueType:
    return pb.Direction.Value(f"DIRECTION_{direction.name}")


def direction_from_proto(number: int, field: str = "direction") -> Direction:
    return _member(Direction, pb.Direction, number, field)


def outcome_to_proto(outcome: Outcome | None) -> pb.Outcome.ValueType:
    """None, an undecided outcome, is UNSPECIFIED."""
    return pb.Outcome.Value(f"OUTCOME_{outcome.name}") if outcome is not None else pb.OUTCOME_UNSPECIFIED


def outcome_from_proto(number: int, field: str = "outcome") -> Outcome | None:
    return _member(Outcome, pb.Outcome, number, field) if number else None


def split_to_proto(split: Split) -> pb.Split.ValueType:
    return pb.Split.Value(f"SPLIT_{split.name}")


def split_from_proto(number: int, field: str = "split") -> Split:
    return _member(Split, pb.Split, number, field) if number else Split.SEARCH


def _member(members: type[_Enum], wire: Any, number: int, field: str) -> _Enum:
    """The member whose name ends the wire name of ``number``, as PARAMETER_KIND_REAL ends with REAL."""
    name = wire.Name(number) if number in wire.values() else ""
    for member in members:
        if name.endswith(f"_{member.name}"):
            return member
    raise InvalidArgument.of(field, f"must be one of {', '.join(wire.keys()[1:])}; got {name or number}")
