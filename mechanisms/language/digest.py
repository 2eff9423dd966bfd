"""A digest of a mechanism's state, equal in every worker that holds equal state: no addresses, no order of sets.

After a restart the state is rebuilt from the observations; comparing digests tells whether it came back as it was.
"""

from __future__ import annotations

import collections
import hashlib
import random
import statistics
import types
from collections.abc import Mapping
from typing import Any

from mechanisms.language.facades import Facade
from mechanisms.language.names import reveal
from mechanisms.language.objects import Candidate, OwnType, Trial, View

MAX_VALUES = 20_000
"""A state with more values than this is digested up to here: every observation pays for its digest."""

_PLAIN = (type(None), bool, int, float, str)
_SHOWN = (range, complex, slice, statistics.NormalDist, statistics.LinearRegression)
_ORDERED = (list, tuple, collections.deque)
_MAPPINGS = (dict, collections.OrderedDict, collections.defaultdict, collections.Counter)


def state_digest(mechanism: Any, namespace: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits for everything in which the mechanism can keep something: its attributes, its classes
    and globals (``namespace``), and what functions, generators, iterators and random generators hold."""
    digest = _Digest()
    # The first names of the namespace are the language's own guards; functions lead back to it as well.
    own = {name: value for name, value in namespace.items() if not name.startswith("_")}
    return _hash(digest.of(mechanism), *(f"{name} {digest.of(value)}" for name, value in own.items()))[:16]


class _Digest:
    def __init__(self) -> None:
        self.left = MAX_VALUES
        self.seen: dict[int, int] = {}
        self.kept: list[Any] = []
        # Temporaries stay, so that no second one gets the id of a first.

    def of(self, value: Any) -> str:
        """The digest of one value; what can hold nothing counts by the name of its type."""
        kind = type(value)
        self.left -= 1
        if self.left < 0:
            return "…"
        if kind in _PLAIN:
            return f"{kind.__name__}:{value!r}" if kind is not str or len(value) < 64 else _hash(value)
        if kind is Trial:
            return f"trial {value.number}"
        if id(value) in self.seen:
            return f"again {self.seen[id(value)]}"
        self.seen[id(value)] = len(self.seen)
        self.kept.append(value)
        return self._container(value, kind)

    def _container(self, value: Any, kind: type) -> str:
        if kind in _ORDERED:
            return _hash(kind.__name__, *map(self.of, value))
        if kind in (set, frozenset):
            if len(value) > self.left:
                return f"{len(value)} elements"
            return _hash(kind.__name__, *sorted(_Digest().of(element) for element in value))
        if kind in _MAPPINGS:
            return _hash(kind.__name__, *(self.of(part) for item in value.items() for part in item))
        if kind is Candidate:
            return _hash("candidate", self.of(value.changes), value.hypothesis)
        if kind is OwnType:
            return _hash("class", *(f"{name} {self.of(held)}" for name, held in vars(value).items() if name[0] != "_"))
        if type(kind) is OwnType:
            held = self.of(value.args) if isinstance(value, BaseException) else ""
            return _hash(reveal(kind.__name__), self.of(value.__dict__), held)
        return self._code(value, kind)

    def _code(self, value: Any, kind: type) -> str:
        """What code holds on to."""
        name = reveal(kind.__name__)
        if kind is types.FunctionType:
            held = (*map(_content, value.__closure__ or ()), value.__defaults__, value.__kwdefaults__)
            return _hash(name, value.__name__, *map(self.of, held))
        if kind is types.MethodType:
            return _hash(name, value.__name__, self.of(value.__self__))
        if kind is types.GeneratorType:
            frame = value.gi_frame
            return name if frame is None else _hash(name, str(frame.f_lasti), self.of(dict(frame.f_locals)))
        if kind is types.BuiltinMethodType and not isinstance(value.__self__, types.ModuleType | type(None)):
            return _hash(name, value.__name__, self.of(value.__self__))
        if kind in (staticmethod, classmethod):
            return _hash(name, self.of(value.__func__))
        if kind is property:
            return _hash(name, self.of(value.fget), self.of(value.fset))
        if hasattr(kind, "__next__"):
            return _hash(name, *map(self.of, _place(value)))
        return self._rest(value, kind)

    def _rest(self, value: Any, kind: type) -> str:
        name = reveal(kind.__name__)
        if kind is Facade:
            generator = getattr(getattr(value, "random", None), "__self__", None)
            if type(generator) is not random.Random:
                return name
            _, words, gauss = generator.getstate()
            return f"{hash(words)} {gauss}"
        if isinstance(value, BaseException):
            return _hash(name, self.of(value.args))
        if kind in _SHOWN:
            return repr(value)
        if kind is View:
            return f"view of {len(value.history)} trials, {value.trials_left} left"
        return name


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None  # a variable that has no value yet


def _place(iterator: Any) -> tuple[Any, ...]:
    """What an iterator would be pickled as, its source and its place, without moving it; nothing for the few kinds that
    do not say."""
    try:
        return tuple(iterator.__reduce__()[1:])
    except TypeError:
        return ()


def _hash(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
