"""Small moves of one parameter, and what a constraint makes of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from clients.scripted_researcher import sentences, sources
from service_kit.parameters import Configuration, InvalidConfiguration, Kind, Parameter, Scale, Value

SMALL_FRACTION = 0.025
"""A small linear move, as a fraction of the range."""
SMALL_RATIO = 1.25
"""A small move of a real parameter on a logarithmic scale."""

_MULTIPLE = re.compile(r"\b(\w+) must be (?:a )?(?:whole )?multiples? of (\w+)(?:\s*[x*\u00d7]\s*([0-9]+))?")
_ALPHABET = re.compile(r"\[(\w)(\w)\]\+")


class Towards(StrEnum):
    """Which way a move goes."""

    INCREASE = "increase"
    DECREASE = "decrease"
    CHANGE = "change"
    """For values without an order."""


def moved(parameter: Parameter, value: Value, towards: Towards, size: int = 1) -> Value | None:
    """``value`` moved by ``size`` small steps; None where the range ends or no such move exists."""
    if towards is Towards.CHANGE:
        others = [other for other in alternatives(parameter, value) if other != value]
        return others[(size - 1) % len(others)] if others else None
    if isinstance(value, tuple):
        first = _number_moved(parameter, value[0], towards, size) if value else None
        return _checked(parameter, (first, *value[1:]) if first is not None else None)
    return _checked(parameter, _number_moved(parameter, value, towards, size))


def alternatives(parameter: Parameter, value: Value) -> Sequence[Value]:
    """The values of an unordered parameter: its choices, patterns over a two-letter alphabet such as ``[SL]+``, or
    variants of the text or the source ``value``."""
    match parameter.kind:
        case Kind.CATEGORICAL:
            return parameter.choices
        case Kind.BOOLEAN:
            return (False, True)
        case Kind.TEXT if letters := _ALPHABET.fullmatch(parameter.pattern):
            short, long = letters[1], letters[2]
            length = len(parameter.default) if isinstance(parameter.default, str) else 4
            return [short * (length - n) + long * n for n in range(length, -1, -1)]
        case Kind.TEXT if not parameter.pattern:
            return sentences.variants(str(value), parameter.max_length)
        case Kind.SOURCE:
            return sources.variants(str(value), parameter.max_length)
    return ()


def ordered(parameter: Parameter) -> bool:
    """Whether the parameter can be increased and decreased."""
    return parameter.kind in (Kind.INTEGER, Kind.REAL, Kind.LIST)


def _number_moved(parameter: Parameter, value: object, towards: Towards, size: int) -> float | None:
    if isinstance(value, bool | str) or not isinstance(value, int | float) or not ordered(parameter):
        return None
    up = towards is Towards.INCREASE
    whole = parameter.kind is Kind.INTEGER
    if parameter.scale is not Scale.LINEAR and value > 0:
        ratio = (2.0 if whole else SMALL_RATIO) ** size
        return _rounded(value * ratio if up else value / ratio, whole)
    step = parameter.step
    if step is None and parameter.minimum is not None and parameter.maximum is not None:
        step = (parameter.maximum - parameter.minimum) * SMALL_FRACTION
    step = step or abs(value) / 10 or 1.0
    step = max(1.0, round(step)) if whole else step
    return _rounded(value + step * size if up else value - step * size, whole)


def _rounded(number: float, whole: bool) -> float:
    return round(number) if whole else float(f"{number:.6g}")


def _checked(parameter: Parameter, value: object) -> Value | None:
    try:
        return parameter.check(value)
    except InvalidConfiguration:
        return None


@dataclass(frozen=True, slots=True)
class Multiple:
    """``whole`` must be a multiple ``part`` times ``unit``."""

    whole: str
    part: str
    unit: int


def multiples(constraints: Sequence[str], names: Sequence[str]) -> Iterator[Multiple]:
    """The constraints of the form "A must be a multiple of B x 128" between known parameters."""
    for sentence in constraints:
        for whole, part, unit in _MULTIPLE.findall(sentence):
            if whole in names and part in names:
                yield Multiple(whole, part, int(unit or 1))


def fitted(changes: Configuration, incumbent: Configuration, rules: Sequence[Multiple]) -> Configuration:
    """``changes`` with each part halved as often as its whole needs."""
    result = dict(changes)
    for rule in rules:
        whole, part = (result.get(name, incumbent[name]) for name in (rule.whole, rule.part))
        if not isinstance(whole, int) or not isinstance(part, int):
            continue
        while part > 1 and whole % (part * rule.unit):
            part //= 2
        if part != incumbent[rule.part] or rule.part in result:
            result[rule.part] = part
    return result
