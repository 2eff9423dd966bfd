"""What hooks receive and return inside the worker: trials, candidates, the view, and copies of plain data.

Records are frozen and hand out copies of their dictionaries and lists, so that a mechanism cannot rewrite the history
that its own later calls are shown.
"""

from __future__ import annotations

import collections
import difflib
from collections.abc import Mapping
from typing import Any

from mechanisms.language.space import Space


class Record:
    """Named values, read as attributes."""

    __slots__ = ("_values",)
    _fields: tuple[str, ...] = ()
    _values: dict[str, Any]

    def __init__(self, values: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_values", {name: values[name] for name in self._fields})

    def __getattr__(self, name: str) -> Any:
        try:
            value = self._values[name]
        except KeyError:
            close = difflib.get_close_matches(name, self._fields, n=1)
            hint = f"did you mean {close[0]}?" if close else "it has " + ", ".join(self._fields)
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}; {hint}") from None
        return value.copy() if type(value) in (dict, list) else value

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={self._values[name]!r}' for name in self._fields)})"


class Trial(Record):
    """A trial: configuration, changes, hypothesis, outcome, metric, kept and what it had to beat."""

    __slots__ = ()
    _fields = (
        "number",
        "configuration",
        "changes",
        "hypothesis",
        "origin",
        "proposer",
        "outcome",
        "metric",
        "kept",
        "incumbent_metric",
        "budget_fraction",
        "side_metrics",
        "message",
    )

    def __init__(self, values: Mapping[str, Any]) -> None:
        hashable = {name: _configuration(values[name]) for name in ("configuration", "changes")}
        super().__init__({**values, **hashable})

    def __repr__(self) -> str:
        shown = ("number", "changes", "outcome", "metric", "kept")
        return f"Trial({', '.join(f'{name}={self._values[name]!r}' for name in shown)})"


class Candidate(Record):
    """A proposed change of the incumbent: ``Candidate(changes={"DEPTH": 6}, hypothesis="deeper is better")``."""

    __slots__ = ()
    _fields = ("changes", "hypothesis", "origin", "proposer")

    def __init__(
        self, changes: Mapping[str, Any], hypothesis: str = "", origin: str = "mechanism", proposer: str = ""
    ) -> None:
        if not isinstance(changes, dict):
            raise TypeError(
                f"Candidate(changes=...) must be a dict of parameter names to values; got {type(changes).__name__}"
            )
        values = {"changes": _configuration(changes), "hypothesis": hypothesis, "origin": origin, "proposer": proposer}
        super().__init__(values)

    __hash__ = None  # type: ignore[assignment]  # an identity hash would order sets by address

    def __eq__(self, other: object) -> bool:
        return type(other) is Candidate and self._values == other._values


class Objective(Record):
    """What is optimised: ``metric``, ``direction``, ``better(a, b)`` and ``gain(old, new)``."""

    __slots__ = ()
    _fields = ("metric", "direction", "better", "gain")

    def __init__(self, metric: str, direction: str) -> None:
        sign = -1.0 if direction == "minimize" else 1.0

        def better(a: float, b: float) -> bool:
            """Whether ``a`` is strictly better than ``b``."""
            return sign * a > sign * b

        def gain(old: float, new: float) -> float:
            """How much better ``new`` is than ``old``; positive when it improved."""
            return sign * (new - old)

        super().__init__({"metric": metric, "direction": direction, "better": better, "gain": gain})


class View(Record):
    """The search so far."""

    __slots__ = ()
    _fields = (
        "objective",
        "history",
        "incumbent",
        "best",
        "active",
        "frozen",
        "strategy",
        "guidance",
        "trials_left",
        "space",
    )


def _configuration(values: Mapping[str, Any]) -> dict[str, Any]:
    # Lists become tuples, so that a configuration can be a key.
    return {name: tuple(value) if type(value) is list else value for name, value in values.items()}


