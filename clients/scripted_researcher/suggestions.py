"""What guidance and mechanisms ask for in words that the researcher understands.

=============================  ======================================================
"try decreasing NAME"          NAME is decreased next, as long as that is new
"try increasing NAME"          the same upwards; "try changing NAME" for unordered ones
"avoid NAME"                   NAME is left alone
"avoid increasing NAME"        that direction is left alone
=============================  ======================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from clients.scripted_researcher.moves import Towards

_VERBS = {
    Towards.DECREASE: r"decreas(?:e|ing)|lower(?:ing)?|reduc(?:e|ing)|smaller",
    Towards.INCREASE: r"increas(?:e|ing)|rais(?:e|ing)|larger",
    Towards.CHANGE: r"chang(?:e|ing)|vary(?:ing)?",
}
_DIRECTIONS = {towards: re.compile(rf"(?:{verbs})", re.IGNORECASE) for towards, verbs in _VERBS.items()}
_ANY = "|".join(_VERBS.values())
_TRY = re.compile(rf"\btry(?:\s+to)?\s+({_ANY})\s+(\w+)", re.IGNORECASE)
_AVOID = re.compile(rf"\b(?:avoid|do not|don't|stop)\s+(?:to\s+)?(?:({_ANY})\s+)?(\w+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Suggestions:
    """Parameter and direction each; an avoided pair without direction means both."""

    wanted: tuple[tuple[str, Towards], ...]
    avoided: frozenset[tuple[str, Towards | None]]

    def allows(self, parameter: str, towards: Towards) -> bool:
        return (parameter, None) not in self.avoided and (parameter, towards) not in self.avoided

    @classmethod
    def read(cls, texts: Iterable[str], names: Iterable[str]) -> Suggestions:
        """What ``texts`` say about the parameters ``names``."""
        known = frozenset(names)
        wanted, avoided = dict[tuple[str, Towards], None](), set[tuple[str, Towards | None]]()
        for text in texts:
            for verb, name in _TRY.findall(text):
                if name in known and (towards := _towards(verb)) is not None:
                    wanted[name, towards] = None
            avoided |= {(name, _towards(verb)) for verb, name in _AVOID.findall(text) if name in known}
        return cls(tuple(wanted), frozenset(avoided))


def _towards(verb: str) -> Towards | None:
    return next((towards for towards, verbs in _DIRECTIONS.items() if verbs.fullmatch(verb)), None)
