"""Wherever a mechanism keeps something, the digest of its state changes; equal state has equal digests."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from mechanisms.language.compiler import compile_source, define
from mechanisms.language.digest import state_digest
from mechanisms.sandbox.worker import OFFERED

_TEXT = Path(__file__).with_name("hiding_places.txt").read_text()
PLACES = dict(re.findall(r"^=== (.+?)$\n(.*?)(?=^=== |\Z)", _TEXT, re.MULTILINE | re.DOTALL))


def digests(source: str, prompts: int) -> list[str]:
    """The digest after each of ``prompts`` calls, the fresh one first."""
    namespace = define(compile_source(source, OFFERED), random.Random(0))
    cls = namespace["Mechanism"]
    mechanism = cls(None, {}, None) if cls.__init__ is not object.__init__ else cls()
    found = [state_digest(mechanism, namespace)]
    for _ in range(prompts):
        mechanism.prompt(None)
        found.append(state_digest(mechanism, namespace))
    return found


@pytest.mark.parametrize("place", PLACES)
def test_state_shows_wherever_it_is_kept(place: str) -> None:
    first, second = digests(PLACES[place], 2), digests(PLACES[place], 2)
    assert first == second, "two workers would agree"
    assert len(set(first)) == 3, "each call left something behind"


def test_what_keeps_nothing_does_not_change() -> None:
    found = digests("class Mechanism:\n    def prompt(self, view):\n        return 'x'\n", 2)
    assert len(set(found)) == 1
