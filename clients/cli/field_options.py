"""Fields of a message as a person types them: ``NAME=VALUE``, with dots into what lies within, by the contract's names.

What has a flag of its own is refused, so that there is one way to say it. A new field of the contract needs nothing
here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from service_kit.errors import InvalidArgument
from service_kit.translate import duration_to_proto

_INTEGERS = {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64}
_DURATION = "google.protobuf.Duration"


def set_fields(message: Message, option: str, texts: Iterable[str], flags: Mapping[str, str]) -> None:
    """Set fields of ``message`` from ``NAME=VALUE`` texts that were given with ``option``.

    Durations are numbers of seconds, members of an enumeration are named in lower case without their prefix. ``flags``
    are the options that fields have of their own. Raises :class:`InvalidArgument` that names ``option``.
    """
    seen: set[str] = set()
    for text in texts:
        path, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not path:
            raise InvalidArgument.of(option, f"must be NAME=VALUE; got {text!r}")
        if path in seen:
            raise InvalidArgument.of(option, f"must name each field once; {path} is given twice")
        seen.add(path)
        if path in flags:
            raise InvalidArgument.of(option, f"must not hold {path}, which has a flag of its own: {flags[path]}")
        _set(message, option, path, value, flags)


def _set(message: Message, option: str, path: str, text: str, flags: Mapping[str, str]) -> None:
    target, fields = message, list[str]()
    *outer, last = path.split(".")
    for name in outer:
        field = _field(target, option, [*fields, name], flags)
        fields.append(name)
        if _is_map(field):
            if name != outer[-1]:
                raise InvalidArgument.of(option, f"{path} is not a field: {'.'.join(fields)} holds plain texts")
            getattr(target, name)[last] = text
            return
        if field.message_type is None or field.message_type.full_name == _DURATION:
            raise InvalidArgument.of(option, f"{path} is not a field: {'.'.join(fields)} has none of its own")
        target = getattr(target, name)
    field = _field(target, option, [*fields, last], flags)
    if field.message_type is not None and field.message_type.full_name == _DURATION:
        getattr(target, last).CopyFrom(duration_to_proto(_number(option, path, text, "seconds")))
        return
    if field.message_type is not None or field.is_repeated:
        within = f"{path}.NAME" if not _is_map(field) else f"{path}.KEY"
        raise InvalidArgument.of(option, f"{path} cannot be set as a whole: say {within}=VALUE")
    try:
        setattr(target, last, _value(field, option, path, text))
    except (ValueError, OverflowError):
        raise InvalidArgument.of(option, f"{path} is out of the range of its type; got {text!r}") from None


def _field(target: Message, option: str, path: list[str], flags: Mapping[str, str]) -> FieldDescriptor:
    found = target.DESCRIPTOR.fields_by_name.get(path[-1])
    if found is None:
        above = path[:-1]
        names = (".".join([*above, name]) for name in target.DESCRIPTOR.fields_by_name)
        known = ", ".join(sorted(name for name in names if name not in flags))
        hint = "Name one of these fields; the protocol's .proto files say what each one means."
        raise InvalidArgument.of(option, f"has no field {'.'.join(path)}; there are {known}", hint=hint)
    return cast(FieldDescriptor, found)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _value(field: FieldDescriptor, option: str, path: str, text: str) -> Any:
    if field.enum_type is not None:
        return _member(field.enum_type, option, path, text)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if text not in ("true", "false"):
            raise InvalidArgument.of(option, f"{path} must be true or false; got {text!r}")
        return text == "true"
    if field.cpp_type in _INTEGERS:
        try:
            return int(text)
        except ValueError:
            raise InvalidArgument.of(option, f"{path} must be a whole number; got {text!r}") from None
    if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        return _number(option, path, text, "a number")
    return text


def _member(kind: EnumDescriptor, option: str, path: str, text: str) -> int:
    """Number of a member: ``pause_run`` of ``AFTER_FAILURES_PAUSE_RUN``."""
    prefix = kind.values[0].name.removesuffix("UNSPECIFIED")
    numbers = {value.name.removeprefix(prefix).lower(): value.number for value in kind.values[1:]}
    if text not in numbers:
        raise InvalidArgument.of(option, f"{path} must be {' or '.join(numbers)}; got {text!r}")
    return int(numbers[text])


def _number(option: str, path: str, text: str, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InvalidArgument.of(option, f"{path} must be {what}; got {text!r}")
    return number
