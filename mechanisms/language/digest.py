"""A digest of a mechanism's state, equal in every worker that holds equal state: no addresses, no order of sets.

After a restart the state is rebuilt from the observations; comparing digests tells whether it came back as it was.
"""

from __future__ import annotations

import collections
import hashlib
from typing import Any

from mechanisms.language.names import reveal
from mechanisms.language.objects import Candidate, OwnType, Trial

MAX_VALUES = 20_000
"""A state with more values than this is digested up to here: every observation pays for its digest."""

_PLAIN = (type(None), bool, int, float, str)
_ORDERED = (list, tuple, collections.deque)
_MAPPINGS = (dict, collections.OrderedDict, collections.defaultdict, collections.Counter)


def state_digest(mechanism: Any) -> str:
    """Sixteen hexadecimal digits that stand for everything reachable through the instance's attributes."""
    return _Digest().of(mechanism)[:16]


class _Digest:
    def __init__(self) -> None:
        self.left = MAX_VALUES
        self.seen: dict[int, int] = {}

    def of(self, value: Any) -> str:
        """The digest of one value; what is neither data nor an own instance counts by the name of its type."""
        kind = type(value)
        self.left -= 1
        if self.left < 0:
            return "…"
        if kind in _PLAIN:
            return f"{kind.__name__}:{value!r}" if kind is not str or len(value) < 64 else self._hash(value)
        if kind is Trial:
            return f"trial {value.number}"
        if id(value) in self.seen:
            return f"again {self.seen[id(value)]}"
        self.seen[id(value)] = len(self.seen)
        if kind in _ORDERED:
            return self._hash(kind.__name__, *(self.of(element) for element in value))
        if kind in (set, frozenset):
            if len(value) > self.left:
                return f"{len(value)} elements"
            return self._hash(kind.__name__, *sorted(_Digest().of(element) for element in value))
        if kind in _MAPPINGS:
            return self._hash(kind.__name__, *(self.of(part) for item in value.items() for part in item))
        if kind is Candidate:
            return self._hash("candidate", self.of(value.changes), value.hypothesis)
        if type(kind) is OwnType:
            return self._hash(reveal(kind.__name__), self.of(value.__dict__))
        return reveal(kind.__name__)

    @staticmethod
    def _hash(*parts: str) -> str:
        return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
