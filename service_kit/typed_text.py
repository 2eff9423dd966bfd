"""What a person types for a parameter, in the few literal forms of a command line. Nothing here parses text as code."""

from __future__ import annotations

import re

from service_kit.parameters import Kind, Parameter, Value, shown

_POWER = re.compile(r"([0-9_]{1,12})\s*(?:\*\*|\^)\s*([0-9]{1,2})")


def parse_value(parameter: Parameter, text: str) -> Value:
    """Read what a person typed for ``parameter``: ``4096``, ``2**12``, ``0.04``, ``true``, ``SSSL``, ``0.8,0.95``.

    Raises :class:`InvalidConfiguration` naming the parameter and its allowed range.
    """
    text = text.strip()
    match parameter.kind:
        case Kind.TEXT | Kind.SOURCE:
            return parameter.check(text)
        case Kind.BOOLEAN:
            return parameter.check({"true": True, "false": False}.get(text.lower(), text))
        case Kind.LIST:
            return parameter.check([_number(part) for part in text.strip("()[]").split(",")])
        case Kind.CATEGORICAL:
            by_text = {shown(choice): choice for choice in parameter.choices}
            return parameter.check(by_text.get(text, text))
        case Kind.INTEGER | Kind.REAL:
            return parameter.check(_number(text))


def _number(text: str) -> int | float | str:
    text = text.strip()
    if power := _POWER.fullmatch(text):
        base, exponent = int(power[1]), int(power[2])
        return int(base**exponent)
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text