# Copies. The copy module would call whatever an object says about its own reduction; these copy known types only.

_SEQUENCES: dict[type, Any] = {list: list, tuple: tuple, set: set, frozenset: frozenset}
_MAPPINGS = (dict, collections.OrderedDict, collections.Counter)


def deep_copy(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """A copy of plain data and of instances of the mechanism's own classes; everything else is itself."""
    memo = {} if memo is None else memo
    if id(value) in memo:
        return memo[id(value)]
    kind = type(value)
    copied: Any
    if kind is list:
        copied = memo[id(value)] = []
        copied.extend(deep_copy(element, memo) for element in value)
    elif kind in _SEQUENCES:
        copied = memo[id(value)] = _SEQUENCES[kind](deep_copy(element, memo) for element in value)
    elif kind is collections.deque:
        copied = memo[id(value)] = collections.deque(maxlen=value.maxlen)
        copied.extend(deep_copy(element, memo) for element in value)
    elif kind in _MAPPINGS or kind is collections.defaultdict:
        copied = collections.defaultdict(value.default_factory) if kind is collections.defaultdict else kind()
        memo[id(value)] = copied
        copied.update({deep_copy(key, memo): deep_copy(element, memo) for key, element in value.items()})
    elif is_own_instance(value):
        copied = memo[id(value)] = _new_instance(kind)
        copied.__dict__.update({name: deep_copy(element, memo) for name, element in value.__dict__.items()})
    else:
        copied = value
    return copied


def _new_instance(kind: Any) -> Any:
    return kind.__new__(kind)


def shallow_copy(value: Any) -> Any:
    """A copy of one container or instance, its elements shared."""
    kind = type(value)
    if kind in _SEQUENCES or kind in _MAPPINGS or kind in (collections.deque, collections.defaultdict):
        return value.copy() if hasattr(value, "copy") else value
    if is_own_instance(value):
        copied = _new_instance(kind)
        copied.__dict__.update(value.__dict__)
        return copied
    return value


class OwnType(type):
    """The type of every class that a mechanism defines; being one is what opens attributes to its author."""


def is_own_instance(value: object) -> bool:
    """Whether ``value`` is an instance of a class that the mechanism defined, exceptions excluded."""
    return type(type(value)) is OwnType and not isinstance(value, BaseException)


def _record_fields(value: object) -> tuple[str, ...]:
    if type(value) is Candidate:
        return ("changes", "hypothesis")
    fields = getattr(type(value), "hidden0_fields", None) if is_own_instance(value) else None
    if type(fields) is not tuple:
        raise TypeError("expected an instance of a dataclass")
    return fields


def asdict(value: Any) -> dict[str, Any]:
    """``dataclasses.asdict`` for the mechanism's own dataclasses."""
    return {name: _plain_record(getattr(value, name), asdict) for name in _record_fields(value)}


def astuple(value: Any) -> tuple[Any, ...]:
    """``dataclasses.astuple`` for the mechanism's own dataclasses."""
    return tuple(_plain_record(getattr(value, name), astuple) for name in _record_fields(value))


def _plain_record(value: Any, convert: Any) -> Any:
    if is_own_instance(value) and hasattr(type(value), "hidden0_fields"):
        return convert(value)
    if type(value) in (list, tuple):
        return type(value)(_plain_record(element, convert) for element in value)
    if type(value) is dict:
        return {key: _plain_record(element, convert) for key, element in value.items()}
    return value


def replace(value: Any, **changes: Any) -> Any:
    """``dataclasses.replace`` for candidates and the mechanism's own dataclasses."""
    given = {name: getattr(value, name) for name in _record_fields(value)}
    return type(value)(**(given | changes))


__all__ = [
    "Candidate",
    "Objective",
    "OwnType",
    "Record",
    "Space",
    "Trial",
    "View",
    "asdict",
    "astuple",
    "deep_copy",
    "is_own_instance",
    "replace",
    "shallow_copy",
]
