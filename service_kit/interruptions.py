"""Evaluations whose process was killed by someone else: begun again, but not for ever."""

from __future__ import annotations

from collections import OrderedDict

from service_kit.errors import CutOff

ACCIDENTS = 2
"""So many kills of one evaluation are taken for accidents; with the next it counts as its own fault."""
_REMEMBERED = 1000


class Interruptions:
    """Counts kills by evaluation. A kill says nothing about a configuration, unless it happens every time."""

    def __init__(self) -> None:
        self._kills: OrderedDict[str, int] = OrderedDict()

    def note(self, evaluation: str) -> None:
        """Take note that the process of ``evaluation`` was killed.

        Raises :class:`CutOff`, so that whoever asked begins again, unless that has happened too often.
        """
        kills = self._kills.pop(evaluation, 0) + 1
        if kills > ACCIDENTS:
            return
        self._kills[evaluation] = kills
        if len(self._kills) > _REMEMBERED:
            self._kills.popitem(last=False)
        raise CutOff("the evaluation's process was killed from outside", hint="Begin the evaluation again.")
